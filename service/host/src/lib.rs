//! The privileged helper, `banger-hostd`, and the way to talk to it.
//!
//! `banger-hostd` is the only part of banger that is root. It carries out a closed list of verbs
//! ([`Request`]), each made of ids, numbers and file descriptors: no path, device name or address ever
//! reaches it from outside. [`Host`] is that list as a trait, [`HostClient`] the real one behind it, and
//! [`FakeHost`] one for tests, whose failures are scripted.

mod client;
pub mod cow;
mod error;
mod fake;
mod host;
mod memfd;
mod message;
pub mod packet;

pub use banger_vmm::{IoLimits, Manner, VmmKind};
pub use client::HostClient;
pub use error::{HostError, Refusal};
pub use fake::{FakeHost, FakeVm};
pub use host::{Answer, Host, SnapshotDisk, StartVm};
pub use memfd::{SEALS, seal};
pub use message::{NameRouting, PROTOCOL, Reply, Request, Verb, VmStatus, VmUsage};
