//! The root filesystem: found, mounted, and grown to the size of its disk.

use super::{Doing, Failure, Report};
use crate::{ioctl, uevent};
use banger_guest::Root;
use nix::{
    mount::{MsFlags, mount as mount_fs},
    sys::statvfs::statvfs,
};
use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

/// How long the disk may take to appear.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts the root disk on `target`.
pub fn mount(root: &Root, target: &str, report: &mut Report) -> Result<(), Failure> {
    let device = root.device.as_str();
    let there = uevent::wait(PATIENCE, || Path::new(device).exists().then_some(()));
    there
        .doing("listening to device events")?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such disk has appeared"))
        .doing(format!("waiting for {device}"))?;
    let _ = fs::create_dir(target);
    let none: Option<&str> = None;
    mount_fs(Some(device), target, Some("ext4"), MsFlags::empty(), none)
        .doing(format!("mounting {device}"))?;
    // Less room than asked for is no reason not to boot.
    if let Err(error) = grow(device, target) {
        report.warn(format!("the filesystem on {device} does not grow to the size of its disk: {error}"));
    }
    Ok(())
}

/// Grows the mounted filesystem to the size of its disk. The kernel leaves one of the right size alone.
pub fn grow(device: &str, target: &str) -> io::Result<()> {
    let size = ioctl::device_size(File::open(device)?)?;
    let folder = File::open(target)?;
    // What statvfs(2) calls a fragment is ext4's block.
    let block = statvfs(target)?.fragment_size();
    match size.checked_div(block) {
        Some(blocks) => ioctl::resize_ext4(folder, blocks),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
