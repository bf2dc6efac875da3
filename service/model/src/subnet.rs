//! The one network that all VMs of a host are in: which addresses it has, whether the host uses them already for
//! something else, and which to take.

use crate::{Slot, error::ModelError, error::shorten};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt, str::FromStr};

/// Private networks (RFC 1918) that home routers, Docker, libvirt, podman, Kubernetes and the usual VPNs do not
/// take by default, in the order in which they are tried.
const CANDIDATES: [Ipv4Addr; 12] = [
    Ipv4Addr::new(172, 30, 0, 0),
    Ipv4Addr::new(172, 29, 128, 0),
    Ipv4Addr::new(10, 213, 64, 0),
    Ipv4Addr::new(10, 181, 32, 0),
    Ipv4Addr::new(192, 168, 160, 0),
    Ipv4Addr::new(10, 147, 96, 0),
    Ipv4Addr::new(172, 27, 192, 0),
    Ipv4Addr::new(10, 67, 160, 0),
    Ipv4Addr::new(192, 168, 224, 0),
    Ipv4Addr::new(172, 22, 96, 0),
    Ipv4Addr::new(10, 233, 0, 0),
    Ipv4Addr::new(10, 19, 224, 0),
];

/// The blocks that RFC 1918 sets aside.
const PRIVATE: [IpNetwork; 3] = [
    IpNetwork { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix: 8 },
    IpNetwork { address: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix: 12 },
    IpNetwork { address: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix: 16 },
];

/// The first guest's address after the network's own: the room below is the host's.
const FIRST_GUEST: u16 = 16;

/// A network: an address whose bits below the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// The network in which `address` is.
    ///
    /// # Errors
    /// [`ModelError::Network`] for a prefix longer than the address.
    pub fn around(address: IpAddr, prefix: u8) -> Result<Self, ModelError> {
        let wrong = || network_error(&format!("{address}/{prefix}"), "its prefix is longer than its address");
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix.into()).ok_or_else(wrong)?);
                Ipv4Addr::from_bits(v4.to_bits() & mask.unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix.into()).ok_or_else(wrong)?);
                Ipv6Addr::from_bits(v6.to_bits() & mask.unwrap_or(0)).into()
            }
        };
        Ok(Self { address, prefix })
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of its prefix, in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::around(address, self.prefix) == Ok(self)
    }

    /// Whether all of `other` is in it.
    pub fn covers(self, other: IpNetwork) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: IpNetwork) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNetwork {
    type Err = ModelError;

    /// Reads `10.0.0.0/8`; the bits below the prefix must be zero.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            let digits = prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
            Some((address.parse().ok()?, prefix.parse().ok().filter(|_| digits)?))
        });
        let (address, prefix) =
            parts.ok_or_else(|| network_error(text, "write an address and a prefix, as in 10.1.0.0/19"))?;
        let network = Self::around(address, prefix)?;
        match network.address == address {
            true => Ok(network),
            false => Err(network_error(text, "its address has bits below the prefix")),
        }
    }
}

impl TryFrom<String> for IpNetwork {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<IpNetwork> for String {
    fn from(network: IpNetwork) -> String {
        network.to_string()
    }
}

fn network_error(value: &str, why: &'static str) -> ModelError {
    ModelError::Network { value: shorten(value), why }
}

/// Addresses that the host uses already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// Which.
    pub network: IpNetwork,
    /// By which interface.
    pub interface: String,
    /// How.
    pub origin: Origin,
}

/// How addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The interface has an address in that network.
    Address,
    /// A route leads there.
    Route,
}

impl Used {
    /// Whether VMs cannot have addresses of that network. A default route, and a route for all of a private block
    /// (as some VPNs set), name no network that somebody is in: ours is more specific and goes first.
    fn is_anothers(&self) -> bool {
        let wide = self.network.prefix < 8 || PRIVATE.iter().any(|block| self.network.covers(*block));
        self.origin == Origin::Address || !wide
    }
}

