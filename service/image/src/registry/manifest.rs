//! Manifests and indexes: documents, fetched whole.

use super::{Repository, endpoint::Endpoint, pass_over, retry::Failure};
use crate::{Digest, ImageError, manifest::ACCEPT};
use reqwest::header::{ACCEPT as ACCEPT_HEADER, CONTENT_TYPE};
use std::sync::atomic::Ordering;

/// A manifest or an index as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub body: Vec<u8>,
    pub content_type: Option<String>,
}

impl Repository {
    /// Fetches the manifest or index `name`, a tag or a digest, and checks it against its digest. A mirror that has it
    /// counts as much as the registry, also for a tag (containers-registries.conf(5), "mirror-by-digest-only").
    pub(crate) async fn manifest(&self, name: &str) -> Result<Answer, ImageError> {
        for mirror in &self.mirrors {
            if mirror.distrusted.load(Ordering::Relaxed) {
                continue;
            }
            match self.try_manifest(mirror, name).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => pass_over(mirror, failure.into_error()),
            }
        }
        let mut attempt = 0;
        loop {
            match self.try_manifest(&self.registry, name).await {
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

    async fn try_manifest(&self, endpoint: &Endpoint, name: &str) -> Result<Answer, Failure> {
        let accept = ACCEPT.join(", ");
        let what = || self.reference.to_string();
        let response = endpoint
            .get(&format!("manifests/{name}"), &what, |request| request.header(ACCEPT_HEADER, &accept))
            .await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let content_type = header(CONTENT_TYPE.as_str());
        let promised: Option<Digest> = header("docker-content-digest").and_then(|text| text.parse().ok());
        let limit = self.limits.manifest.0;
        let body = endpoint.bounded(response, "the size of the manifest", limit).await?;
        for expected in name.parse().ok().into_iter().chain(promised) {
            let expected: Digest = expected;
            let mut hasher = expected.hasher();
            hasher.update(&body);
            let actual = hasher.finish();
            if actual != expected {
                let what = format!("the manifest of {}", self.reference);
                return Err(Failure::Final(ImageError::DigestMismatch {
                    what,
                    expected,
                    actual: actual.to_string(),
                }));
            }
        }
        Ok(Answer { body, content_type })
    }
}
