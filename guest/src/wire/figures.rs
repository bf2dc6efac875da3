//! What a guest measures of itself. All of it is the guest's word.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most listeners that a guest tells of.
pub const MOST_LISTENERS: usize = 512;

/// How a guest is at a moment ([`super::Kind::Figures`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Milliseconds since its kernel started.
    pub uptime_ms: u64,
    /// Milliseconds that its processors worked, together.
    pub busy_ms: u64,
    /// How many processors it has.
    pub cpus: u32,
    /// Bytes of memory that its kernel has to give.
    pub memory: u64,
    /// Bytes of it that programs could still have.
    pub memory_available: u64,
    /// Tasks that exist.
    pub tasks: u32,
    /// Bytes of its root filesystem.
    pub disk: u64,
    /// Bytes of it that are free for ordinary users.
    pub disk_available: u64,
    /// Connections between it and others, over TCP.
    pub connections: u32,
    /// Who listens on TCP, sorted, each once.
    pub listeners: Vec<Listener>,
}

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The address; the unspecified one for all of them.
    pub address: IpAddr,
}

impl Figures {
    /// Whether the guest kept to the limit on listeners, and to their order.
    pub fn is_bounded(&self) -> bool {
        self.listeners.len() <= MOST_LISTENERS && self.listeners.windows(2).all(|two| two[0] < two[1])
    }
}
