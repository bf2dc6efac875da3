//! Links, bridge ports, addresses and routes, by rtnetlink(7): the few messages that are needed, written out.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// linux/if_link.h, linux/if_bridge.h, linux/neighbour.h: what the libc crate does not name.
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_GUARD: u16 = 5;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_MASTER: u8 = 0x04;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// The length of a message's header.
const HEADER: usize = 16;

/// A connection to the kernel's routing tables.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A netlink message that is being written (netlink(7)). Numbers are in the host's byte order.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, sequence: u32) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
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

    /// `struct ifinfomsg`: family, type, index, flags and which of them change.
    fn link(self, family: i32, index: u32, flags: i32) -> Self {
        let flags = (flags as u32).to_ne_bytes();
        self.add(&[family as u8, 0, 0, 0]).add(&index.to_ne_bytes()).add(&flags).add(&flags)
    }

    /// An attribute, padded to four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Attributes within an attribute.
    fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self = inner(self.attribute(kind | libc::NLA_F_NESTED as u16, &[]));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
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

/// An address of an interface, or the destination of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Of which interface.
    pub index: u32,
    /// The address, of whose prefix the network is.
    pub address: IpAddr,
    /// The length of the prefix, in bits.
    pub prefix: u8,
}

impl Netlink {
    /// A connection of its own.
    pub fn open() -> io::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a bridge with this MAC address, which learns no multicast groups: it has no querier.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let message = self
            .message(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .link(libc::AF_UNSPEC, 0, 0)
            .attribute(libc::IFLA_IFNAME, &name_bytes(name))
            .attribute(libc::IFLA_ADDRESS, &mac)
            .nested(libc::IFLA_LINKINFO, |info| {
                info.attribute(libc::IFLA_INFO_KIND, b"bridge")
                    .nested(libc::IFLA_INFO_DATA, |data| data.attribute(IFLA_BR_MCAST_SNOOPING, &[0]))
            });
        self.ask(message)
    }

    /// Removes a link.
    pub fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let message = self.message(libc::RTM_DELLINK, 0).link(libc::AF_UNSPEC, index, 0);
        self.ask(message)
    }

    /// Puts a link into a bridge, without an IPv6 address of its own.
    pub fn set_master(&mut self, index: u32, bridge: u32) -> io::Result<()> {
        let message = self
            .message(libc::RTM_NEWLINK, 0)
            .link(libc::AF_UNSPEC, index, 0)
            .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())
            .nested(libc::IFLA_AF_SPEC, |spec| {
                spec.nested(libc::AF_INET6 as u16, |v6| {
                    v6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])
                })
            });
        match self.ask(message) {
            // A host without IPv6 has no such mode.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let message = self.message(libc::RTM_NEWLINK, 0).link(libc::AF_UNSPEC, index, 0);
                self.ask(message.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes()))
            }
            other => other,
        }
    }

    /// Makes a port of a bridge one that learns no addresses, and takes no part in the bridge's own protocols.
    /// An isolated one reaches only ports that are not.
    pub fn set_port(&mut self, index: u32, isolated: bool) -> io::Result<()> {
        let message = self.message(libc::RTM_SETLINK, 0).link(libc::AF_BRIDGE, index, 0).nested(
            libc::IFLA_PROTINFO,
            |port| {
                port.attribute(IFLA_BRPORT_LEARNING, &[0])
                    .attribute(IFLA_BRPORT_GUARD, &[1])
                    .attribute(IFLA_BRPORT_ISOLATED, &[isolated.into()])
            },
        );
        self.ask(message)
    }

    /// Tells a bridge behind which port a MAC address is.
    pub fn add_station(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let message = self
            .message(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .add(&neighbour(libc::AF_BRIDGE as u8, index, NUD_NOARP, NTF_MASTER))
            .attribute(NDA_LLADDR, &mac);
        self.ask(message)
    }

    /// Tells the host which MAC address a neighbour has, so that nobody is asked and no answer believed.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let message = self
            .message(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
            .add(&neighbour(family(address), index, NUD_PERMANENT, 0))
            .attribute(NDA_DST, &octets(address))
            .attribute(NDA_LLADDR, &mac);
        self.ask(message)
    }

    /// Brings a link up.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        let message = self.message(libc::RTM_NEWLINK, 0).link(libc::AF_UNSPEC, index, libc::IFF_UP);
        self.ask(message)
    }

    /// Gives a link an address, which nobody else has: there is no duplicate to look for.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
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

    /// Every address of every interface.
    pub fn addresses(&mut self) -> io::Result<Vec<Entry>> {
        // struct ifaddrmsg of zeros: all families.
        self.dump(libc::RTM_GETADDR, &[0; 8], parse_address)
    }

    /// Every route that leads out of an interface.
    pub fn routes(&mut self) -> io::Result<Vec<Entry>> {
        // struct rtmsg of zeros: all families, all tables.
        self.dump(libc::RTM_GETROUTE, &[0; 12], parse_route)
    }

    fn message(&mut self, kind: u16, flags: i32) -> Message {
        self.sequence += 1;
        Message::new(kind, libc::NLM_F_ACK | flags, self.sequence)
    }

    fn send(&mut self, message: Message) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message.finish(), MsgFlags::empty())?;
        Ok(())
    }

    /// Sends a message and waits for its acknowledgement.
    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.send(message)?;
        let mut reply = vec![0; 8192];
        let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        match messages(&reply[..length]).next() {
            Some((kind, body)) if i32::from(kind) == libc::NLMSG_ERROR => failure(body).map_or(Ok(()), Err),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: fn(u16, &[u8]) -> Option<Entry>,
    ) -> io::Result<Vec<Entry>> {
        self.sequence += 1;
        self.send(Message::new(kind, libc::NLM_F_DUMP, self.sequence).add(body))?;
        let mut all = Vec::new();
        let mut reply = vec![0; 64 << 10];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
            for (kind, body) in messages(&reply[..length]) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(all),
                    libc::NLMSG_ERROR => return failure(body).map_or(Ok(all), Err),
                    _ => all.extend(parse(kind, body)),
                }
            }
        }
    }
}

