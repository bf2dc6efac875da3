//! What Firecracker answers. It grows by fields from version to version: what is not known here is passed over.

use crate::GuestMemory;
use banger_model::Bytes;
use serde::Deserialize;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Firecracker's sentence.
    pub fault_message: String,
}

/// To [`crate::firecracker::Request::Version`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionAnswer {
    pub firecracker_version: String,
}

/// To [`crate::firecracker::Request::InstanceInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// In which state the VM is.
    pub state: InstanceState,
    /// Firecracker's version.
    pub vmm_version: String,
}

/// In which state a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    /// It is being configured.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its processors run.
    Running,
    /// They are stopped.
    Paused,
}

/// To [`crate::firecracker::Request::BalloonStatistics`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BalloonStatistics {
    /// What the balloon has, in MiB.
    pub actual_mib: u64,
    /// In bytes, as the rest.
    #[serde(default)]
    pub total_memory: Option<u64>,
    /// What nothing uses.
    #[serde(default)]
    pub free_memory: Option<u64>,
    /// What could be used without swapping.
    #[serde(default)]
    pub available_memory: Option<u64>,
    /// What holds copies of disks.
    #[serde(default)]
    pub disk_caches: Option<u64>,
}

impl From<BalloonStatistics> for GuestMemory {
    fn from(told: BalloonStatistics) -> Self {
        GuestMemory {
            total: told.total_memory.map(Bytes),
            free: told.free_memory.map(Bytes),
            available: told.available_memory.map(Bytes),
            caches: told.disk_caches.map(Bytes),
        }
    }
}
