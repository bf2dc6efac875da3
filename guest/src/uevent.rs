//! Waiting for devices, by the kernel's own messages about them: a guest's initramfs has no udev.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

/// The multicast group of the kernel's own device events (linux, lib/kobject_uevent.c).
const KERNEL: u32 = 1;

/// Waits until `check` finds what it looks for, looking again after every device event. `None` when the time
/// is over.
pub fn wait<T>(patience: Duration, mut check: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
    if let Some(found) = check() {
        return Ok(Some(found));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let events = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
    let deadline = Instant::now() + patience;
    // What came between the first look and the socket is seen now.
    loop {
        if let Some(found) = check() {
            return Ok(Some(found));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], left) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        // What the events say does not matter, nor whether some were lost: `check` looks for itself.
        let mut event = [0; 4096];
        while recv(events.as_raw_fd(), &mut event, MsgFlags::empty()).is_ok() {}
    }
}
