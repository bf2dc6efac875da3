//! The place of a VMM that opens all by name: a mount namespace whose `/run` is its own, and holds nothing but what is its
//! VM's.
//!
//! As Firecracker's jailer does it, device nodes of the VM's user are made there: the host's own stay as they are.

use banger_vmm::firecracker::paths;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, chown, fstat, makedev, mknodat};
use std::fmt::Display;
use std::fs::{DirBuilder, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;

/// Names and nodes, and a log that a guest cannot make large.
const OPTIONS: &str = "mode=0755,size=1m,nr_inodes=64";

/// What goes into the place.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Whose it is.
    pub uid: u32,
    /// The kernel, an ELF.
    pub kernel: BorrowedFd<'a>,
    /// The initramfs.
    pub initrd: BorrowedFd<'a>,
    /// The disks, block devices, the root first.
    pub disks: Vec<BorrowedFd<'a>>,
    /// The folder for a snapshot's files.
    pub snapshot: BorrowedFd<'a>,
}

/// Makes the place, and moves this process there. The working folder has to be the VMM's part of the VM's run folder.
pub fn enter(contents: &Contents<'_>) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed("a mount namespace", error))?;
    let none: Option<&str> = None;
    let mounted = |what: &'static str| move |error: nix::Error| failed(what, error);
    // What is mounted here is not seen elsewhere.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(mounted("private mounts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some(OPTIONS)).map_err(mounted("/run"))?;
    let made = DirBuilder::new().mode(0o700).create(paths::FOLDER);
    made.map_err(|error| failed(paths::FOLDER, error))?;
    mount(Some("."), paths::FOLDER, none, MsFlags::MS_BIND, none).map_err(mounted(paths::FOLDER))?;

    for (number, disk) in contents.disks.iter().enumerate() {
        let disk = fstat(disk).map_err(|error| failed("a disk", error))?;
        node(&paths::disk(number), FileType::BlockDevice, disk.st_rdev, contents.uid)?;
    }
    for device in ["/dev/kvm", "/dev/net/tun"] {
        let rdev = std::fs::metadata(device).map_err(|error| failed(device, error))?.rdev();
        let own = format!("/run/{}", device.rsplit('/').next().unwrap_or_default());
        node(&own, FileType::CharacterDevice, rdev, contents.uid)?;
        mount(Some(own.as_str()), device, none, MsFlags::MS_BIND, none)
            .map_err(|error| failed(device, error))?;
    }
    for (path, descriptor) in [
        (paths::KERNEL, contents.kernel),
        (paths::INITRD, contents.initrd),
        (paths::SNAPSHOT, contents.snapshot),
    ] {
        let target = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
        symlink(target, path).map_err(|error| failed(path, error))?;
    }
    let log = OpenOptions::new().write(true).create_new(true).mode(0o600).open(paths::LOG);
    log.map_err(|error| failed(paths::LOG, error))?;
    give(paths::LOG, contents.uid)
}

/// A device node of the VM's user.
fn node(path: &str, kind: FileType, rdev: u64, uid: u32) -> Result<(), String> {
    let device = makedev(rustix::fs::major(rdev), rustix::fs::minor(rdev));
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).map_err(|error| failed(path, error))?;
    give(path, uid)
}

fn give(path: &str, uid: u32) -> Result<(), String> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    chown(Path::new(path), Some(user), Some(group)).map_err(|error| failed(path, error))
}

fn failed(what: &str, error: impl Display) -> String {
    format!("{what}: {error}")
}
