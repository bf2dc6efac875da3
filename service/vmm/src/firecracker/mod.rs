//! Firecracker, 1.8 or newer: older ones do not describe their devices to kernels that read ACPI alone, as distributions'
//! do.
//!
//! Its program opens all by name, so it runs in a mount namespace where `/run` is its own: [`paths`] are the names
//! there. What it is to run it is told over its socket ([`Api`]), by the requests that [`boot`] lists.

mod answer;
mod client;
pub mod paths;
mod plan;
mod request;
mod version;

use crate::{Command, Machine, Vmm};
use banger_model::Accel;
use std::path::PathBuf;

pub use answer::{BalloonStatistics, Fault, InstanceInfo, InstanceState};
pub use client::{Api, ApiError, LARGEST_ANSWER, Step};
pub use plan::{Setup, boot, load};
pub use request::{
    Action, Balloon, BootSource, Drive, Entropy, Logger, MachineConfig, MemoryBackend, Method, Metrics,
    NetworkInterface, NetworkOverride, RateLimiter, Request, SnapshotCreate, SnapshotLoad, State,
    TokenBucket, Vsock,
};
pub use version::Version;

/// Firecracker.
#[derive(Debug, Clone, Copy)]
pub struct Firecracker;

impl Vmm for Firecracker {
    fn programs(&self) -> &'static [&'static str] {
        &["/usr/bin/firecracker", "/usr/local/bin/firecracker"]
    }

    fn command(&self, _machine: &Machine) -> Command {
        Command {
            programs: self.programs().iter().map(PathBuf::from).collect(),
            arguments: ["--api-sock", paths::API].map(String::from).into(),
        }
    }

    fn runs_on(&self, accel: Accel) -> bool {
        accel == Accel::Kvm
    }

    fn opens_by_name(&self) -> bool {
        true
    }
}
