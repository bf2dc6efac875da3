//! A range of addresses.

use std::{fmt, net::IpAddr};

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address`, as wide as a prefix of so many bits; at most as many as the address has count.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(bits_of(address));
        Self { first: cut(address, prefix), prefix }
    }

    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Length of the prefix, in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address is one of it. The families are different worlds.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && cut(address, self.prefix) == self.first
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Where this host's VMs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The networks that their addresses come from.
    pub networks: Vec<Network>,
    /// The host's own addresses in them.
    pub hosts: Vec<IpAddr>,
}

/// Where VMs are on every host.
pub fn own() -> Own {
    let first = IpAddr::from([172, 30, 0, 0]);
    Own { networks: vec![Network::new(first, 18)], hosts: vec![IpAddr::from([172, 30, 0, 1])] }
}

/// How many bits an address of that family has.
pub fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits after the first `prefix` being zero.
pub fn cut(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_own_addresses_alone() {
        let network = Network::new("172.30.17.3".parse().unwrap(), 18);
        assert_eq!(network.to_string(), "172.30.0.0/18");
        for (address, inside) in
            [("172.30.0.0", true), ("172.30.63.255", true), ("172.30.64.0", false), ("fd00::1", false)]
        {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address}");
        }
        let all = Network::new("1.2.3.4".parse().unwrap(), 0);
        assert!(all.contains("255.0.0.1".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let one = Network::new("fd00::1".parse().unwrap(), 200);
        assert!(one.contains("fd00::1".parse().unwrap()) && !one.contains("fd00::2".parse().unwrap()));
    }
}
