//! What a name below `in-addr.arpa` or `ip6.arpa` says.

use hickory_proto::rr::Name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a name below `in-addr.arpa` or `ip6.arpa` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reverse {
    /// The address as far as the name goes; the rest is zero.
    pub address: IpAddr,
    /// How many bits the name gives.
    pub bits: u8,
    /// Whether all of the name was understood. One with a label too many, or one that is no number as it is written in
    /// such names, belongs to the zone of what comes behind it and does not exist there.
    pub whole: bool,
}

/// Reads a name; none when it is below neither of the two domains.
pub fn parse(name: &Name) -> Option<Reverse> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let family = labels.next()?;
    if family.eq_ignore_ascii_case(b"in-addr") {
        let (bits, value, whole) = digits(labels, 32, 8, octet);
        let address = Ipv4Addr::from_bits(u32::try_from(value).unwrap_or_default());
        return Some(Reverse { address: address.into(), bits, whole });
    }
    if family.eq_ignore_ascii_case(b"ip6") {
        let (bits, value, whole) = digits(labels, 128, 4, nibble);
        return Some(Reverse { address: Ipv6Addr::from_bits(value).into(), bits, whole });
    }
    None
}

/// Reads labels of `step` bits each until `most` bits are there or a label is not one.
fn digits<'a>(
    labels: impl Iterator<Item = &'a [u8]>,
    most: u8,
    step: u8,
    read: fn(&[u8]) -> Option<u8>,
) -> (u8, u128, bool) {
    let (mut bits, mut value) = (0, 0);
    for label in labels {
        match read(label) {
            Some(digit) if bits < most => {
                bits += step;
                value |= u128::from(digit) << (most - bits);
            }
            _ => return (bits, value, false),
        }
    }
    (bits, value, true)
}

/// 0 to 255 without leading zeros, so that each address has one name.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::reverse::name;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Reverse> {
        parse(&Name::from_ascii(text).unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_as_far_as_they_go() {
        for (name, expected) in [
            ("6.0.30.172.in-addr.arpa.", Some(("172.30.0.6", 32, true))),
            ("0.30.172.IN-ADDR.ARPA.", Some(("172.30.0.0", 24, true))),
            ("in-addr.arpa.", Some(("0.0.0.0", 0, true))),
            ("x.0.30.172.in-addr.arpa.", Some(("172.30.0.0", 24, false))),
            ("06.0.30.172.in-addr.arpa.", Some(("172.30.0.0", 24, false))),
            ("256.0.30.172.in-addr.arpa.", Some(("172.30.0.0", 24, false))),
            ("1.6.0.30.172.in-addr.arpa.", Some(("172.30.0.6", 32, false))),
            ("D.f.ip6.arpa.", Some(("fd00::", 8, true))),
            ("g.d.f.ip6.arpa.", Some(("fd00::", 8, false))),
            ("web.vm.", None),
            ("arpa.", None),
            ("6.0.30.172.in-addr.example.", None),
        ] {
            let expected =
                expected.map(|(text, bits, whole)| Reverse { address: address(text), bits, whole });
            assert_eq!(read(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_address_comes_back_from_its_name(four: u32, six: u128) {
            for (address, bits) in [(IpAddr::V4(four.into()), 32), (IpAddr::V6(six.into()), 128)] {
                prop_assert_eq!(read(&name(address, bits)), Some(Reverse { address, bits, whole: true }));
            }
        }
    }
}
