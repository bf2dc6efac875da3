//! Links, addresses and routes, by rtnetlink(7): three messages, written out.

use banger_guest::Mac;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

/// A connection to the kernel's routing tables.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A netlink message that is being written (netlink(7)). Numbers are in the host's byte order.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, sequence: u32) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        // The length is filled in at the end.
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        Self(bytes)
    }

    fn add(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// An attribute (rtnetlink(7)), padded to four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings a link up.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        // struct ifinfomsg: family, padding, type; index; flags; which flags change.
        let message =
            self.message(libc::RTM_NEWLINK, 0).add(&[0; 4]).add(&index.to_ne_bytes()).add(&up).add(&up);
        self.ask(message)
    }

    /// Takes a link down.
    pub fn down(&mut self, index: u32) -> io::Result<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        let message =
            self.message(libc::RTM_NEWLINK, 0).add(&[0; 4]).add(&index.to_ne_bytes()).add(&[0; 4]).add(&up);
        self.ask(message)
    }

    /// Gives a link another MAC address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        let message = self
            .message(libc::RTM_NEWLINK, 0)
            .add(&[0; 4])
            .add(&index.to_ne_bytes())
            .add(&[0; 8])
            .attribute(libc::IFLA_ADDRESS, &mac.0);
        self.ask(message)
    }

    /// Takes an address from a link.
    pub fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = self
            .message(libc::RTM_DELADDR, 0)
            .add(&[family(address), prefix, 0, libc::RT_SCOPE_UNIVERSE])
            .add(&index.to_ne_bytes())
            .attribute(libc::IFA_LOCAL, &octets(address));
        self.ask(message)
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        // The host hands the addresses out: there is no duplicate to look for, and no reason to wait.
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        // struct ifaddrmsg: family, prefix length, flags, scope; index.
        let message = self
            .message(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .add(&[family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE])
            .add(&index.to_ne_bytes())
            .attribute(libc::IFA_LOCAL, &octets(address))
            .attribute(libc::IFA_ADDRESS, &octets(address));
        self.ask(message)
    }

    /// Sends everything that nobody else takes to `gateway`.
    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT);
        // struct rtmsg: family, lengths of destination and source, TOS; table, protocol, scope, type; flags.
        let message = self
            .message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .add(&[family(gateway), 0, 0, 0, table, protocol, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST])
            .add(&[0; 4])
            .attribute(libc::RTA_GATEWAY, &octets(gateway))
            .attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.ask(message)
    }

    fn message(&mut self, kind: u16, flags: i32) -> Message {
        self.sequence += 1;
        Message::new(kind, flags, self.sequence)
    }

    /// Sends a message and waits for its acknowledgement: a negative errno, or 0, after the header.
    fn ask(&mut self, message: Message) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message.finish(), MsgFlags::empty())?;
        let mut reply = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        let kind = reply.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        let error = reply[..length].get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        match (kind.map(i32::from), error) {
            (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
            (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_the_length_is_the_messages() {
        let bytes = Message::new(16, 0, 7).add(&[1, 2, 3, 4]).attribute(5, &[9; 5]).finish();
        assert_eq!(bytes.len(), 16 + 4 + 12);
        assert_eq!(bytes[..4], 32u32.to_ne_bytes());
        assert_eq!(bytes[20..24], [9u16.to_ne_bytes(), 5u16.to_ne_bytes()].concat()[..]);
        assert_eq!(bytes[29..], [0; 3]);
    }
}
