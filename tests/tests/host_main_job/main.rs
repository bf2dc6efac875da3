//! Host lane: the main job as people do it, with the real client on a private host that has everything real.
//!
//! `cargo xtask test host` runs this as root on a private host; each scenario acts as `alice`, who counts as being
//! in an active session, or as `bob`, who does not. A failure shows the command, its output and the service's log.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod catalogue;
mod disks;
mod errors;
mod faults;
mod images;
mod interfaces;
mod kernels;
mod life;
mod lifecycle;
mod names;
mod network;
mod operations;
mod readme;
mod run;
mod signatures;
mod sources;
mod support;
mod terminal;
mod users;
