//! The trait that every VMM implements.

use crate::{Firecracker, Machine, Qemu};
use banger_model::{Accel, ModelError};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};

/// A program and its arguments; no shell comes near them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute path; the first of them that is there.
    pub programs: Vec<PathBuf>,
    /// The arguments after the program's name.
    pub arguments: Vec<String>,
}

/// A virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// Where its program may be, the preferred place first: never looked up in `PATH`.
    fn programs(&self) -> &'static [&'static str];

    /// The command that runs `machine`. The process needs its descriptors open under their numbers, and
    /// nothing else: no other file, no capability, no environment.
    fn command(&self, machine: &Machine) -> Command;

    /// Whether it runs guests by this.
    fn runs_on(&self, accel: Accel) -> bool;

    /// Whether it opens disk, TAP and KVM by name, in a place of its own, rather than being handed descriptors.
    fn opens_by_name(&self) -> bool;
}

/// Which VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmmKind {
    /// QEMU's `microvm`.
    Qemu,
    /// Firecracker.
    Firecracker,
}

impl VmmKind {
    /// The word for it in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            VmmKind::Qemu => "qemu",
            VmmKind::Firecracker => "firecracker",
        }
    }

    /// The VMM itself.
    pub fn vmm(self) -> &'static dyn Vmm {
        match self {
            VmmKind::Qemu => &Qemu,
            VmmKind::Firecracker => &Firecracker,
        }
    }
}

impl fmt::Display for VmmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VmmKind {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "qemu" => Ok(VmmKind::Qemu),
            "firecracker" => Ok(VmmKind::Firecracker),
            _ => Err(ModelError::Range {
                what: "vmm",
                value: text.chars().take(32).collect(),
                least: "qemu".into(),
                most: "firecracker".into(),
            }),
        }
    }
}
