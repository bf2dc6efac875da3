//! HTTP clients: one without TLS for registries on this machine, one with it for the rest.

use crate::{ImageError, Limits, reference::is_loopback};
use reqwest::{Client, ClientBuilder, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{error::Error, sync::Arc, sync::OnceLock};

/// Redirects that are followed: registries hand blobs to a store with one or two.
const REDIRECTS: usize = 10;

/// Makes connections.
pub(crate) struct Http {
    limits: Limits,
    plain: OnceLock<Result<Client, String>>,
    tls: OnceLock<Result<Client, String>>,
}

impl Http {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// The client for plain HTTP, or the one for HTTPS. Either is made when it is first needed: reading the
    /// certificates takes time, and a machine without any can still use its own registry.
    pub(super) fn client(&self, registry: &str, tls: bool) -> Result<&Client, ImageError> {
        let made = match tls {
            true => self.tls.get_or_init(|| self.build(certificates()?)),
            false => self.plain.get_or_init(|| self.build(RootCertStore::empty())),
        };
        let unavailable =
            |why: &String| ImageError::RegistryUnavailable { registry: registry.into(), why: why.clone() };
        made.as_ref().map_err(unavailable)
    }

    fn build(&self, roots: RootCertStore) -> Result<Client, String> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        ClientBuilder::new()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.limits.connect)
            .read_timeout(self.limits.stall)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|e| reason(&e))
    }
}

/// The host's certificates. `SSL_CERT_FILE` and `SSL_CERT_DIR` override where they are.
fn certificates() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("this host has no CA certificates to check it with (install ca-certificates)".to_owned()),
        false => Ok(roots),
    }
}

/// Follows to HTTPS; from a registry on this machine also to plain HTTP on this machine. A registry cannot send banger
/// to other services of the host's network.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    let local = |url: &reqwest::Url| url.scheme() == "http" && url.host_str().is_some_and(is_loopback);
    let allowed = attempt.url().scheme() == "https"
        || local(attempt.url()) && attempt.previous().first().is_some_and(local);
    match allowed {
        true => attempt.follow(),
        false => attempt.error("it redirects to an address without TLS"),
    }
}

/// What an error and its causes say, without the address, which may hold a signature.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<reqwest::Error>() {
            Some(error) if error.is_timeout() => "it does not answer in time".to_owned(),
            Some(error) if error.is_connect() => "cannot connect".to_owned(),
            Some(error) if error.is_redirect() => "cannot follow its redirect".to_owned(),
            Some(error) if error.is_request() => "the request failed".to_owned(),
            Some(error) if error.is_body() || error.is_decode() => "the connection broke".to_owned(),
            Some(_) => "the request failed".to_owned(),
            None => error.to_string(),
        };
        next = error.source();
        if !parts.contains(&text) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
