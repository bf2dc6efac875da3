//! Host lane: VMs by name, asked as everybody asks: with dig, over the bridge, from a host that runs real VMs.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod doctor;
mod resolver;
mod server;
#[path = "../host_main_job/support.rs"]
#[allow(dead_code, reason = "shared with the main job's scenarios, which use more of it")]
mod support;
