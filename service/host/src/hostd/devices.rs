//! TAPs. One lasts as long as somebody has it open: whatever dies, it goes with it.

use crate::ioctl;
use crate::refused::{Result, not_ready, system};
use banger_model::Slot;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::fs::OpenOptions;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a device whose last user is gone.
const SETTLE: Duration = Duration::from_secs(5);

/// A TAP, held open.
#[derive(Debug)]
pub struct Tap {
    /// Its queue.
    pub fd: OwnedFd,
}

/// Makes the slot's TAP: up, with the host's address, and without IPv6, which nothing here uses.
pub fn make_tap(slot: Slot) -> Result<Tap> {
    let name = slot.tap_name();
    let network = slot.network();
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(not_ready("/dev/net/tun"))?;
    ioctl::tap_create(&tun, &name).map_err(system(format!("making {name}")))?;
    disable_ipv6(&name);
    let socket = inet_socket().map_err(system("an IPv4 socket"))?;
    let mask = Ipv4Addr::from(u32::MAX << (32 - u32::from(network.prefix)));
    ioctl::interface_set_address(&socket, &name, network.host)
        .and_then(|()| ioctl::interface_set_netmask(&socket, &name, mask))
        .and_then(|()| ioctl::interface_up(&socket, &name))
        .map_err(system(format!("setting up {name}")))?;
    Ok(Tap { fd: tun.into() })
}

/// Waits until the slot's TAP is gone.
pub fn await_tap_gone(slot: Slot) -> io::Result<()> {
    let name = slot.tap_name();
    let socket = inet_socket()?;
    await_gone(&name, || match netdevice::name_to_index(&socket, &name) {
        Ok(_) => Ok(false),
        Err(rustix::io::Errno::NODEV) => Ok(true),
        Err(error) => Err(error.into()),
    })
}

fn inet_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Where it cannot be switched off (a read-only /proc/sys), the host has a link-local address on the TAP that
/// nobody asks for: worth a line, not a failure.
fn disable_ipv6(name: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match std::fs::write(Path::new(&path), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path, %error, "IPv6 stays on");
        }
        // Not found: a host without IPv6.
        _ => {}
    }
}

/// The kernel tells nobody when a device is gone, so it is asked until then.
pub fn await_gone(what: &str, gone: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + SETTLE;
    while !gone()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} is still in use")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
