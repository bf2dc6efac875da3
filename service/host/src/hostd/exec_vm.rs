//! `banger-hostd exec-vm`: gives up every privilege, then becomes the VMM.
//!
//! The helper starts itself anew for this, so that what happens between fork and exec is an ordinary
//! program: single-threaded, with one socket as its standard input, over which it is told what to run and handed
//! the descriptors. If the helper dies first, the socket ends and so does this. It says why it failed over
//! the same socket, which a successful exec closes silently.

use crate::{ioctl, place};
use banger_host::packet::{receive, send};
use banger_host::{Manner, VmmKind};
use banger_model::{Accel, MachineSize, Slot};
use banger_vmm::{Disk, Fd, Machine, Network, Vsock};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, setrlimit, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// The argument that selects this.
pub const ARGUMENT: &str = "exec-vm";

/// What to run. Six descriptors come with it: kernel, initramfs, TAP, and the listening sockets of agent, console and
/// control, in this order; for a VMM that opens all by name, kernel, initramfs, folder for snapshots, the ends of the serial
/// port's pipes for reading and writing, and again the latter. Then the disks, the root first, and perhaps an open
/// `/dev/vhost-vsock`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecVm {
    /// Which user to become, and which MAC address to give.
    pub slot: Slot,
    /// How large.
    pub size: MachineSize,
    /// On what.
    pub accel: Accel,
    /// By what.
    pub vmm: VmmKind,
    /// How it is run.
    pub manner: Manner,
    /// For each disk, whether the guest writes to it.
    pub writable: Vec<bool>,
    /// Whether `/dev/vhost-vsock` is the last descriptor.
    pub has_vsock: bool,
    /// The speed of the host's time stamp counter, for a guest under emulation.
    pub tsc_khz: Option<u32>,
}

/// How many descriptors come before the disks.
const FIXED: usize = 6;

/// What a VMM may use, where less than usual does (getrlimit(2)).
const LIMITS: [(Resource, u64); 4] = [
    (Resource::Core, 0),
    (Resource::Nofile, 1024),
    (Resource::Memlock, 64 << 10),
    // Threads of this user: 64 processors, QEMU's workers, and room.
    (Resource::Nproc, 512),
];

/// The most that a file may grow to, in bytes: standard error is the only one that it writes; devices are not concerned.
const MOST_FILE: u64 = 1 << 20;

/// What a snapshot's file may have beside the memory, in bytes.
const SNAPSHOT_EXTRA: u64 = 64 << 20;

/// A guest's memory goes before the desktop's own programs do (proc_pid_oom_score_adj(5)).
const OOM_SCORE: &str = "200";

/// Does it. Returns only if it failed.
pub fn main() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let Err(failure) = run(&socket);
    // Nobody is left to tell if this fails too.
    let _ = send(&socket, failure.as_bytes(), &[]);
    ExitCode::FAILURE
}

fn run(socket: &OwnedFd) -> Result<std::convert::Infallible, String> {
    let step = |name: &'static str| move |error: io::Error| format!("{name}: {error}");
    let told = receive(socket).map_err(step("what to run"))?;
    let (message, descriptors) = told.ok_or("nothing to run")?;
    let request: ExecVm = serde_json::from_slice(&message).map_err(|error| error.to_string())?;
    let disks = request.writable.len();
    if descriptors.len() != FIXED + disks + usize::from(request.has_vsock) || disks == 0 {
        return Err("wrong number of descriptors".into());
    }
    let by_name = request.vmm.vmm().opens_by_name();
    if by_name {
        let [kernel, initrd, snapshot] = [0, 1, 2].map(|number: usize| descriptors[number].as_fd());
        let disks = descriptors[FIXED..FIXED + disks].iter().map(AsFd::as_fd).collect();
        place::enter(&place::Contents { uid: request.slot.uid(), kernel, initrd, disks, snapshot })?;
    }

    confine(&request)?;

    // Nothing but these goes along.
    ioctl::close_all_on_exec().map_err(step("closing descriptors"))?;
    for descriptor in &descriptors {
        fcntl_setfd(descriptor, FdFlags::empty()).map_err(|error| error.to_string())?;
    }
    let machine = machine(&request, &descriptors).ok_or("wrong number of descriptors")?;
    let command = request.vmm.vmm().command(&machine);
    let program = command.programs.iter().find(|program| program.exists());
    let program = program.ok_or_else(|| format!("{} is not installed", request.vmm))?;
    let end = |number: usize| -> Result<Stdio, String> {
        let end = descriptors[number].try_clone().map_err(step("the serial port"))?;
        Ok(end.into())
    };
    let mut child = Command::new(program);
    child.args(&command.arguments).env_clear().stdin(Stdio::null()).current_dir("/");
    if by_name {
        // Its serial port.
        child.stdin(end(3)?).stdout(end(4)?);
    }
    let error = child.exec();
    Err(format!("{}: {error}", program.display()))
}

