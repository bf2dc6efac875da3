//! The other disks, mounted where the settings say. The root is the image's by now, so its own links lead the way.

use super::{
    Doing, Failure, Report,
    root::{PATIENCE, grow},
};
use crate::uevent;
use banger_guest::Mount;
use nix::mount::{MsFlags, mount as mount_fs};
use std::{fs, io, path::Path};

/// Mounts them, the outer ones first. A guest without one of them would write to the wrong place, but says so: the
/// report and the console have it, and whoever looks can still get in.
pub fn mount(mounts: &[Mount], report: &mut Report) {
    let mut ordered: Vec<&Mount> = mounts.iter().collect();
    ordered.sort_by(|a, b| a.path.cmp(&b.path));
    for wanted in ordered {
        if let Err(failure) = mount_one(wanted, report) {
            report.warn(format!("nothing is mounted at {}: {failure}", wanted.path));
        }
    }
    if !mounts.is_empty() {
        report.phase("mounts");
    }
}

fn mount_one(wanted: &Mount, report: &mut Report) -> Result<(), Failure> {
    let Mount { device, path, read_only } = wanted;
    let there = uevent::wait(PATIENCE, || Path::new(device).exists().then_some(()));
    there
        .doing("listening to device events")?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such disk has appeared"))
        .doing(format!("waiting for {device}"))?;
    fs::create_dir_all(path).doing(format!("making {path}"))?;
    let try_with = |flags, data| mount_fs(Some(device.as_str()), path.as_str(), Some("ext4"), flags, data);
    let none: Option<&str> = None;
    if *read_only {
        // One whose last user was cut off has a journal that cannot be written back: it is read as it stands.
        let mounted =
            try_with(MsFlags::MS_RDONLY, none).or_else(|_| try_with(MsFlags::MS_RDONLY, Some("noload")));
        return mounted.doing(format!("mounting {device}"));
    }
    try_with(MsFlags::empty(), none).doing(format!("mounting {device}"))?;
    if let Err(error) = grow(device, path) {
        report.warn(format!("the filesystem on {device} does not grow to the size of its disk: {error}"));
    }
    Ok(())
}
