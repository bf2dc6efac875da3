//! The verbs as a trait.

use crate::{HostError, Manner, NameRouting, VmStatus, VmUsage, VmmKind};
use banger_model::{
    Accel, Bytes, DiskNumber, Firewall, ImageId, KernelName, MachineSize, NetworkRules, Slot, Subnet, Used,
    VmId,
};
use std::{fs::File, future::Future, os::fd::OwnedFd, pin::Pin};

/// What a verb comes to.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HostError>> + Send + 'a>>;

/// What the host does with privileges, for whoever has none.
///
/// The methods are asynchronous and want a tokio runtime. A verb that has begun is carried out even if its
/// future is dropped, so a caller that gives up has to undo it; every undo is idempotent. Verbs on one VM
/// happen one after the other; verbs on several VMs do not wait for each other.
pub trait Host: Send + Sync {
    /// Fails unless the helper is there and speaks this version.
    fn hello(&self) -> Answer<'_, ()>;

    /// Opens `/boot/vmlinuz-<release>` for reading.
    fn open_host_kernel(&self, release: KernelName) -> Answer<'_, File>;

    /// Why device-mapper cannot be used for disks here, in words; `None` if it can.
    fn probe_disks(&self) -> Answer<'_, Option<String>>;

    /// Attaches a loop device over `file` as the VM's disk of that number: a regular file of the caller's, open for
    /// reading, or for both if `writable`. Nothing happens if the VM has it already.
    fn attach_loop(
        &self,
        vm: VmId,
        slot: Slot,
        disk: DiskNumber,
        writable: bool,
        file: OwnedFd,
    ) -> Answer<'_, ()>;

    /// Makes the VM's root disk a snapshot. Nothing happens if the VM has it already.
    fn attach_snapshot(&self, vm: VmId, slot: Slot, snapshot: SnapshotDisk) -> Answer<'_, ()>;

    /// Undoes [`Host::attach_loop`] and [`Host::attach_snapshot`], unless the VM has been started. Nothing happens if
    /// there is no such disk.
    fn detach_disk(&self, vm: VmId, disk: DiskNumber) -> Answer<'_, ()>;

    /// The addresses that the host uses without banger, and its firewalls.
    fn list_networks(&self) -> Answer<'_, (Vec<Used>, Vec<Firewall>)>;

    /// Makes a TAP in the VMs' bridge of `subnet`. Nothing happens if the VM has one already.
    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Answer<'_, ()>;

    /// Undoes [`Host::make_tap`], unless the VM has been started. Nothing happens if there is none.
    fn remove_tap(&self, vm: VmId) -> Answer<'_, ()>;

    /// Lets a VM's packets do what `rules` say, and nothing else. It has a TAP, and may run.
    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Answer<'_, ()>;

    /// Undoes [`Host::open_network`]. Nothing happens if there is nothing to undo.
    fn close_network(&self, vm: VmId) -> Answer<'_, ()>;

    /// Starts a VM that has a root disk and a TAP, which become its process's own. Replies with the pid once
    /// the VMM's program has been executed; that its arguments were right shows only by its living on.
    fn start_vm(&self, start: StartVm) -> Answer<'_, u32>;

    /// Ends a VM's process (SIGTERM, after two seconds SIGKILL), and removes its disks, TAP and run
    /// folder. Nothing happens if there is no such VM.
    fn stop_vm(&self, vm: VmId) -> Answer<'_, ()>;

    /// Binds the sockets that VMs' names are served on: for each of the host's own addresses in the VMs' networks one for
    /// datagrams, then a listening one. They are the caller's.
    fn bind_dns(&self, subnet: Subnet, port: u16) -> Answer<'_, Vec<OwnedFd>>;

    /// Has the host's resolver look VMs' names up at those sockets, for as long as the other end of `owner`, the reading end
    /// of a pipe, is open. Later calls replace earlier ones. The resolver is told in the background;
    /// [`Host::show_dns`] says how that went. The pipe breaks when the helper ends: then it has to be asked again.
    fn route_dns(&self, subnet: Subnet, port: u16, owner: OwnedFd) -> Answer<'_, ()>;

    /// How the host's resolver has taken it, and why in words.
    fn show_dns(&self) -> Answer<'_, (NameRouting, String)>;

    /// What a VM takes of the host. Refused when its process does not live.
    fn vm_usage(&self, vm: VmId) -> Answer<'_, VmUsage>;

    /// A connection to a port of a VM's guest by vsock. Refused when its process does not live, or nobody listens there.
    fn connect_guest(&self, vm: VmId, port: u32) -> Answer<'_, OwnedFd>;

    /// Every VM of which the helper holds something, in the order of their ids.
    fn list_vms(&self) -> Answer<'_, Vec<VmStatus>>;
}

/// A root disk that is a snapshot of an image (device-mapper).
#[derive(Debug)]
pub struct SnapshotDisk {
    /// The image: VMs that name the same one share a loop device over it.
    pub image: ImageId,
    /// Its filesystem: a regular file of the caller's, open for reading, which nobody changes.
    pub rootfs: OwnedFd,
    /// The VM's own file for what the guest writes: of the caller's, open for both, zeros at first.
    pub cow: OwnedFd,
    /// The size of the disk, whole sectors, not less than the image's.
    pub size: Bytes,
}

/// What it takes to start a VM.
#[derive(Debug)]
pub struct StartVm {
    /// Which VM.
    pub vm: VmId,
    /// Its slot.
    pub slot: Slot,
    /// Its size.
    pub size: MachineSize,
    /// What runs the guest's instructions.
    pub accel: Accel,
    /// What runs the VM.
    pub vmm: VmmKind,
    /// How it is run.
    pub manner: Manner,
    /// The folder for a snapshot's files, for a VMM that opens all by name: a folder of the caller's, which everybody may pass
    /// through who has it open.
    pub snapshot: Option<OwnedFd>,
    /// The kernel: a memfd from [`crate::seal`].
    pub kernel: OwnedFd,
    /// The initramfs, with the VM's settings at its end: a memfd from [`crate::seal`].
    pub initrd: OwnedFd,
}
