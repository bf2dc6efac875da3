//! Virtual machine monitors behind one trait.
//!
//! A [`Machine`] says what a VM has, in sizes and descriptor numbers; a [`Vmm`] turns it into the [`Command`]
//! that runs it. That part is pure. The edges are the clients of a
//! running VMM's control socket: [`Qmp`], [`Api`], and [`Control`], which is either.

mod command;
mod control;
pub mod firecracker;
mod machine;
mod qemu;
mod qmp;
mod qmp_message;
mod qmp_state;
mod send_fd;

pub use command::{Command, Vmm, VmmKind};
pub use control::{Control, ControlError, GuestMemory};
pub use firecracker::{Api, ApiError, Firecracker};
pub use machine::{Disk, Fd, IoLimits, Machine, Manner, Network, Vsock, kernel_command_line};
pub use qemu::Qemu;
pub use qmp::{DiskCounts, LONGEST_LINE, Qmp, QmpError, RunState};
pub use qmp_message::{Event, Message};

/// The name of the virtio-serial port on which the guest's agent speaks; the guest finds it under
/// `/sys/class/virtio-ports/*/name`.
pub const AGENT_PORT: &str = "org.banger.agent.0";
