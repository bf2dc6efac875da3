//! What becomes of the bridge: the kernel tells of every change of an interface (rtnetlink(7)).

use crate::net::BRIDGE;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, netdevice, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as Packets;
use tokio::net::UnixDatagram;

/// Changes of interfaces (`RTMGRP_LINK`).
const LINKS: u32 = 1;

/// The protocol of interfaces and addresses (`NETLINK_ROUTE`), which is number 0.
const INTERFACES: Option<Protocol> = None;

/// Interfaces, watched.
#[derive(Debug)]
pub struct Links {
    /// A netlink socket: packets are waited for and received as those of any other kind.
    changes: UnixDatagram,
    any: OwnedFd,
}

impl Links {
    /// Watches from now on.
    ///
    /// # Errors
    /// socket(2)'s, bind(2)'s.
    pub fn watch() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let changes = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, INTERFACES)?;
        bind(&changes, &SocketAddrNetlink::new(0, LINKS))?;
        let any = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { changes: UnixDatagram::from_std(Packets::from(changes))?, any })
    }

    /// Waits until something has changed. What it was is of no interest: many changes at once are told as one.
    pub async fn changed(&self) {
        if self.changes.readable().await.is_err() {
            return std::future::pending().await;
        }
        let mut buffer = [0; 16 << 10];
        // An overflow says that some were lost, which is a change as well.
        while self
            .changes
            .try_recv(&mut buffer)
            .map_or_else(|e| e.kind() != io::ErrorKind::WouldBlock, |_| true)
        {}
    }

    /// The bridge's number now, if there is a bridge.
    pub fn bridge(&self) -> Option<i32> {
        let index = netdevice::name_to_index(&self.any, BRIDGE).ok()?;
        i32::try_from(index).ok()
    }
}
