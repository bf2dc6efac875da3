//! Manifests and indexes: documents, fetched whole.

use super::{Repository, endpoint::Endpoint, pass_over, retry::Failure};
use crate::{Digest, ImageError, manifest::ACCEPT};
use banger_model::Bytes;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, CONTENT_TYPE};
use std::sync::atomic::Ordering;

/// A manifest or an index as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub body: Vec<u8>,
    pub content_type: Option<String>,
}

/// A document that is fetched whole.
struct Wanted<'a> {
    /// Its path below the repository's.
    path: String,
    /// The media types that are understood.
    accept: &'a str,
    /// What it is, for errors, and what its size is called.
    what: String,
    size: &'static str,
    /// How many bytes it may have.
    limit: Bytes,
    /// Its digest, when that is known.
    digest: Option<Digest>,
}

impl Repository {
    /// Fetches the manifest or index `name`, a tag or a digest, and checks it against its digest. A mirror that has it
    /// counts as much as the registry, also for a tag (containers-registries.conf(5), "mirror-by-digest-only").
    pub(crate) async fn manifest(&self, name: &str) -> Result<Answer, ImageError> {
        self.whole(&Wanted {
            path: format!("manifests/{name}"),
            accept: &ACCEPT.join(", "),
            what: format!("the manifest of {}", self.reference),
            size: "the size of the manifest",
            limit: self.limits.manifest,
            digest: name.parse().ok(),
        })
        .await
    }

    /// Fetches a blob that is only looked at, and checks it.
    pub(crate) async fn small_blob(&self, digest: &Digest, limit: Bytes) -> Result<Vec<u8>, ImageError> {
        let what = format!("blob {digest} of {}", self.reference);
        let size = "the size of a signature";
        let (path, digest) = (format!("blobs/{digest}"), Some(digest.clone()));
        Ok(self.whole(&Wanted { path, accept: "*/*", what, size, limit, digest }).await?.body)
    }

    /// Fetches what the registry knows to refer to a manifest (OCI distribution specification 1.1, "Listing Referrers").
    pub(crate) async fn referrers(&self, digest: &Digest) -> Result<Answer, ImageError> {
        self.whole(&Wanted {
            path: format!("referrers/{digest}"),
            accept: &ACCEPT.join(", "),
            what: format!("what refers to {digest}"),
            size: "the size of the list of referrers",
            limit: self.limits.manifest,
            digest: None,
        })
        .await
    }

    /// From the first mirror that has it, or from the registry.
    async fn whole(&self, wanted: &Wanted<'_>) -> Result<Answer, ImageError> {
        for mirror in &self.mirrors {
            if mirror.distrusted.load(Ordering::Relaxed) {
                continue;
            }
            match self.try_whole(mirror, wanted).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => pass_over(mirror, failure.into_error()),
            }
        }
        let mut attempt = 0;
        loop {
            match self.try_whole(&self.registry, wanted).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { error, .. }) if attempt >= self.limits.retries => return Err(error),
                Err(Failure::Passing { wait, .. }) => {
                    tokio::time::sleep(self.backoff(attempt, wait)).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn try_whole(&self, endpoint: &Endpoint, wanted: &Wanted<'_>) -> Result<Answer, Failure> {
        let what = || self.reference.to_string();
        let response =
            endpoint.get(&wanted.path, &what, |request| request.header(ACCEPT_HEADER, wanted.accept)).await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let content_type = header(CONTENT_TYPE.as_str());
        let promised: Option<Digest> = header("docker-content-digest").and_then(|text| text.parse().ok());
        let body = endpoint.bounded(response, wanted.size, wanted.limit.0).await?;
        for expected in wanted.digest.clone().into_iter().chain(promised) {
            let mut hasher = expected.hasher();
            hasher.update(&body);
            let actual = hasher.finish();
            if actual != expected {
                let (what, actual) = (wanted.what.clone(), actual.to_string());
                return Err(Failure::Final(ImageError::DigestMismatch { what, expected, actual }));
            }
        }
        Ok(Answer { body, content_type })
    }
}
