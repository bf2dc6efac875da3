//! Talks to the agent inside a guest: runs commands there and shuts it down.
//!
//! The guest is not trusted. Everything that it sends is bounded and checked, and a guest that breaks the
//! protocol loses its connection.

mod agent;
mod connection;
mod error;
mod exec;
mod handshake;
mod stream;

pub use agent::Agent;
pub use banger_guest::wire::{
    ExecFailure, ExitStatus, Figures, GuestInfo, Listener, PhaseTime, Step, WindowSize,
};
pub use error::{AgentError, Violation};
pub use exec::{Exec, ExecControl, ExecOutput, ExecRequest, ExecStdin};
