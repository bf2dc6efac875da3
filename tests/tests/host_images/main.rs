//! Host lane: images that are hard to get right and images that mean harm, through the real registry, service and
//! client.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod hostile;
#[path = "../../../service/ext4/tests/support/mounted.rs"]
mod mounted;
mod push;
#[path = "../../../service/ext4/tests/support/mod.rs"]
mod support;
mod umoci;
