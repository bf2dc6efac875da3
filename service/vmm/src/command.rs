//! The trait that every VMM implements.

use crate::{Machine, Qemu};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A program and its arguments; no shell comes near them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute path.
    pub program: PathBuf,
    /// The arguments after the program's name.
    pub arguments: Vec<String>,
}

/// A virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// The command that runs `machine`. The process needs its descriptors open under their numbers, and
    /// nothing else: no other file, no capability, no environment.
    fn command(&self, machine: &Machine) -> Command;
}

/// Which VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmmKind {
    /// QEMU's `microvm`.
    Qemu,
}

impl VmmKind {
    /// The word for it in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            VmmKind::Qemu => "qemu",
        }
    }

    /// The VMM itself.
    pub fn vmm(self) -> &'static dyn Vmm {
        match self {
            VmmKind::Qemu => &Qemu,
        }
    }
}
