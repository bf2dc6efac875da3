//! Host lane: what a VMM does beyond running a guest: snapshots, forks, memory given back, limits. On a private host, with
//! the real VMM.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

#[path = "../host_main_job/support.rs"]
#[allow(dead_code, reason = "shared with other tests of this lane")]
mod support;

mod balloon;
mod limits;
mod snapshots;
