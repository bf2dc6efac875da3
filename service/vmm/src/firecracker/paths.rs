//! What is where in the `/run` that Firecracker sees. The same names in every VM: a snapshot remembers some of them, and
//! is restored under another VM's.

/// The part of the VM's run folder that is the VMM's own: its sockets.
pub const FOLDER: &str = "/run/vm";
/// The socket of its API.
pub const API: &str = "/run/vm/api.sock";
/// The socket of the guest's vsock.
pub const VSOCK: &str = "/run/vm/vsock.sock";
/// The kernel, an ELF.
pub const KERNEL: &str = "/run/kernel";
/// The initramfs.
pub const INITRD: &str = "/run/initrd";
/// A disk, by its number; 0 is the root.
pub fn disk(number: usize) -> String {
    format!("/run/disk{number}")
}

/// What it logs.
pub const LOG: &str = "/run/log";
/// What it measures.
pub const METRICS: &str = "/run/vm/metrics";
/// A snapshot's processors and devices.
pub const SNAPSHOT_STATE: &str = "/run/snapshot/state";
/// A snapshot's memory.
pub const SNAPSHOT_MEMORY: &str = "/run/snapshot/memory";
/// Where a snapshot's files are.
pub const SNAPSHOT: &str = "/run/snapshot";

/// The names of [`API`] and [`VSOCK`] in the VM's run folder, as seen from outside.
pub const OUTSIDE: &str = "vmm";
/// The name of the API's socket below [`OUTSIDE`].
pub const API_NAME: &str = "api.sock";
/// The name of the vsock's socket below [`OUTSIDE`].
pub const VSOCK_NAME: &str = "vsock.sock";
/// The name of the pipe of measurements below [`OUTSIDE`].
pub const METRICS_NAME: &str = "metrics";
/// The file in the VM's run folder that has the name of its TAP.
pub const TAP_NAME: &str = "tap";
/// The names of the two pipes of the serial port in the VM's run folder: what the guest writes, and what it reads.
pub const CONSOLE: [&str; 2] = ["console.out", "console.in"];
