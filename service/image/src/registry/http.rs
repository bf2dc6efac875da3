//! HTTP clients, one for each way of reaching a host: with and without TLS, certificates, proxy.

use crate::{
    ImageError, Limits,
    reference::{is_loopback, is_on_this_machine},
    registries::Connection,
};
use reqwest::{Client, ClientBuilder, Proxy, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Redirects that are followed: registries hand blobs to a store with one or two.
const REDIRECTS: usize = 10;
/// Clients that are kept; each holds the connections that it may use again.
const MOST: usize = 64;
/// A file of certificates may be this long.
const CERTIFICATES: u64 = 4 << 20;

/// Makes connections.
pub(crate) struct Http {
    limits: Limits,
    /// The host's certificates. They are read when they are first needed: it takes time, and a machine without any can
    /// still use its own registry.
    roots: OnceLock<RootCertStore>,
    clients: Mutex<HashMap<Way, Client>>,
}

/// How a client reaches its host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub connection: Connection,
    /// Whether the host is this machine, to which no proxy of the environment leads.
    pub local: bool,
    pub tls: bool,
    /// Whether redirects are followed.
    pub follows: bool,
}

impl Http {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, roots: OnceLock::new(), clients: Mutex::default() }
    }

    /// The client for this way to `registry`. What it holds open, others who go the same way use too: what they may is
    /// in each request.
    pub(crate) fn client(&self, registry: &str, way: &Way) -> Result<Client, ImageError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(way) {
            return Ok(client.clone());
        }
        let client = self
            .build(way)
            .map_err(|why| ImageError::RegistryUnavailable { registry: registry.to_owned(), why })?;
        if clients.len() >= MOST {
            clients.clear();
        }
        clients.insert(way.clone(), client.clone());
        Ok(client)
    }

    fn build(&self, way: &Way) -> Result<Client, String> {
        let roots = if way.tls { self.roots(&way.connection)? } else { RootCertStore::empty() };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = ClientBuilder::new()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.limits.connect)
            .read_timeout(self.limits.stall)
            .referer(false)
            .redirect(match way.follows {
                true => redirect::Policy::custom(follow),
                false => redirect::Policy::none(),
            });
        let builder = match &way.connection.proxy {
            // Its URL may hold a password: what reqwest says about it is not passed on.
            Some(url) => builder.proxy(Proxy::all(url).map_err(|_| "its proxy is not a URL".to_owned())?),
            None if way.local => builder.no_proxy(),
            None => builder,
        };
        builder.build().map_err(|e| reason(&e))
    }

    /// The host's certificates, and those that count beside them.
    fn roots(&self, connection: &Connection) -> Result<RootCertStore, String> {
        // `SSL_CERT_FILE` and `SSL_CERT_DIR` override where they are.
        let hosts = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        };
        let mut roots = self.roots.get_or_init(hosts).clone();
        for file in &connection.certificates {
            for certificate in certificates(&file.path)? {
                roots.add(certificate).map_err(|e| format!("{}: {e}", file.path.display()))?;
            }
        }
        match roots.is_empty() {
            true => {
                Err("this host has no CA certificates to check it with (install ca-certificates)".to_owned())
            }
            false => Ok(roots),
        }
    }
}

/// The certificates in a file of an administrator's, of which there must be some.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: String| format!("the certificates in {} cannot be used: {why}", path.display());
    if fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len() > CERTIFICATES {
        return Err(wrong("the file is too long".to_owned()));
    }
    let text = fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong("it holds none in PEM form".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// The way to a registry.
impl Way {
    pub(crate) fn new(registry: &str, connection: &Connection, tls: bool) -> Self {
        Self { connection: connection.clone(), local: is_on_this_machine(registry), tls, follows: true }
    }
}

/// Follows to HTTPS; from a registry on this machine also to plain HTTP on this machine, and from one that is spoken to
/// in plain HTTP to plain HTTP on the same host. A registry cannot send banger to other services of the host's network.
/// What was shown to the registry is not shown to another origin (reqwest drops it).
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    let from = attempt.previous().first();
    let allowed = attempt.url().scheme() == "https"
        || from.is_some_and(|from| from.scheme() == "http" && leads_nowhere_else(from, attempt.url()));
    match allowed {
        true => attempt.follow(),
        false => attempt.error("it redirects to an address without TLS"),
    }
}

/// Whether plain HTTP to `to` is no other host than plain HTTP to `from`: the same, or both this machine.
pub(super) fn leads_nowhere_else(from: &reqwest::Url, to: &reqwest::Url) -> bool {
    let local = |url: &reqwest::Url| url.host_str().is_some_and(is_loopback);
    to.scheme() == "http" && (to.host_str() == from.host_str() || local(from) && local(to))
}

/// What an error and its causes say, without the address, which may hold a signature.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
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
