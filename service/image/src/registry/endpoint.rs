//! One repository at one host, a registry or a mirror of it.

use super::{
    auth::Auth,
    http::{Http, Way, reason},
    retry::{Failure, retry_after},
};
use crate::{
    ImageError,
    reference::{api_host, is_on_this_machine},
    registries::{Connection, Registries},
};
use banger_model::Credentials;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

/// Where requests go, and with what right.
pub(super) struct Endpoint {
    http: Arc<Http>,
    registry: String,
    repository: String,
    connection: Connection,
    /// Whether it speaks TLS, once that is known.
    tls: OnceLock<bool>,
    auth: Auth,
    /// Whether it has ever answered: then a connection that fails is a disturbance.
    answered: AtomicBool,
    /// Whether it is asked no more.
    pub(super) distrusted: AtomicBool,
}

impl Endpoint {
    pub fn new(
        http: &Arc<Http>,
        registries: &Registries,
        (registry, repository): (&str, &str),
        credentials: Option<Credentials>,
    ) -> Self {
        let connection = registries.connection(registry, repository);
        let tls = OnceLock::new();
        if !connection.allows_plain(registry) {
            let _ = tls.set(true);
        }
        Self {
            http: Arc::clone(http),
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            connection,
            tls,
            auth: Auth::new(credentials),
            answered: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
        }
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn unavailable(&self, why: impl Into<String>) -> ImageError {
        ImageError::RegistryUnavailable { registry: self.registry.clone(), why: why.into() }
    }

    pub fn denied(&self) -> Failure {
        Failure::Final(ImageError::RegistryDenied {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            shown: self.auth.has_credentials(),
        })
    }

    /// A successful answer to a GET, after showing what the registry asks for.
    pub async fn get(
        &self,
        path: &str,
        what: &(dyn Fn() -> String + Sync),
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let mut asked = false;
        loop {
            let shown = self.auth.header();
            let with_header = |request: RequestBuilder| match &shown {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            };
            let response = self.send(path, |request| change(with_header(request))).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                // What a store asks for that the registry redirects to is not for the registry's credentials. Most
                // likely the address was good for a time that is over: the registry gives another.
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !self.is_own(response.url()) => {
                    let why = format!("it redirects to an address that answers {}", response.status());
                    return Err(super::passing(&self.registry, why));
                }
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    self.auth.renew(self, shown.as_ref(), &response).await?;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
                StatusCode::NOT_FOUND => return Err(Failure::Final(ImageError::NotFound { what: what() })),
                status => return Err(self.status(status, &response)),
            }
        }
    }

    pub fn status(&self, status: StatusCode, response: &Response) -> Failure {
        let error = self.unavailable(format!("it answers {status}"));
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
        match passing {
            true => {
                Failure::Passing { error, wait: after.and_then(|text| retry_after(text, SystemTime::now())) }
            }
            false => Failure::Final(error),
        }
    }

    /// Sends one request. Where plain HTTP is allowed it is found out what is spoken: a registry on this machine is
    /// tried without TLS first, another one with it.
    async fn send(
        &self,
        path: &str,
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let one = async |tls: bool| {
            let way = Way::new(&self.registry, &self.connection, tls);
            let client = self.http.client(&self.registry, &way).map_err(Failure::Final)?;
            let url = format!("{}{path}", self.base(tls));
            let response = change(client.get(url)).send().await.map_err(|error| self.unanswered(error))?;
            self.answered.store(true, Ordering::Relaxed);
            Ok(response)
        };
        if let Some(tls) = self.tls.get() {
            return one(*tls).await;
        }
        let first = !self.connection.prefers_plain(&self.registry);
        let answer = one(first).await;
        // Go's TLS servers, which registries are, answer plain HTTP with 400.
        let wrong = match &answer {
            Ok(response) => !first && response.status() == StatusCode::BAD_REQUEST,
            Err(_) => true,
        };
        if wrong {
            match one(!first).await {
                Ok(response) => {
                    let _ = self.tls.set(!first);
                    return Ok(response);
                }
                // It speaks TLS, and not as it should: that is the error to tell.
                Err(error) if answer.is_ok() => return Err(error),
                Err(_) => {}
            }
        }
        if answer.is_ok() {
            let _ = self.tls.set(first);
        }
        answer
    }

    fn base(&self, tls: bool) -> String {
        let scheme = if tls { "https" } else { "http" };
        format!("{scheme}://{}/v2/{}/", api_host(&self.registry), self.repository)
    }

    /// Its address when it is spoken to without TLS.
    pub fn plain_url(&self) -> Option<Url> {
        let plain = self.tls.get() == Some(&false);
        plain.then(|| Url::parse(&self.base(false)).ok()).flatten()
    }

    /// Whether an address is its own and not one that it redirects to.
    fn is_own(&self, url: &Url) -> bool {
        let own = self.tls.get().map_or_else(|| vec![true, false], |tls| vec![*tls]);
        own.iter().any(|tls| Url::parse(&self.base(*tls)).is_ok_and(|base| base.origin() == url.origin()))
    }

    /// The client for its token server, which is reached in the same way.
    pub fn client_for(&self, url: &Url, follows: bool) -> Result<Client, ImageError> {
        let local = is_on_this_machine(&self.registry);
        let way = Way { connection: self.connection.clone(), local, tls: url.scheme() == "https", follows };
        self.http.client(&self.registry, &way)
    }

    /// An error from before there was an answer. Refused connections and unknown hosts do not pass by themselves, unless
    /// the host was there a moment ago.
    pub fn unanswered(&self, error: reqwest::Error) -> Failure {
        let absent = error.is_connect() && !self.answered.load(Ordering::Relaxed);
        let passing = !absent && !error.is_redirect() && !error.is_builder();
        let error = self.unavailable(reason(&error));
        match passing {
            true => Failure::Passing { error, wait: None },
            false => Failure::Final(error),
        }
    }
}
