//! What the verbs do to the machine, behind a trait: tests put another one there.

use crate::disks::{self, Attached, Device, Images, Snapshot};
use crate::exec_vm::{self, ExecVm};
use crate::fault;
use crate::folder::{Folder, Owner};
use crate::lend;
use crate::names;
use crate::net::{Network, Tap};
use crate::process::Process;
use crate::record::{Record, boot_id, start_time};
use crate::refused::{Result, after_rollback, not_ready, refused, system};
use crate::resolver::Resolver;
use crate::scope;
use crate::tsc;
use banger_host::packet::{receive, send};
use banger_host::{NameRouting, Refusal, Verb, VmUsage};
use banger_model::{Accel, DiskNumber, Firewall, KernelName, NetworkRules, Slot, Subnet, Used, VmId};
use banger_vmm::firecracker::paths;
use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, VsockAddr, connect, socket};
use rustix::fs::{Mode, OFlags, openat};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long it may take from telling the new process what to run until it runs it.
const EXEC: Duration = Duration::from_secs(30);

/// How many descriptors a VMM has after kernel and initramfs and before its disks.
const ENDS: usize = 4;

/// The machine, as the verbs see it.
pub trait System: Send + Sync {
    /// Opens the host's kernel of that release.
    fn open_kernel(&self, release: &KernelName) -> Result<OwnedFd>;
    /// Why device-mapper cannot be used; `None` if it can.
    fn why_no_device_mapper(&self) -> Option<String>;
    /// Attaches a loop device.
    fn attach_loop(
        &self,
        vm: VmId,
        disk: DiskNumber,
        file: BorrowedFd<'_>,
        writable: bool,
    ) -> Result<Attached>;
    /// Attaches a snapshot of an image.
    fn attach_snapshot(&self, vm: VmId, snapshot: &Snapshot<'_>) -> Result<Attached>;
    /// Waits until a disk is gone.
    fn await_disk_gone(&self, vm: VmId, device: &Device) -> io::Result<()>;
    /// The addresses and the firewalls of the host.
    fn networks(&self) -> Result<(Vec<Used>, Vec<Firewall>)>;
    /// Makes a TAP in the VMs' network.
    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Result<Tap>;
    /// Waits until it is gone.
    fn await_tap_gone(&self, vm: VmId) -> io::Result<()>;
    /// Says what a VM's packets may.
    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Result<()>;
    /// Takes that back.
    fn close_network(&self, vm: VmId) -> Result<()>;
    /// Binds the sockets that names are served on.
    fn bind_dns(&self, subnet: &Subnet, port: u16) -> Result<Vec<OwnedFd>>;
    /// Has the host's resolver told, until the other end of the pipe is closed.
    fn route_dns(&self, subnet: &Subnet, port: u16, owner: OwnedFd) -> Result<()>;
    /// How the resolver has taken it.
    fn show_dns(&self) -> (NameRouting, String);
    /// Starts a VM, in a run folder of its own. If that fails, nothing of it is left.
    fn launch(&self, launch: &Launch<'_>) -> Result<Arc<Process>>;
    /// What a VM takes whose process is `pid`.
    fn usage(&self, vm: VmId, pid: u32) -> io::Result<VmUsage>;
    /// Connects to a port of the guest that has this address.
    fn connect_guest(&self, cid: u32, port: u32) -> io::Result<OwnedFd>;
    /// The last words of a VM's process.
    fn stderr_tail(&self, vm: VmId) -> String;
    /// Removes a VM's run folder, if there is one.
    fn remove_folder(&self, vm: VmId) -> io::Result<()>;
}

/// All that a VM starts with.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Which VM.
    pub vm: VmId,
    /// What to run.
    pub exec: ExecVm,
    /// The kernel, checked.
    pub kernel: BorrowedFd<'a>,
    /// The initramfs, checked.
    pub initrd: BorrowedFd<'a>,
    /// The folder for a snapshot's files, for a VMM that opens all by name.
    pub snapshot: Option<BorrowedFd<'a>>,
    /// The disks, the root first.
    pub disks: Vec<&'a Attached>,
    /// The network.
    pub tap: &'a Tap,
}

/// The real machine.
#[derive(Debug)]
pub struct Machine {
    /// The folder of run folders.
    pub vms: PathBuf,
    /// The folder of kernels, open.
    pub boot: OwnedFd,
    /// Who connects to VMs' sockets.
    pub owner: Owner,
    /// The images that VMs share.
    pub images: Images,
    /// What keeps the host's resolver told.
    pub resolver: Arc<Resolver>,
    /// The VMs' network.
    pub network: Arc<Network>,
}

impl System for Machine {
    fn open_kernel(&self, release: &KernelName) -> Result<OwnedFd> {
        // A kernel's name has no slash in it; a pipe of that name would block without NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = format!("vmlinuz-{release}");
        openat(&self.boot, &name, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::NOENT => refused(Refusal::NotFound, format!("there is no {name}")),
            rustix::io::Errno::LOOP => refused(Refusal::NotFound, format!("{name} is a symbolic link")),
            error => system(name)(error.into()),
        })
    }

