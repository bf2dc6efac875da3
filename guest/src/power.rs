//! The end of a guest.

use crate::ioctl;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};
use std::fs;

/// Powers the machine off, with everything written that can be: filesystems are unmounted or made read-only.
pub fn off() -> ! {
    // Nobody may write any more. Only PID 1 and the caller are spared.
    let _ = ioctl::kill(-1, libc::SIGKILL);
    sync();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Innermost first. What is in use stays, read-only where it can be.
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ');
        let (Some(source), Some(target)) = (fields.next(), fields.next()) else { continue };
        if source.starts_with("/dev/") && target != "/" {
            let _ = umount2(target, MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    let none: Option<&str> = None;
    let read_only = mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none);
    if read_only.is_err() {
        // Somebody still writes. The kernel makes everything read-only by force (sysrq "u").
        let _ = fs::write("/proc/sysrq-trigger", "u");
    }
    sync();
    off_at_once()
}

/// Powers the machine off without writing anything.
pub fn off_at_once() -> ! {
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // A machine that cannot be powered off: resetting ends it too.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    std::process::exit(1)
}