/// `struct ndmsg`: family, index, state, flags.
fn neighbour(family: u8, index: u32, state: u16, flags: u8) -> Vec<u8> {
    [&[family, 0, 0, 0][..], &index.to_ne_bytes(), &state.to_ne_bytes(), &[flags, 0]].concat()
}

fn name_bytes(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

/// What an acknowledgement says: a negative errno, or 0.
fn failure(body: &[u8]) -> Option<io::Error> {
    match body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => None,
        Some(error) => Some(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Some(io::ErrorKind::InvalidData.into()),
    }
}

fn number_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn number_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The messages of a packet: each with its kind and what follows its header. What is cut off is left out.
fn messages(mut packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = number_u32(packet, 0)? as usize;
        let (kind, body) = (number_u16(packet, 4)?, packet.get(HEADER..length)?);
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes of a message: kind and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(number_u16(bytes, 0)?);
        let (kind, value) = (number_u16(bytes, 2)?, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn parse_address(kind: u16, body: &[u8]) -> Option<Entry> {
    let (family, prefix, index) = (*body.first()?, *body.get(1)?, number_u32(body, 4)?);
    let rest = body.get(8..)?;
    let one = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // Of a point-to-point interface, IFA_ADDRESS is the other end: the network is around that one.
    let value = one(libc::IFA_ADDRESS).or_else(|| one(libc::IFA_LOCAL))?;
    (kind == libc::RTM_NEWADDR).then_some(())?;
    Some(Entry { index, address: address(family, value)?, prefix })
}

fn parse_route(kind: u16, body: &[u8]) -> Option<Entry> {
    let (family, prefix, route) = (*body.first()?, *body.get(1)?, *body.get(7)?);
    let rest = body.get(12..)?;
    let one = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    (kind == libc::RTM_NEWROUTE && route == libc::RTN_UNICAST).then_some(())?;
    let index = number_u32(one(libc::RTA_OIF)?, 0)?;
    let everything = match i32::from(family) {
        libc::AF_INET => vec![0; 4],
        _ => vec![0; 16],
    };
    Some(Entry { index, address: address(family, one(libc::RTA_DST).unwrap_or(&everything))?, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded_and_lengths_are_right() {
        let bytes = Message::new(16, 0, 7)
            .add(&[1, 2, 3, 4])
            .nested(5, |inner| inner.attribute(6, &[9; 5]).attribute(7, &[8]))
            .finish();
        assert_eq!(bytes.len(), 16 + 4 + 4 + 12 + 8);
        let (kind, body) = messages(&bytes).next().unwrap();
        assert_eq!((kind, body.len()), (16, 28));
        let (kind, inner) = attributes(&body[4..]).next().unwrap();
        assert_eq!(kind & !(libc::NLA_F_NESTED as u16), 5);
        assert_eq!(attributes(inner).collect::<Vec<_>>(), [(6, &[9; 5][..]), (7, &[8][..])]);
    }

    #[test]
    fn this_hosts_own_addresses_are_read() {
        let mut netlink = Netlink::open().unwrap();
        let localhost = netlink.addresses().unwrap().into_iter().find(|one| one.address.is_loopback());
        assert!(localhost.is_none_or(|one| one.prefix == 8 || one.prefix == 128));
        netlink.routes().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, kind: u16) {
            for (kind, body) in messages(&bytes) {
                let _ = (parse_address(kind, body), parse_route(kind, body), failure(body));
            }
            let _ = (parse_address(kind, &bytes), parse_route(kind, &bytes));
        }
    }
}