/// Two networks that cannot be on one host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the VMs' network {network} is used by {}, {}", whose(&used.interface), remedy(used))]
pub struct Conflict {
    /// The VMs'.
    pub network: IpNetwork,
    /// The other.
    pub used: Used,
}

/// Who makes an interface of that name, for people.
fn whose(interface: &str) -> String {
    const MAKERS: [(&str, &str); 12] = [
        ("docker", "Docker"),
        ("br-", "Docker"),
        ("virbr", "libvirt"),
        ("podman", "podman"),
        ("cni", "podman or Kubernetes"),
        ("lxdbr", "LXD"),
        ("lxcbr", "LXC"),
        ("incusbr", "Incus"),
        ("tun", "a VPN"),
        ("tap", "a VPN or another VM"),
        ("wg", "a WireGuard VPN"),
        ("tailscale", "Tailscale"),
    ];
    match MAKERS.iter().find(|(start, _)| interface.starts_with(start)) {
        Some((_, maker)) => format!("{maker} (interface {interface})"),
        None => format!("the interface {interface}"),
    }
}

fn remedy(used: &Used) -> String {
    let what = match used.origin {
        Origin::Address => "which has an address in",
        Origin::Route => "to which a route leads for",
    };
    format!(
        "{what} {}: give that another network, or set `subnet` in the section [network] of /etc/banger/config.toml to one that is free",
        used.network
    )
}

/// The VMs' network on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Pair", into = "Pair")]
pub struct Subnet {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    v4: IpNetwork,
    v6: IpNetwork,
}

impl Subnet {
    /// The length of its IPv4 prefix: 8190 addresses.
    pub const PREFIX_V4: u8 = 19;
    /// The length of its IPv6 prefix.
    pub const PREFIX_V6: u8 = 64;

    /// A subnet of these networks: a private one of [`Subnet::PREFIX_V4`] and a unique local one (RFC 4193) of
    /// [`Subnet::PREFIX_V6`].
    ///
    /// # Errors
    /// [`ModelError::Network`] for others.
    pub fn new(v4: IpNetwork, v6: IpNetwork) -> Result<Self, ModelError> {
        let first = Self::check_v4(v4)?;
        match v6.address {
            IpAddr::V6(prefix) if prefix.octets()[0] == 0xfd && v6.prefix == Self::PREFIX_V6 => {
                Ok(Self { v4: first, v6: prefix })
            }
            _ => Err(network_error(&v6.to_string(), "it is not a /64 in fd00::/8")),
        }
    }

    /// Checks the IPv4 network of one, and returns its first address.
    ///
    /// # Errors
    /// [`ModelError::Network`].
    pub fn check_v4(v4: IpNetwork) -> Result<Ipv4Addr, ModelError> {
        let (IpAddr::V4(first), true) = (v4.address, PRIVATE.iter().any(|block| block.covers(v4))) else {
            return Err(network_error(&v4.to_string(), "it is not in 10/8, 172.16/12 or 192.168/16"));
        };
        match v4.prefix {
            Self::PREFIX_V4 => Ok(first),
            _ => Err(network_error(&v4.to_string(), "its prefix has to be /19")),
        }
    }

    /// The same with other IPv4 addresses.
    ///
    /// # Errors
    /// [`ModelError::Network`].
    pub fn with_v4(&self, v4: IpNetwork) -> Result<Self, ModelError> {
        Ok(Self { v4: Self::check_v4(v4)?, v6: self.v6 })
    }

    /// A unique local prefix with these 40 random bits as its global id, and subnet 0 (RFC 4193, section 3.2).
    fn unique_local(random: u64) -> IpNetwork {
        let bits = (0xfd << 120) | (u128::from(random & 0xff_ffff_ffff) << 80);
        IpNetwork { address: Ipv6Addr::from_bits(bits).into(), prefix: Self::PREFIX_V6 }
    }

