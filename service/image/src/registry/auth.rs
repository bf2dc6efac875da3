//! What a registry is shown, and when: nothing until it asks.

use super::{challenge, endpoint::Endpoint, retry::Failure, token};
use banger_model::Credentials;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    RequestBuilder, Response,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use std::sync::{Mutex, PoisonError};

/// The state of one repository at one registry.
pub(super) struct Auth {
    credentials: Option<Credentials>,
    /// The header of requests, once the registry has asked for one.
    header: Mutex<Option<HeaderValue>>,
    /// Held while a new one is made, so that several downloads ask for one token.
    renewal: tokio::sync::Mutex<()>,
}

impl Auth {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, header: Mutex::default(), renewal: tokio::sync::Mutex::default() }
    }

    /// Whether there is anything to show.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// What requests show now.
    pub fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds something else to show after the answer 401 to a request that showed `shown`.
    ///
    /// # Errors
    /// What the token server says, or that there is nothing to show.
    pub async fn renew(
        &self,
        endpoint: &Endpoint,
        shown: Option<&HeaderValue>,
        answer: &Response,
    ) -> Result<(), Failure> {
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let challenges: Vec<_> = challenges.flat_map(challenge::challenges).collect();
        let _renewal = self.renewal.lock().await;
        if self.header().as_ref() != shown {
            // Somebody else has, meanwhile.
            return Ok(());
        }
        let bearer = challenges.iter().find_map(challenge::Challenge::bearer);
        let basic = challenges.iter().any(challenge::Challenge::is_basic);
        let header = match (&self.credentials, bearer) {
            (Some(Credentials::Registry { registry_token }), _) if basic || bearer.is_some() => {
                secret(format!("Bearer {registry_token}"))
            }
            (credentials, Some(bearer)) => {
                let token = token::ask(endpoint, bearer, credentials.as_ref()).await?;
                secret(format!("Bearer {token}"))
            }
            (Some(Credentials::Password { username, password }), None) if basic => {
                secret(basic_value(username, password))
            }
            _ => None,
        };
        let header = header.ok_or_else(|| endpoint.denied())?;
        *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(())
    }
}

/// Adds a header that shows username and password (RFC 7617) to a request.
pub(super) fn with_password(request: RequestBuilder, username: &str, password: &str) -> RequestBuilder {
    match secret(basic_value(username, password)) {
        Some(value) => request.header(AUTHORIZATION, value),
        None => request,
    }
}

fn basic_value(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// A header that nothing prints; `None` when it cannot be one.
fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