    fn why_no_device_mapper(&self) -> Option<String> {
        disks::why_no_device_mapper()
    }

    fn attach_loop(
        &self,
        vm: VmId,
        disk: DiskNumber,
        file: BorrowedFd<'_>,
        writable: bool,
    ) -> Result<Attached> {
        disks::attach_loop(vm, disk, file, writable)
    }

    fn attach_snapshot(&self, vm: VmId, snapshot: &Snapshot<'_>) -> Result<Attached> {
        self.images.attach_snapshot(vm, snapshot)
    }

    fn await_disk_gone(&self, vm: VmId, device: &Device) -> io::Result<()> {
        disks::await_disk_gone(vm, device)
    }

    fn networks(&self) -> Result<(Vec<Used>, Vec<Firewall>)> {
        self.network.look()
    }

    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Result<Tap> {
        self.network.make_tap(vm, slot, subnet)
    }

    fn await_tap_gone(&self, vm: VmId) -> io::Result<()> {
        if let Some(name) = Folder::of(&self.vms, vm).lent_tap() {
            lend::take_back(&name)?;
        }
        self.network.await_tap_gone(vm)
    }

    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Result<()> {
        self.network.open(vm, rules)
    }

    fn close_network(&self, vm: VmId) -> Result<()> {
        self.network.close(vm)
    }

    fn bind_dns(&self, subnet: &Subnet, port: u16) -> Result<Vec<OwnedFd>> {
        names::sockets(subnet, port)
    }

    fn route_dns(&self, subnet: &Subnet, port: u16, owner: OwnedFd) -> Result<()> {
        self.resolver.route(names::route(subnet, port)?, owner);
        Ok(())
    }