    /// Chooses the network of a host that has none: `forced` where the administrator decides, else the first
    /// candidate that nothing else touches, else the first whose addresses are nobody's own. `random` makes the IPv6
    /// prefix, once.
    ///
    /// # Errors
    /// The [`Conflict`] of the first candidate, or of the forced network.
    pub fn choose(forced: Option<IpNetwork>, used: &[Used], random: u64) -> Result<Self, Conflict> {
        let v6 = Self::unique_local(random);
        let subnet = |v4: IpNetwork| Self::new(v4, v6).ok();
        if let Some(chosen) = forced.and_then(subnet) {
            return chosen.conflict(used).map_or(Ok(chosen), Err);
        }
        let candidates = CANDIDATES.map(|v4| Self { v4, v6: Self::new_v6(v6) });
        let real = |one: &Used| one.network.prefix >= 8 || one.origin == Origin::Address;
        let untouched = |subnet: &&Subnet| !used.iter().filter(|one| real(one)).any(|one| subnet.meets(one));
        let free = |subnet: &&Subnet| subnet.conflict(used).is_none();
        match candidates.iter().find(untouched).or_else(|| candidates.iter().find(free)) {
            Some(subnet) => Ok(*subnet),
            None => candidates[0].conflict(used).map_or(Ok(candidates[0]), Err),
        }
    }

    fn new_v6(network: IpNetwork) -> Ipv6Addr {
        match network.address {
            IpAddr::V6(prefix) => prefix,
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
        }
    }

    fn meets(&self, used: &Used) -> bool {
        self.networks().iter().any(|network| network.overlaps(used.network))
    }

    /// Who else uses its addresses.
    pub fn conflict(&self, used: &[Used]) -> Option<Conflict> {
        let mut others = used.iter().filter(|one| one.is_anothers());
        others.find_map(|one| {
            let network = self.networks().into_iter().find(|network| network.overlaps(one.network))?;
            Some(Conflict { network, used: one.clone() })
        })
    }

    /// Its IPv4 and its IPv6 network.
    pub fn networks(&self) -> [IpNetwork; 2] {
        [
            IpNetwork { address: self.v4.into(), prefix: Self::PREFIX_V4 },
            IpNetwork { address: self.v6.into(), prefix: Self::PREFIX_V6 },
        ]
    }

    /// The host's IPv4 address, on the bridge: every guest's gateway.
    pub fn host_v4(&self) -> Ipv4Addr {
        self.v4_at(1)
    }

    /// The host's IPv6 address, on the bridge.
    pub fn host_v6(&self) -> Ipv6Addr {
        self.v6_at(1)
    }

    /// The IPv4 address of the VM in this slot.
    pub fn guest_v4(&self, slot: Slot) -> Ipv4Addr {
        self.v4_at(FIRST_GUEST + u16::from(slot))
    }

    /// Its IPv6 address: the same number behind the prefix.
    pub fn guest_v6(&self, slot: Slot) -> Ipv6Addr {
        self.v6_at(FIRST_GUEST + u16::from(slot))
    }

    fn v4_at(&self, number: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4.to_bits() | u32::from(number))
    }

    fn v6_at(&self, number: u16) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.v6.to_bits() | u128::from(number))
    }
}

impl Default for Subnet {
    /// The first candidate, for who needs any.
    fn default() -> Self {
        Self { v4: CANDIDATES[0], v6: Self::new_v6(Self::unique_local(0)) }
    }
}

impl TryFrom<Pair> for Subnet {
    type Error = ModelError;

    fn try_from(pair: Pair) -> Result<Self, ModelError> {
        Self::new(pair.v4, pair.v6)
    }
}

impl From<Subnet> for Pair {
    fn from(subnet: Subnet) -> Pair {
        let [v4, v6] = subnet.networks();
        Pair { v4, v6 }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [v4, v6] = self.networks();
        write!(f, "{v4} and {v6}")
    }
}

#[cfg(test)]
mod tests;
