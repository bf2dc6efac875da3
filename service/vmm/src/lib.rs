//! Virtual machine monitors behind one trait.
//!
//! A [`Machine`] says what a VM has, in sizes and descriptor numbers; a [`Vmm`] turns it into the [`Command`]
//! that runs it. That part is pure. The one edge is [`Qmp`], the client of a running QEMU's control socket.

mod command;
mod machine;
mod qemu;
mod qmp;
mod qmp_message;

pub use command::{Command, Vmm, VmmKind};
pub use machine::{Disk, Fd, Machine, Network, kernel_command_line};
pub use qemu::Qemu;
pub use qmp::{DiskCounts, LONGEST_LINE, Qmp, QmpError, RunState};
pub use qmp_message::{Event, Message};

/// The name of the virtio-serial port on which the guest's agent speaks; the guest finds it under
/// `/sys/class/virtio-ports/*/name`.
pub const AGENT_PORT: &str = "org.banger.agent.0";
