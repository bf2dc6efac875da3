//! The protocol between the host and the agent in a guest.
//!
//! It runs over one byte stream: a virtio-serial port, or anything else that is one. Both sides send
//! [frames](Frame). Stream 0 is the connection's own; every command has a stream of its own, numbered by
//! the host upwards from 1.
//!
//! **Handshake.** A virtio-serial port is not reset when a host process dies in the middle of a frame, so
//! the host begins with [`SYNC`] zeros, which end any frame that was left unfinished and make its checksum
//! wrong, and then [`Kind::Hello`] with a nonce. The agent drops everything that belonged to an earlier
//! host, and answers [`Kind::Welcome`] with the nonce. The host discards what comes before that answer. Until it comes, the
//! host says the same hello again: an agent that notices an earlier host's end only then drops this one's hello too. It
//! says [`Kind::Lost`], for a host that has been answered already; a hello that is said twice changes nothing.
//!
//! **Flow.** Each direction of a command has a window: a sender may have so many bytes on the way, and the
//! receiver opens the window again as it passes them on ([`Kind::StdinCredit`] and its kin). A stream that
//! nobody reads therefore stalls alone, and no buffer grows beyond the windows.
//!
//! **Main process.** Where PID 1 is banger-guest, the agent tells how the guest's main process ended, as soon as it has
//! and again to each new host: [`Kind::MainEnded`].
//!
//! **Identity.** A guest whose memory came out of a snapshot is told who it is and what time it is, with
//! [`Kind::Identify`], before anything else.
//!
//! **End.** A command ends with [`Kind::Exited`], the last frame of its stream. It is sent when the
//! command's main process has ended and what its pipes held at that moment has been sent. A process that it
//! leaves behind does not hold up the end; its later output goes nowhere.

mod figures;
mod frame;
mod identity;
mod message;

pub use figures::{Figures, Listener, MOST_LISTENERS};
pub use frame::{Decoder, Frame, HEADER, Kind, MAGIC, MOST_PAYLOAD, StreamId, WireError, encode};
pub use identity::Identity;
pub use message::{
    ExecFailure, ExecSpec, ExitStatus, GuestInfo, Hello, PhaseTime, Step, Welcome, WindowSize, pack, unpack,
};

/// The version of the protocol that this code speaks.
pub const VERSION: u16 = 1;

/// How many zeros the host sends before its hello: more than a frame can still lack.
pub const SYNC: usize = HEADER + MOST_PAYLOAD + 1;

/// Most bytes of a command's standard input on their way into the guest.
pub const INPUT_WINDOW: u32 = 128 << 10;

/// Most bytes of each of a command's outputs on their way to the host.
pub const OUTPUT_WINDOW: u32 = 256 << 10;

/// Most commands at once.
pub const MOST_EXECS: usize = 256;

/// Longest request to run a command, in bytes; it travels in as many frames as it needs.
pub const MOST_REQUEST: usize = 256 << 10;

/// The port of the agent on the guest's vsock.
pub const VSOCK_PORT: u32 = 1024;

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "org.banger.agent.0";