fn machine(request: &ExecVm, descriptors: &[OwnedFd]) -> Option<Machine> {
    let numbers: Vec<Fd> = descriptors.iter().map(|descriptor| Fd(descriptor.as_raw_fd())).collect();
    let (fixed, rest) = numbers.split_first_chunk::<FIXED>()?;
    let [kernel, initrd, tap, agent, console, control] = *fixed;
    let vsock = rest.last().filter(|_| request.has_vsock);
    let mut disks =
        rest.iter().zip(&request.writable).map(|(fd, writable)| Disk { fd: *fd, writable: *writable });
    Some(Machine {
        size: request.size,
        accel: request.accel,
        tsc_khz: request.tsc_khz,
        kernel,
        initrd,
        disk: disks.next()?,
        volumes: disks.collect(),
        network: Network { tap, mac: request.slot.mac() },
        agent,
        console,
        control,
        vsock: vsock.map(|fd| Vsock { fd: *fd, cid: request.slot.cid() }),
        manner: request.manner,
    })
}

/// Gives up all that a VMM does not need. The order matters: what takes privileges comes before they go.
fn confine(request: &ExecVm) -> Result<(), String> {
    let step = |name: &'static str| move |error: rustix::io::Errno| format!("{name}: {error}");
    let by_name = request.vmm.vmm().opens_by_name();
    setsid().map_err(step("setsid"))?;
    // The group of what it makes is the service's, by the folder's mode.
    umask(Mode::from_raw_mode(if by_name { 0o007 } else { 0o077 }));
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(|error| format!("OOM score: {error}"))?;
    let most_file = if by_name { request.size.memory.0.saturating_add(SNAPSHOT_EXTRA) } else { MOST_FILE };
    for (resource, limit) in LIMITS.into_iter().chain([(Resource::Fsize, most_file)]) {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(resource, limit).map_err(step("resource limits"))?;
    }
    ioctl::ignore_file_size_signal();

    // Each capability's number, until the kernel knows no more of them (EINVAL).
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {
                remove_capability_from_bounding_set(capability).map_err(step("the bounding set"))?;
            }
            Ok(false) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(step("the bounding set")(error)),
        }
    }
    clear_ambient_capability_set().map_err(step("ambient capabilities"))?;
    set_thread_groups(&groups(request.accel)?).map_err(step("setgroups"))?;
    // The only thread's ids are the process's.
    let (uid, gid) = (Uid::from_raw(request.slot.uid()), Gid::from_raw(request.slot.uid()));
    set_thread_res_gid(gid, gid, gid).map_err(step("setresgid"))?;
    set_thread_res_uid(uid, uid, uid).map_err(step("setresuid"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(step("capset"))?;
    set_no_new_privs(true).map_err(step("no_new_privs"))
}

/// With KVM, the group that may open /dev/kvm, unless that would be root's.
fn groups(accel: Accel) -> Result<Vec<Gid>, String> {
    if accel != Accel::Kvm {
        return Ok(Vec::new());
    }
    let group = std::fs::metadata("/dev/kvm").map_err(|error| format!("/dev/kvm: {error}"))?.gid();
    Ok(if group == 0 { Vec::new() } else { vec![Gid::from_raw(group)] })
}
