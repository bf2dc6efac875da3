//! What a VM may do on the network: whom it reaches, and which of its ports others reach.

use crate::error::{ModelError, shorten};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::{fmt, str::FromStr};

/// Which other VMs a VM reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// None.
    #[default]
    Private,
    /// Those that are shared too.
    Shared,
}

impl NetworkMode {
    /// The word for it on the bus and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
        }
    }
}

impl FromStr for NetworkMode {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "private" => Ok(Self::Private),
            "shared" => Ok(Self::Shared),
            _ => Err(ModelError::Word {
                what: "network (write \"private\" or \"shared\")",
                value: shorten(text),
            }),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Protocol {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(ModelError::Word { what: "protocol (write \"tcp\" or \"udp\")", value: shorten(text) }),
        }
    }
}

/// A port of the host behind which a port of a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// The host's address: 127.0.0.1, one of its others, or `0.0.0.0` or `::` for all.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

impl PublishedPort {
    /// Where a port is published when nobody says: for this host alone.
    pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A port that can be published.
    ///
    /// # Errors
    /// [`ModelError::Port`] for port 0, `::1` (the kernel never lets its packets leave), and addresses of nobody or of many.
    pub fn new(address: IpAddr, host: u16, guest: u16, protocol: Protocol) -> Result<Self, ModelError> {
        let port = Self { address, host, guest, protocol };
        let refused = |why| Err(ModelError::Port { value: shorten(&port.to_string()), why });
        if host == 0 || guest == 0 {
            return refused("ports are numbers from 1 to 65535");
        }
        match address {
            IpAddr::V6(v6) if v6.is_loopback() => {
                refused("publish on 127.0.0.1: packets of ::1 never leave the host")
            }
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => refused("write the IPv4 address itself"),
            IpAddr::V4(v4) if v4.is_loopback() && v4 != Ipv4Addr::LOCALHOST => {
                refused("of the loopback addresses only 127.0.0.1 can be used")
            }
            IpAddr::V4(v4) if v4.is_broadcast() => refused("that is a broadcast address"),
            _ if address.is_multicast() => refused("that is a multicast address"),
            _ => Ok(port),
        }
    }

    /// Checks one that was read from somewhere.
    ///
    /// # Errors
    /// As [`PublishedPort::new`].
    pub fn check(&self) -> Result<(), ModelError> {
        Self::new(self.address, self.host, self.guest, self.protocol).map(drop)
    }

    /// Whether only this host reaches it.
    pub fn is_local(&self) -> bool {
        self.address.is_loopback()
    }

    /// Whether publishing it takes more than a VM does: others reach it, or it is one of the ports that only
    /// root's programs have.
    pub fn is_privileged(&self) -> bool {
        !self.is_local() || self.host < 1024
    }

    /// Whether two cannot be published at once: same port and protocol, and an address in common.
    pub fn collides(&self, other: &PublishedPort) -> bool {
        let any = self.address.is_unspecified() || other.address.is_unspecified();
        (self.host, self.protocol) == (other.host, other.protocol)
            && self.address.is_ipv4() == other.address.is_ipv4()
            && (any || self.address == other.address)
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(v4) => write!(f, "{v4}")?,
            IpAddr::V6(v6) => write!(f, "[{v6}]")?,
        }
        write!(f, ":{}:{}/{}", self.host, self.guest, self.protocol.as_str())
    }
}

impl FromStr for PublishedPort {
    type Err = ModelError;

    /// Reads `[ADDRESS:]HOST:GUEST[/tcp|/udp]`, as podman does; an IPv6 address is in brackets.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let refused = || ModelError::Port {
            value: shorten(text),
            why: "write [ADDRESS:]HOST:GUEST[/tcp|/udp], as in 8080:80",
        };
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, protocol)) => (rest, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse().map_err(|_| refused()),
            false => Err(refused()),
        };
        let (rest, guest) = rest.rsplit_once(':').ok_or_else(refused)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (Self::LOOPBACK, rest),
            Some((address, host)) => {
                let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address: IpAddr = match inner {
                    Some(v6) => IpAddr::V6(v6.parse().map_err(|_| refused())?),
                    None => IpAddr::V4(address.parse().map_err(|_| refused())?),
                };
                (address, host)
            }
        };
        Self::new(address, number(host)?, number(guest)?, protocol)
    }
}

