//! Ids, names, specs, states and plans: what banger decides, without doing any of it.
//!
//! Nothing here reads a clock, a file or a socket, so everything here is tested by table.

mod bytes;
mod credentials;
mod disk;
mod error;
mod firewall;
mod id;
mod idle;
mod image;
mod job;
mod name;
mod network;
mod plan;
mod restart;
pub mod reverse;
mod slot;
mod spec;
mod subnet;
mod vm;

pub use bytes::Bytes;
pub use credentials::Credentials;
pub use disk::{DiskBackend, DiskNumber};
pub use error::ModelError;
pub use firewall::{Firewall, FirewallOwner};
pub use id::{ExecId, ImageId, JobId, KernelId, VmId, VolumeId};
pub use idle::{Idle, Sample};
pub use image::ImageSource;
pub use job::{JobKind, JobState, Phase};
pub use name::{ImageName, KernelName, VmName, VolumeName};
pub use network::{NetworkMode, NetworkRules, Protocol, PublishedPort};
pub use plan::{DeleteStep, Lane, Plan, Point, RecoverStep, StartStep, StopStep};
pub use restart::{Backoff, End, Restart};
pub use slot::Slot;
pub use spec::{Accel, Cpus, Limits, MachineSize, Uid};
pub use subnet::{Conflict, IpNetwork, Origin, Subnet, Used};
pub use vm::{VmEvent, VmState};
