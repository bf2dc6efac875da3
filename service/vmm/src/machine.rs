//! What a VM is made of, as its VMM's process sees it.

use banger_model::{Accel, Bytes, MachineSize};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a descriptor that the VMM's process inherits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fd(pub i32);

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A VM, ready to be run: sizes that were checked, and everything it touches as open descriptors, because
/// its process may open nothing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Processors and memory. The disk's size is that of its device.
    pub size: MachineSize,
    /// What runs the guest's instructions.
    pub accel: Accel,
    /// The speed of the host's time stamp counter in kHz, where that is known and even.
    pub tsc_khz: Option<u32>,
    /// The kernel image: a sealed memfd.
    pub kernel: Fd,
    /// The initramfs: a sealed memfd.
    pub initrd: Fd,
    /// The root disk, `/dev/vda` in the guest.
    pub disk: Disk,
    /// More disks, `/dev/vdb` and so on in the guest.
    pub volumes: Vec<Disk>,
    /// The network, `eth0` in the guest.
    pub network: Network,
    /// A listening socket: who connects speaks with the guest's agent ([`crate::AGENT_PORT`]).
    pub agent: Fd,
    /// A listening socket: who connects reads and writes the guest's serial console.
    pub console: Fd,
    /// A listening socket: who connects controls the VMM (QMP, with QEMU).
    pub control: Fd,
    /// Sockets between host and guest, where the host has them.
    pub vsock: Option<Vsock>,
    /// How it is to be run.
    pub manner: Manner,
}

/// How a VM is to be run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manner {
    /// The most that it may do.
    #[serde(default)]
    pub limits: IoLimits,
    /// Whether it waits, paused, for the state of a snapshot rather than booting.
    #[serde(default)]
    pub incoming: bool,
    /// Whether its guest can be reached by vsock, so that it is where the host has that.
    #[serde(default)]
    pub vsock: bool,
}

/// Sockets between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vsock {
    /// An open `/dev/vhost-vsock`.
    pub fd: Fd,
    /// The guest's address, 3 or more.
    pub cid: u32,
}

/// The most that a VM may do, where there is a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoLimits {
    /// Bytes in a second that are read from and written to its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Bytes in a second that it sends, and as many that it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Bytes>,
}

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// A block device, open for writing if `writable`.
    pub fd: Fd,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// A network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// A TAP queue, made with `IFF_NO_PI` and `IFF_VNET_HDR`.
    pub tap: Fd,
    /// The guest's MAC address.
    pub mac: [u8; 6],
}

/// The guest kernel's command line: the serial console, and an end of the VM (rather than a reboot into
/// nothing) when the kernel panics. Root, network and the rest are the initramfs's business.
///
/// Under emulation the kernel is told how fast the time stamp counter runs, which is the host's own: it would measure
/// it against a timer that a busy host does not serve in time, and then wait for a tick for ever.
///
/// <https://docs.kernel.org/admin-guide/kernel-parameters.html>
pub fn kernel_command_line(accel: Accel, tsc_khz: Option<u32>) -> String {
    // A microvm has neither a PCI bus nor a BIOS with disk services: nobody needs to look for them.
    let line = "console=ttyS0 panic=-1 reboot=t loglevel=4 pci=off edd=off";
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!("{line} tsc_early_khz={khz} tsc=reliable"),
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_emulated_guest_is_told_its_counters_speed() {
        let plain = kernel_command_line(Accel::Kvm, Some(2_500_000));
        assert_eq!(plain, "console=ttyS0 panic=-1 reboot=t loglevel=4 pci=off edd=off");
        assert_eq!(kernel_command_line(Accel::Tcg, None), plain);
        let told = kernel_command_line(Accel::Tcg, Some(2_500_000));
        assert_eq!(told, format!("{plain} tsc_early_khz=2500000 tsc=reliable"));
    }
}
