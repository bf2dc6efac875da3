//! A thin client of the registry API (OCI distribution specification, "Pull"), over reqwest and rustls.
//!
//! Thin, and our own, because what matters here is what a general client leaves to its caller or decides itself:
//! documents with a size limit before they are in memory, blobs as a stream that can go on in the middle, stalls that
//! time out, plain HTTP on loopback, redirects and token servers that cannot lead into the host's network, and errors
//! by kind. docs/adr/0003-registry-client.md has the comparison.

mod challenge;
mod http;

use crate::{Digest, ImageError, Limits, Login, Reference, Unsafe, blobs::Scope, manifest::ACCEPT};
use challenge::Bearer;
pub(crate) use http::Http;
use http::reason;
use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{
        ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use serde::Deserialize;
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// A token server's answer may be this long.
const TOKEN_ANSWER: u64 = 1 << 20;
/// The longest `Retry-After` that is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait between attempts that banger chooses itself.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// One repository of a registry, with the token that it gave us.
pub(crate) struct Repository {
    http: Arc<Http>,
    reference: Reference,
    limits: Limits,
    /// Whether it speaks TLS, once that is known.
    tls: OnceLock<bool>,
    token: Mutex<Option<HeaderValue>>,
    login: Option<Login>,
}

/// A manifest or an index as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub body: Vec<u8>,
    pub content_type: Option<String>,
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again will not help.
    Final(ImageError),
    /// It may, after a while.
    Passing { error: ImageError, wait: Option<Duration> },
}

/// A blob that streams in, from some byte on.
pub(crate) struct Stream {
    response: Response,
    /// The byte that comes next.
    pub offset: u64,
    /// How long the whole blob is, where the registry says so.
    pub size: Option<u64>,
}

impl Repository {
    pub(crate) fn new(http: Arc<Http>, reference: Reference, login: Option<Login>, limits: Limits) -> Self {
        let tls = OnceLock::new();
        if !reference.is_loopback() {
            let _ = tls.set(true);
        }
        Self { http, reference, limits, tls, token: Mutex::new(None), login }
    }

    /// For whom its blobs are.
    pub(crate) fn scope(&self) -> Scope {
        self.login.as_ref().map_or(Scope::Public, |login| Scope::Owner(login.owner))
    }

