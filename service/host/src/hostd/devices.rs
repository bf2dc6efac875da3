//! Loop devices and TAPs. Both last as long as somebody has them open: whatever dies, they go with it.

use crate::ioctl;
use crate::refused::{Result, not_ready, refused, system};
use banger_host::Refusal;
use banger_model::{Slot, VmId};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Others take loop devices too: so often is a next one tried.
const LOOP_TRIES: usize = 64;

/// How long the kernel may take to let go of a device whose last user is gone.
const SETTLE: Duration = Duration::from_secs(5);

/// An attached loop device, held open.
#[derive(Debug)]
pub struct LoopDevice {
    /// The device, open as the guest may use it.
    pub fd: OwnedFd,
    /// Its number.
    pub number: u32,
}

/// A TAP, held open.
#[derive(Debug)]
pub struct Tap {
    /// Its queue.
    pub fd: OwnedFd,
}

/// The name that losetup(8) shows, by which a device is known as the VM's.
fn loop_name(vm: VmId) -> String {
    format!("banger:{vm}")
}

/// Attaches a free loop device over `file`.
pub fn attach_loop(vm: VmId, file: impl AsFd, writable: bool) -> Result<LoopDevice> {
    let open = |path: &str, writable| OpenOptions::new().read(true).write(writable).open(path);
    let control = open("/dev/loop-control", true).map_err(not_ready("/dev/loop-control"))?;
    for _ in 0..LOOP_TRIES {
        let number = ioctl::loop_get_free(&control).map_err(not_ready("a free loop device"))?;
        let path = format!("/dev/loop{number}");
        let device = open(&path, writable).map_err(not_ready(&path))?;
        match ioctl::loop_configure(&device, &file, writable, &loop_name(vm)) {
            Ok(()) => return Ok(LoopDevice { fd: device.into(), number }),
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(system(format!("attaching {path}"))(error)),
        }
    }
    Err(refused(Refusal::HostNotReady, "no loop device is free"))
}

/// Waits until loop device `number` is no longer `vm`'s.
pub fn await_loop_gone(vm: VmId, number: u32) -> io::Result<()> {
    let path = format!("/dev/loop{number}");
    await_gone(&path, || match File::open(&path).and_then(ioctl::loop_name) {
        Ok(name) => Ok(name != loop_name(vm)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(true),
        Err(error) => Err(error),
    })
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
fn await_gone(what: &str, gone: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + SETTLE;
    while !gone()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} is still in use")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