    fn show_dns(&self) -> (NameRouting, String) {
        self.resolver.state()
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<Arc<Process>> {
        if launch.exec.accel == Accel::Kvm {
            File::options().read(true).write(true).open("/dev/kvm").map_err(not_ready("/dev/kvm"))?;
        }
        let folder = Folder::of(&self.vms, launch.vm);
        // One that could not be removed before is in the way; nobody who runs has it.
        folder.remove().map_err(system("a folder of an earlier start"))?;
        folder.create()?;
        fault::come(Verb::StartVm, "folder", Some(launch.vm));
        self.launch_in(&folder, launch).map_err(|failure| {
            let left = folder.remove().err().map(|error| error.to_string());
            after_rollback(failure, left.into_iter().collect())
        })
    }

    fn usage(&self, vm: VmId, pid: u32) -> io::Result<VmUsage> {
        crate::usage::of(vm, self.network.tap_of(vm).as_deref(), pid)
    }

    fn connect_guest(&self, cid: u32, port: u32) -> io::Result<OwnedFd> {
        // vsock(7). The kernel gives up after two seconds.
        let socket = socket(Family::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
        Ok(socket)
    }

    fn stderr_tail(&self, vm: VmId) -> String {
        Folder::of(&self.vms, vm).stderr_tail()
    }

    fn remove_folder(&self, vm: VmId) -> io::Result<()> {
        Folder::of(&self.vms, vm).remove()
    }
}

impl Machine {
    fn launch_in(&self, folder: &Folder, launch: &Launch<'_>) -> Result<Arc<Process>> {
        let by_name = launch.exec.vmm.vmm().opens_by_name();
        let ends = if by_name { self.named(folder, launch)? } else { self.handed(folder, launch)? };
        let part = match by_name {
            true => folder.own_part(launch.exec.slot.uid(), self.owner)?,
            false => PathBuf::from("/"),
        };
        let stderr = folder.stderr()?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| system("a pair of sockets")(error.into()))?;
        let child = Command::new("/proc/self/exe")
            .arg(exec_vm::ARGUMENT)
            .env_clear()
            .current_dir(part)
            .stdin(Stdio::from(theirs))
            .stdout(stderr.try_clone().map_err(system("standard error"))?)
            .stderr(stderr)
            .spawn()
            .map_err(system("starting a process"))?;
        let process = Process::watch(child).map_err(system("watching a process"))?;
        fault::come(Verb::StartVm, "spawned", Some(launch.vm));
        scope::enter(launch.vm, process.pid, &launch.exec);
        let lent = if by_name {
            folder
                .note_tap(&launch.tap.name, self.owner)
                .and_then(|()| lend::lend(&launch.tap.fd, launch.exec.slot))
        } else {
            Ok(())
        };
        let ran = lent.map_err(system("lending the TAP"));
        ran.and_then(|()| self.exec(folder, launch, &process, &ours, &ends)).map_err(|failure| {
            let kept = if by_name { lend::keep(&launch.tap.fd) } else { Ok(()) };
            let left = [process.end(), kept].into_iter().filter_map(|step| step.err());
            after_rollback(failure, left.map(|error| error.to_string()).collect())
        })?;
        Ok(process)
    }

    /// The descriptors of a VMM that is handed everything, after kernel, initramfs and disk.
    fn handed(&self, folder: &Folder, launch: &Launch<'_>) -> Result<Vec<OwnedFd>> {
        let tap = launch.tap.fd.try_clone().map_err(system("the TAP"))?;
        let vsock = match launch.exec.manner.vsock {
            true => File::options().read(true).write(true).open("/dev/vhost-vsock").ok(),
            false => None,
        };
        // Who finds no socket of the agent's uses the vsock.
        let agent = match vsock {
            Some(_) => tap.try_clone().map_err(system("the TAP"))?,
            None => folder.listen("agent.sock", self.owner)?,
        };
        let mut ends = vec![
            tap,
            agent,
            folder.listen("console.sock", self.owner)?,
            folder.listen("qmp.sock", self.owner)?,
        ];
        ends.extend(vsock.map(OwnedFd::from));
        Ok(ends)
    }

    /// The descriptors of a VMM that opens everything by name, after kernel, initramfs and disk.
    fn named(&self, folder: &Folder, launch: &Launch<'_>) -> Result<Vec<OwnedFd>> {
        let missing = || refused(Refusal::Descriptor, "there is no folder for snapshots");
        let snapshot = launch.snapshot.ok_or_else(missing)?;
        let snapshot = snapshot.try_clone_to_owned().map_err(system("the folder for snapshots"))?;
        let [output, input] = paths::CONSOLE;
        let (output, input) = (folder.pipe(output, self.owner)?, folder.pipe(input, self.owner)?);
        let again = output.try_clone().map_err(system("a pipe"))?;
        Ok(vec![snapshot, input.into(), output.into(), again.into()])
    }

    /// The new process waits to be told what to run: first it is written down.
    fn exec(
        &self,
        folder: &Folder,
        launch: &Launch<'_>,
        process: &Process,
        socket: &OwnedFd,
        ends: &[OwnedFd],
    ) -> Result<()> {
        folder.write_record(&Record {
            vm: launch.vm,
            slot: launch.exec.slot,
            pid: process.pid,
            start_time: start_time(process.pid).map_err(system("the process's start time"))?,
            boot_id: boot_id().map_err(system("the boot's id"))?,
            disks: launch.disks.iter().map(|disk| disk.device).collect(),
        })?;
        folder.open_to(self.owner)?;
        fault::come(Verb::StartVm, "recorded", Some(launch.vm));

        // Behind the fixed ones of `handed` and `named` there may be a vsock, which comes last.
        let (ends, vsock) = ends.split_at(ENDS.min(ends.len()));
        let exec = ExecVm { tsc_khz: tsc::khz(), has_vsock: !vsock.is_empty(), ..launch.exec.clone() };
        let message = serde_json::to_vec(&exec).map_err(|error| system("JSON")(error.into()))?;
        let mut descriptors = vec![launch.kernel, launch.initrd];
        descriptors.extend(ends.iter().map(AsFd::as_fd));
        descriptors.extend(launch.disks.iter().map(|disk| disk.fd.as_fd()));
        descriptors.extend(vsock.iter().map(AsFd::as_fd));
        send(socket, &message, &descriptors).map_err(system("telling a process what to run"))?;
        set_socket_timeout(socket, Timeout::Recv, Some(EXEC))
            .map_err(|error| system("a time limit")(error.into()))?;
        let answer = receive(socket).map_err(system("waiting for a process to run the VMM"))?;
        fault::come(Verb::StartVm, "told", Some(launch.vm));
        match answer {
            None => Ok(()),
            Some((failure, _)) => Err(refused(Refusal::Vmm, String::from_utf8_lossy(&failure).into_owned())),
        }
    }
}