/// What the host lets a VM's packets do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRules {
    /// Which other VMs it reaches.
    pub mode: NetworkMode,
    /// Whether it reaches beyond the host, with the host's addresses.
    pub nat: bool,
    /// Its ports that others reach.
    pub ports: Vec<PublishedPort>,
}

impl NetworkRules {
    /// Most ports of one VM.
    pub const MOST_PORTS: usize = 64;

    /// Checks what was read from somewhere.
    ///
    /// # Errors
    /// [`ModelError::Range`] for too many ports, [`ModelError::Port`] for one that cannot be, or that is there twice.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.ports.len() > Self::MOST_PORTS {
            return Err(ModelError::Range {
                what: "the number of published ports",
                value: self.ports.len().to_string(),
                least: "0".into(),
                most: Self::MOST_PORTS.to_string(),
            });
        }
        for (index, port) in self.ports.iter().enumerate() {
            port.check()?;
            if self.ports[..index].iter().any(|earlier| earlier.collides(port)) {
                return Err(ModelError::Port {
                    value: port.to_string(),
                    why: "the host's port is there twice",
                });
            }
        }
        Ok(())
    }

    /// Whether its packets pass beyond the host, or others' come in from there.
    pub fn is_routed(&self) -> bool {
        self.nat || self.ports.iter().any(|port| !port.is_local())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port(text: &str) -> PublishedPort {
        text.parse().unwrap()
    }

    #[test]
    fn ports_are_written_as_podman_writes_them() {
        assert_eq!(port("8080:80").to_string(), "127.0.0.1:8080:80/tcp");
        assert_eq!(port("0.0.0.0:53:5353/udp").to_string(), "0.0.0.0:53:5353/udp");
        assert_eq!(port("[::]:8080:80").address, "::".parse::<IpAddr>().unwrap());
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "+80:80",
            "a:80",
            "80:80/sctp",
            "::1:80:80",
            "[::1]:80:80",
            "127.0.0.2:80:80",
            "224.0.0.1:80:80",
            "[ff02::1]:80:80",
            "[1.2.3.4]:80:80",
            "255.255.255.255:1:1",
            "[::ffff:1.2.3.4]:80:80",
        ] {
            assert!(text.parse::<PublishedPort>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn beyond_loopback_and_below_1024_takes_more() {
        assert!(!port("8080:80").is_privileged());
        for text in ["80:80", "0.0.0.0:8080:80", "10.0.0.1:8080:80", "[::]:8080:80"] {
            assert!(port(text).is_privileged(), "{text}");
        }
    }

    #[test]
    fn a_port_is_taken_where_an_address_is_shared() {
        for (one, other, expected) in [
            ("8080:80", "8080:81", true),
            ("8080:80", "8080:80/udp", false),
            ("8080:80", "0.0.0.0:8080:80", true),
            ("8080:80", "[::]:8080:80", false),
            ("10.0.0.1:80:80", "10.0.0.2:80:80", false),
            ("8080:80", "8081:80", false),
        ] {
            assert_eq!(port(one).collides(&port(other)), expected, "{one} {other}");
            assert_eq!(port(other).collides(&port(one)), expected, "{other} {one}");
        }
        let twice =
            NetworkRules { ports: vec![port("8080:80"), port("0.0.0.0:8080:81")], ..Default::default() };
        assert!(twice.check().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = text.parse::<PublishedPort>();
        }

        #[test]
        fn what_is_written_is_read(address: IpAddr, host: u16, guest: u16, udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            if let Ok(port) = PublishedPort::new(address, host, guest, protocol) {
                prop_assert_eq!(port.to_string().parse(), Ok(port));
            }
        }
    }
}
