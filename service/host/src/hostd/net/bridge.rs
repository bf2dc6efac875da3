//! The bridge in which every VM's TAP is, and the TAPs.

use super::netlink::{Entry, Netlink};
use crate::ioctl;
use banger_model::{IpNetwork, Origin, Subnet, Used};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

/// The bridge's name.
pub const NAME: &str = "banger0";

/// What the name of every TAP begins with; a number follows.
pub const TAP: &str = "bngr";

/// The bridge's own MAC address. Without one it takes the lowest of its ports', and changes it with them.
const MAC: [u8; 6] = [0x02, 0xba, 0x6e, 0xff, 0xff, 0xff];

/// No host has a number as high as this of TAPs that are ours.
const MOST_TAPS: u32 = 100_000;

/// A TAP, held open: it goes when nobody has it open any more.
#[derive(Debug)]
pub struct Tap {
    /// Its queue.
    pub fd: OwnedFd,
    /// Its name, which another has when it is gone.
    pub name: String,
    /// Its number, which no other has.
    pub index: u32,
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// The number of an interface, if there is one of that name.
pub fn index_of(name: &str) -> io::Result<Option<u32>> {
    match netdevice::name_to_index(socket()?, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a setting of an interface; none of a host without IPv6 is no error.
fn set(family: &str, interface: &str, key: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Whether packets between this host's loopback addresses and guests pass, as published ports on 127.0.0.1 need.
pub fn set_route_localnet(on: bool) -> io::Result<()> {
    set("ipv4", NAME, "route_localnet", if on { "1" } else { "0" })
}

/// Makes the bridge with the host's addresses, or makes one that is there as it has to be.
pub fn make(subnet: &Subnet) -> io::Result<u32> {
    let mut netlink = Netlink::open()?;
    let index = match index_of(NAME)? {
        Some(index) if is_ours() => index,
        Some(_) => {
            let message = format!("there is an interface {NAME} that is not banger's: remove or rename it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        None => {
            netlink.add_bridge(NAME, MAC)?;
            index_of(NAME)?.ok_or(io::ErrorKind::NotFound)?
        }
    };
    // Guests are no routers, whatever they say; and the host tells them of no other.
    set("ipv6", NAME, "accept_ra", "0")?;
    set("ipv4", NAME, "accept_redirects", "0")?;
    set("ipv4", NAME, "send_redirects", "0")?;
    netlink.add_address(index, subnet.host_v4().into(), Subnet::PREFIX_V4)?;
    match netlink.add_address(index, subnet.host_v6().into(), Subnet::PREFIX_V6) {
        // IPv6 is off on this host: guests have IPv4 alone.
        Err(error) if is_without_ipv6(&error) => tracing::info!(%error, "guests are without IPv6"),
        other => other?,
    }
    netlink.up(index)?;
    Ok(index)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EACCES | libc::EPERM))
}

/// Whether the interface of that name is a bridge with the MAC address that ours has.
fn is_ours() -> bool {
    let address = fs::read_to_string(format!("/sys/class/net/{NAME}/address")).unwrap_or_default();
    let ours = MAC.map(|byte| format!("{byte:02x}")).join(":");
    // Another network namespace may have another /sys: then it cannot be told, and the name has to do.
    address.trim_end() == ours || address.is_empty()
}

/// Removes the bridge, if there is one.
pub fn remove() -> io::Result<()> {
    match index_of(NAME)? {
        Some(index) if is_ours() => Netlink::open()?.remove_link(index),
        _ => Ok(()),
    }
}

/// Makes a TAP in the bridge that reaches nobody yet: it is down.
pub fn make_tap(bridge: u32) -> io::Result<Tap> {
    for number in 0..MOST_TAPS {
        let name = format!("{TAP}{number}");
        if index_of(&name)?.is_some() {
            continue;
        }
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| io::Error::new(io::ErrorKind::NotFound, format!("/dev/net/tun: {error}")))?;
        match ioctl::tap_create(&tun, &name) {
            Ok(()) => {}
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => continue,
            Err(error) => return Err(error),
        }
        let index = index_of(&name)?.ok_or(io::ErrorKind::NotFound)?;
        let mut netlink = Netlink::open()?;
        netlink.set_master(index, bridge)?;
        netlink.set_port(index, true)?;
        return Ok(Tap { fd: tun.into(), name, index });
    }
    Err(io::Error::other("there are too many TAPs"))
}

/// Makes a TAP a VM's: with its MAC and its addresses behind it, and up.
pub fn give_tap(tap: &str, bridge: u32, mac: [u8; 6], addresses: &[IpAddr]) -> io::Result<()> {
    let index = index_of(tap)?.ok_or(io::ErrorKind::NotFound)?;
    let mut netlink = Netlink::open()?;
    netlink.add_station(index, mac)?;
    for address in addresses {
        match netlink.add_neighbour(bridge, *address, mac) {
            Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {}
            other => other?,
        }
    }
    netlink.up(index)
}

/// Lets a TAP reach others that are shared, or nobody.
pub fn set_isolated(tap: &str, isolated: bool) -> io::Result<()> {
    let index = index_of(tap)?.ok_or(io::ErrorKind::NotFound)?;
    Netlink::open()?.set_port(index, isolated)
}

/// The addresses that the host uses without us, of every interface that is neither loopback nor ours.
pub fn used() -> io::Result<Vec<Used>> {
    let mut netlink = Netlink::open()?;
    let socket = socket()?;
    let mut names: HashMap<u32, Option<String>> = HashMap::new();
    let mut name = |index: u32| {
        let known = names.entry(index).or_insert_with(|| netdevice::index_to_name(&socket, index).ok());
        known.clone().filter(|name| name != "lo" && name != NAME && !name.starts_with(TAP))
    };
    let mut all = Vec::new();
    for (origin, entries) in [(Origin::Address, netlink.addresses()?), (Origin::Route, netlink.routes()?)] {
        for Entry { index, address, prefix } in entries {
            let network = IpNetwork::around(address, prefix).map_err(io::Error::other)?;
            if let Some(interface) = name(index) {
                all.push(Used { network, interface, origin });
            }
        }
    }
    Ok(all)
}
