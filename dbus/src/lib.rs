//! The D-Bus interfaces of banger, for both sides of the bus: names and paths, proxies, errors by name,
//! and the typed form of every dictionary that travels.
//!
//! The service implements the interfaces of [`proxy`]; a client calls them through the proxies.

pub mod dict;
pub mod error;
pub mod field;
pub mod info;
pub mod names;
pub mod proxy;

pub use dict::{Dict, DictError, DictWriter, Options};
pub use error::{Error, Result};
pub use field::{Field, Port};
pub use info::{
    CatalogueInfo, ExecResult, ImageInfo, JobInfo, KernelInfo, SnapshotInfo, VmInfo, VmStats, VmSummary,
    VolumeInfo,
};
pub use names::Object;
pub use proxy::{ExecProxy, ImageProxy, JobProxy, KernelProxy, ManagerProxy, VMProxy, VolumeProxy};

/// The values that travel, so that a client needs no other crate of ours.
pub use banger_model as model;
/// The D-Bus library whose types appear in this crate's API.
pub use zbus;