    /// Where its blobs come from.
    pub(crate) fn origin(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    /// Fetches the manifest or index `name`, a tag or a digest, and checks it against its digest.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Answer, ImageError> {
        let mut attempt = 0;
        loop {
            match self.try_manifest(name).await {
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

    async fn try_manifest(&self, name: &str) -> Result<Answer, Failure> {
        let accept = ACCEPT.join(", ");
        let what = || self.reference.to_string();
        let response = self
            .get(&format!("manifests/{name}"), &what, |request| request.header(ACCEPT_HEADER, &accept))
            .await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let content_type = header(CONTENT_TYPE.as_str());
        let promised: Option<Digest> = header("docker-content-digest").and_then(|text| text.parse().ok());
        let body = self.bounded(response, "the size of the manifest", self.limits.manifest.0).await?;
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

    /// Opens the blob `digest` from byte `offset` on. The stream may start before that.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Stream, Failure> {
        let what = || format!("blob {digest} of {}", self.reference);
        let range = format!("bytes={offset}-");
        let response = self
            .get(&format!("blobs/{digest}"), &what, |request| match offset {
                0 => request,
                _ => request.header(RANGE, &range),
            })
            .await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let size = response.content_length();
            return Ok(Stream { response, offset: 0, size });
        }
        let text = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let range = text.and_then(|text| text.strip_prefix("bytes ")?.split_once(['-', '/']));
        match range
            .and_then(|(start, rest)| Some((start.parse().ok()?, rest.rsplit('/').next()?.parse().ok())))
        {
            Some((start, size)) if start <= offset => Ok(Stream { response, offset: start, size }),
            _ => Err(Failure::Final(self.unavailable("it answers a request for a range with another one"))),
        }
    }

    /// How long to wait before attempt number `attempt` + 2.
    pub(crate) fn backoff(&self, attempt: u32, wait: Option<Duration>) -> Duration {
        let own = self.limits.backoff.saturating_mul(1 << attempt.min(16)).min(LONGEST_BACKOFF);
        wait.map_or(own, |wait| wait.min(LONGEST_WAIT))
    }

    pub(crate) fn unavailable(&self, why: impl Into<String>) -> ImageError {
        ImageError::RegistryUnavailable { registry: self.reference.registry().to_owned(), why: why.into() }
    }

    fn denied(&self) -> Failure {
        Failure::Final(ImageError::RegistryDenied {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
        })
    }

    /// A successful answer to a GET, after fetching a token if one is wanted.
    async fn get(
        &self,
        path: &str,
        what: &(dyn Fn() -> String + Sync),
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let mut asked = false;
        loop {
            let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let with_token = |request: RequestBuilder| match &token {
                Some(token) => request.header(AUTHORIZATION, token),
                None => request,
            };
            let response = self.send(path, |request| change(with_token(request))).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
                    let bearer =
                        challenges.iter().filter_map(|v| v.to_str().ok()).find_map(challenge::bearer);
                    let token = self.ask_token(&bearer.ok_or_else(|| self.denied())?).await?;
                    *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
                StatusCode::NOT_FOUND => return Err(Failure::Final(ImageError::NotFound { what: what() })),
                status => return Err(self.status(status, &response)),
            }
        }
    }

    fn status(&self, status: StatusCode, response: &Response) -> Failure {
        let error = self.unavailable(format!("it answers {status}"));
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        match passing {
            true => Failure::Passing { error, wait: seconds.map(Duration::from_secs) },
            false => Failure::Final(error),
        }
    }

    /// Sends one request. A registry on this machine is tried without TLS first, and with it when that is no HTTP.
    async fn send(
        &self,
        path: &str,
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let one = async |tls: bool| {
            let client = self.http.client(self.reference.registry(), tls).map_err(Failure::Final)?;
            let scheme = if tls { "https" } else { "http" };
            let (host, repository) = (self.reference.api_host(), self.reference.repository());
            let url = format!("{scheme}://{host}/v2/{repository}/{path}");
            change(client.get(url)).send().await.map_err(|error| self.unanswered(error))
        };
        match self.tls.get() {
            Some(tls) => one(*tls).await,
            None => {
                let plain = one(false).await;
                // Go's TLS servers, which registries are, answer plain HTTP with 400.
                let wrong = match &plain {
                    Ok(response) => response.status() == StatusCode::BAD_REQUEST,
                    Err(_) => true,
                };
                if wrong && let Ok(response) = one(true).await {
                    let _ = self.tls.set(true);
                    return Ok(response);
                }
                if plain.is_ok() {
                    let _ = self.tls.set(false);
                }
                plain
            }
        }
    }

    /// An error from before there was an answer. Refused connections and unknown hosts do not pass by themselves.
    fn unanswered(&self, error: reqwest::Error) -> Failure {
        let passing = !error.is_connect() && !error.is_redirect() && !error.is_builder();
        let error = self.unavailable(reason(&error));
        match passing {
            true => Failure::Passing { error, wait: None },
            false => Failure::Final(error),
        }
    }

    /// Gets a token that allows to pull, without credentials.
    async fn ask_token(&self, bearer: &Bearer) -> Result<HeaderValue, Failure> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let refused = |why: &str| Failure::Final(self.unavailable(format!("its token server {why}")));
        let mut url = Url::parse(&bearer.realm).map_err(|_| refused("has no valid address"))?;
        // What it answers is sent to the registry: it must not be a service of the host's network.
        let local = self.reference.is_loopback() && url.host_str().is_some_and(crate::reference::is_loopback);
        let tls = match url.scheme() {
            "https" => true,
            "http" if local => false,
            _ => return Err(refused("does not use TLS")),
        };
        let scope = format!("repository:{}:pull", self.reference.repository());
        url.query_pairs_mut().append_pair("scope", bearer.scope.as_ref().unwrap_or(&scope));
        if let Some(service) = &bearer.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let client = self.http.client(self.reference.registry(), tls).map_err(Failure::Final)?;
        let response = client.get(url).send().await.map_err(|error| self.unanswered(error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
            status => return Err(self.status(status, &response)),
        }
        let body = self.bounded(response, "the size of the token server's answer", TOKEN_ANSWER).await?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| refused("answers something else than a token"))?;
        let token = token.token.or(token.access_token).ok_or_else(|| refused("gives no token"))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| refused("gives an unusable token"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A whole body, unless it is longer than `limit`.
    async fn bounded(&self, response: Response, what: &'static str, limit: u64) -> Result<Vec<u8>, Failure> {
        let too_long = |value| Failure::Final(Unsafe::Limit { what, value, limit }.into());
        let announced = response.content_length().unwrap_or(0);
        if announced > limit {
            return Err(too_long(announced));
        }
        let mut body = Vec::with_capacity(announced as usize);
        let mut stream = Stream { response, offset: 0, size: None };
        while let Some(chunk) = stream.next(self).await? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(too_long(body.len() as u64));
            }
        }
        Ok(body)
    }
}

impl Stream {
    /// The next bytes, or `None` at the end. An error is always passing.
    pub(crate) async fn next(&mut self, from: &Repository) -> Result<Option<bytes::Bytes>, Failure> {
        match self.response.chunk().await {
            Ok(chunk) => {
                self.offset += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            Err(error) => Err(Failure::Passing { error: from.unavailable(reason(&error)), wait: None }),
        }
    }
}
