//! A thin client of the registry API (OCI distribution specification, "Pull"), over reqwest and rustls.
//!
//! Thin, and our own, because what matters here is what a general client leaves to its caller or decides itself:
//! documents with a size limit before they are in memory, blobs as a stream that can go on in the middle, stalls that
//! time out, plain HTTP on loopback, redirects and token servers that cannot lead into the host's network, credentials
//! that reach nobody but whom they are for, and errors by kind. docs/adr/0003-registry-client.md has the comparison.

mod auth;
mod challenge;
mod endpoint;
mod http;
mod manifest;
mod retry;
mod stream;
mod token;

use crate::{Digest, ImageError, Limits, Login, Reference, blobs::Scope, registries::Registries};
use endpoint::Endpoint;
pub(crate) use http::{Http, Way, reason};

use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
pub(crate) use retry::{Failure, backoff, days, retry_after};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
pub(crate) use stream::Stream;

/// One repository, at its registry and at the mirrors of it.
pub(crate) struct Repository {
    reference: Reference,
    scope: Scope,
    limits: Limits,
    /// Asked first, in order, and shown nothing.
    mirrors: Vec<Endpoint>,
    registry: Endpoint,
}

/// Whose turn it is to be asked for a blob: the number of a mirror, or of none, which means the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(usize);

impl Repository {
    pub(crate) fn new(
        http: &Arc<Http>,
        registries: &Registries,
        reference: Reference,
        login: Option<&Login>,
        limits: Limits,
    ) -> Self {
        let endpoint = |at: (&str, &str), credentials| Endpoint::new(http, registries, at, credentials);
        let mirrors = registries.mirrors(&reference);
        let credentials = login.map(|login| login.credentials.clone());
        Self {
            scope: login.map_or(Scope::Public, |login| Scope::Owner(login.owner)),
            limits,
            mirrors: mirrors.iter().map(|(host, path)| endpoint((host, path), None)).collect(),
            registry: endpoint((reference.registry(), reference.repository()), credentials),
            reference,
        }
    }

    /// What it was asked for: as the user named it, whatever mirrors there are.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// For whom its blobs are.
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// Where its blobs come from.
    pub(crate) fn origin(&self) -> String {
        self.reference.location()
    }

    /// Who is asked first for a blob.
    pub(crate) fn first(&self) -> Turn {
        self.from(0)
    }

    /// The first from `number` on who is still asked.
    fn from(&self, number: usize) -> Turn {
        let trusted = |mirror: &Endpoint| !mirror.distrusted.load(Ordering::Relaxed);
        let next = self.mirrors.iter().skip(number).position(trusted);
        Turn(next.map_or(self.mirrors.len(), |further| number + further))
    }

    /// Whether it is the registry's turn, after which nobody comes.
    pub(crate) fn is_last(&self, turn: Turn) -> bool {
        turn.0 >= self.mirrors.len()
    }

    /// Who is asked after a mirror that did not help. One that does not answer is not asked again for other blobs.
    pub(crate) fn after(&self, turn: Turn, failure: Option<Failure>) -> Turn {
        if let (Some(mirror), Some(failure)) = (self.mirrors.get(turn.0), failure) {
            pass_over(mirror, failure.into_error());
        }
        self.from(turn.0 + 1)
    }

    /// Asks no mirror any more, because something that one of them may have sent was wrong. Whether there was one.
    pub(crate) fn distrust_mirrors(&self) -> bool {
        let distrust = |mirror: &Endpoint| !mirror.distrusted.swap(true, Ordering::Relaxed);
        self.mirrors.iter().map(distrust).fold(false, |any, was_trusted| any | was_trusted)
    }

    /// Opens the blob `digest` from byte `offset` on, at the one whose turn it is. The stream may start before that.
    pub(crate) async fn blob(&self, turn: Turn, digest: &Digest, offset: u64) -> Result<Stream, Failure> {
        let endpoint = self.mirrors.get(turn.0).unwrap_or(&self.registry);
        let what = || format!("blob {digest} of {}", self.reference);
        let range = format!("bytes={offset}-");
        let response = endpoint
            .get(&format!("blobs/{digest}"), &what, |request| match offset {
                0 => request,
                _ => request.header(RANGE, &range),
            })
            .await?;
        let registry = endpoint.registry().to_owned();
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let size = response.content_length();
            return Ok(Stream { response, registry, offset: 0, size });
        }
        let text = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let range = text.and_then(|text| text.strip_prefix("bytes ")?.split_once(['-', '/']));
        match range
            .and_then(|(start, rest)| Some((start.parse().ok()?, rest.rsplit('/').next()?.parse().ok())))
        {
            Some((start, size)) if start <= offset => Ok(Stream { response, registry, offset: start, size }),
            _ => {
                let why = "it answers a request for a range with another one";
                Err(Failure::Final(endpoint.unavailable(why)))
            }
        }
    }

    /// How long to wait before attempt number `attempt` + 2.
    pub(crate) fn backoff(&self, attempt: u32, wait: Option<Duration>) -> Duration {
        retry::backoff(self.limits.backoff, attempt, wait)
    }
}

/// Notes that a mirror did not help.
fn pass_over(mirror: &Endpoint, error: ImageError) {
    if !matches!(error, ImageError::NotFound { .. }) {
        mirror.distrusted.store(true, Ordering::Relaxed);
    }
    tracing::info!(mirror = mirror.registry(), %error, "a mirror does not help");
}

/// A failure that may pass.
fn passing(registry: &str, why: String) -> Failure {
    let error = ImageError::RegistryUnavailable { registry: registry.to_owned(), why };
    Failure::Passing { error, wait: None }
}
