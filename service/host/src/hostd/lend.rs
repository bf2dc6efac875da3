//! TAPs for a VMM that opens them by name: the interface has to be there while nobody has it, so it outlives its
//! descriptors until it is taken back.

use crate::ioctl;
use banger_model::Slot;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

/// Lets the slot's user attach to its TAP once `tap`, which has it, is closed.
pub fn lend(tap: impl AsFd, slot: Slot) -> io::Result<()> {
    ioctl::tap_owner(&tap, slot.uid())?;
    ioctl::tap_persist(&tap, true)
}

/// Lets the TAP go with its last descriptor again.
pub fn keep(tap: impl AsFd) -> io::Result<()> {
    ioctl::tap_persist(tap, false)
}

/// Takes a TAP back that was lent. Nobody may have it any more. Nothing happens if there is none.
pub fn take_back(name: &str) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if netdevice::name_to_index(&socket, name).is_err() {
        return Ok(());
    }
    let tun = open_tun()?;
    match ioctl::tap_attach(&tun, name) {
        Ok(()) => ioctl::tap_persist(&tun, false),
        // Not lent: somebody has it, and it goes when they do.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_tun() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
}
