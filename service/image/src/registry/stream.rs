//! Bodies that stream in.

use super::{endpoint::Endpoint, http::reason, retry::Failure};
use crate::Unsafe;
use reqwest::Response;

/// A body that streams in, from some byte on.
pub(crate) struct Stream {
    pub(super) response: Response,
    /// The registry that sends it, for errors.
    pub(super) registry: String,
    /// The byte that comes next.
    pub offset: u64,
    /// How long the whole is, where the registry says so.
    pub size: Option<u64>,
}

impl Stream {
    /// The next bytes, or `None` at the end. An error is always passing.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        match self.response.chunk().await {
            Ok(chunk) => {
                self.offset += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            Err(error) => Err(super::passing(&self.registry, reason(&error))),
        }
    }
}

impl Endpoint {
    /// A whole body, unless it is longer than `limit`.
    pub(super) async fn bounded(
        &self,
        response: Response,
        what: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        let too_long = |value| Failure::Final(Unsafe::Limit { what, value, limit }.into());
        let announced = response.content_length().unwrap_or(0);
        if announced > limit {
            return Err(too_long(announced));
        }
        let mut body = Vec::with_capacity(announced as usize);
        let mut stream = Stream { response, registry: self.registry().to_owned(), offset: 0, size: None };
        while let Some(chunk) = stream.next().await? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(too_long(body.len() as u64));
            }
        }
        Ok(body)
    }
}
