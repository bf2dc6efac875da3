//! Names under which addresses are looked up: `5.0.30.172.in-addr.arpa` (RFC 1035, section 3.5) and nibbles below
//! `ip6.arpa` (RFC 3596, section 2.5).

use crate::IpNetwork;
use std::net::IpAddr;

/// Where zones are cut: at the first dot at or behind the network's prefix. A cut before it would claim addresses that
/// are somebody else's.
pub fn apex_bits(network: IpNetwork) -> u8 {
    let step = if network.address().is_ipv4() { 8 } else { 4 };
    network.prefix().next_multiple_of(step)
}

/// The name of an address's first `bits` bits, with a dot at its end.
pub fn name(address: IpAddr, bits: u8) -> String {
    let (mut labels, domain): (Vec<String>, _) = match address {
        IpAddr::V4(v4) => {
            (v4.octets().iter().take(usize::from(bits / 8)).map(u8::to_string).collect(), "in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (nibbles.take(usize::from(bits / 4)).map(|digit| format!("{digit:x}")).collect(), "ip6.arpa.")
        }
    };
    labels.reverse();
    labels.push(domain.to_owned());
    labels.join(".")
}

/// The zones that cover a network and nothing else, lowest first, with a dot at the end of each.
pub fn zones(network: IpNetwork) -> Vec<String> {
    let bits = apex_bits(network);
    let count = 1_u128 << (bits - network.prefix());
    (0..count).map(|number| name(nth(network.address(), bits, number), bits)).collect()
}

/// The address whose first `bits` bits are `number` more than those of `first`.
fn nth(first: IpAddr, bits: u8, number: u128) -> IpAddr {
    let shifted = |all: u8| number.checked_shl(u32::from(all.saturating_sub(bits))).unwrap_or(0);
    match first {
        IpAddr::V4(v4) => {
            let offset = u32::try_from(shifted(32)).unwrap_or_default();
            IpAddr::V4((v4.to_bits() | offset).into())
        }
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() | shifted(128)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn around(address: IpAddr, prefix: u8) -> IpNetwork {
        IpNetwork::around(address, prefix).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn zones_cover_the_network_and_nothing_else() {
        assert_eq!(
            zones(around(address("172.30.0.0"), 22)),
            ["0", "1", "2", "3"].map(|n| format!("{n}.30.172.in-addr.arpa."))
        );
        assert_eq!(zones(around(address("10.0.0.0"), 8)), ["10.in-addr.arpa."]);
        assert_eq!(zones(around(address("192.168.7.0"), 24)), ["7.168.192.in-addr.arpa."]);
        let six = zones(around(address("fd12:3456:789a::"), 64));
        assert_eq!(six, ["0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."]);
    }

    proptest! {
        #[test]
        fn every_address_is_in_exactly_one_zone(four: u32, prefix in 20..=32u8) {
            let network = around(IpAddr::V4(four.into()), prefix);
            let own = name(IpAddr::V4(four.into()), 32);
            let inside = |zone: &String| own.ends_with(&format!(".{zone}")) || own == *zone;
            prop_assert_eq!(zones(network).into_iter().filter(inside).count(), 1);
        }
    }
}
