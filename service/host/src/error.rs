//! What can go wrong between the daemon and its helper.

use crate::Verb;
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

/// Why the helper refused or failed, for the caller's program; the sentence beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The caller is not the user that the helper serves.
    Denied,
    /// The packet is not a request, or speaks another version.
    Malformed,
    /// A descriptor has the wrong type, owner, access mode, size or seals, or there are too few or many.
    Descriptor,
    /// A number is out of its range.
    Range,
    /// There is no such thing.
    NotFound,
    /// The slot belongs to another VM, or the VM has another slot.
    SlotTaken,
    /// The VM is not in the state for that: already running, or without a disk or a TAP.
    WrongState,
    /// The host lacks what it takes: /dev/kvm, loop devices, TUN, the VMM's program.
    HostNotReady,
    /// The host uses the VMs' addresses for something else.
    Conflict,
    /// Somebody else has it already: a port of the host's.
    InUse,
    /// The VMM did not start.
    Vmm,
    /// Something was not undone; the sentence says what is left.
    Rollback,
    /// The operating system refused.
    System,
}

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The helper's own answer.
    #[error("{message}")]
    Refused {
        /// Which verb.
        verb: Verb,
        /// Why, for programs.
        kind: Refusal,
        /// Why, for people.
        message: String,
    },
    /// The helper cannot be reached.
    #[error("banger-hostd cannot be reached at {}: start banger-hostd.socket", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The connection failed while a verb was under way; whether it was carried out is not known.
    #[error("banger-hostd went away during {verb}")]
    Lost {
        /// Which verb.
        verb: Verb,
        /// What the socket said.
        source: io::Error,
    },
    /// The helper answered what cannot be an answer to that verb: it is of another version.
    #[error("banger-hostd answered {verb} with something else: {reason}; restart it after an upgrade")]
    Protocol {
        /// Which verb.
        verb: Verb,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl HostError {
    /// The helper's reason, if it was the helper who refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            HostError::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}
