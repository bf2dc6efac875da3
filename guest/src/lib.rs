//! What the host and the guest's agent have in common: the wire protocol and the settings of a guest.
//!
//! The binary of this crate, `banger-guest`, is both `/init` of the initramfs and the agent.

mod settings;
pub mod wire;

pub use settings::{Address, HostEntry, Init, Mac, Mount, Network, Process, Root, Settings, SettingsError};
