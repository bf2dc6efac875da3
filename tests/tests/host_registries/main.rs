//! Host lane: registries as people have them. Debian's docker-registry with TLS, passwords, as a mirror and behind a
//! proxy; the real client, which finds what `skopeo login` wrote.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod config;
mod credentials;
mod mirrors;
mod servers;
