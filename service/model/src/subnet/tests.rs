//! The choice of a network over made-up hosts.

use super::*;
use proptest::prelude::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn used(network: &str, interface: &str, origin: Origin) -> Used {
    Used { network: net(network), interface: interface.into(), origin }
}

fn any_network() -> impl Strategy<Value = IpNetwork> {
    let private = prop_oneof![Just([10u8, 0]), (16u8..32).prop_map(|b| [172, b]), Just([192, 168])];
    let v4 = (private, any::<[u8; 3]>(), 8u8..=32).prop_map(|([a, b], [x, y, z], prefix)| {
        let second = if a == 10 { x } else { b };
        IpNetwork::around(Ipv4Addr::new(a, second, y, z).into(), prefix).unwrap()
    });
    let v6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, prefix)| IpNetwork::around(Ipv6Addr::from_bits(bits).into(), prefix).unwrap());
    prop_oneof![4 => v4, 1 => v6]
}

fn any_used() -> impl Strategy<Value = Used> {
    let origin = prop_oneof![Just(Origin::Address), Just(Origin::Route)];
    (any_network(), "[a-z0-9-]{1,15}", origin).prop_map(|(network, interface, origin)| Used {
        network,
        interface,
        origin,
    })
}

proptest! {
    #[test]
    fn what_is_chosen_is_nobody_elses(used in prop::collection::vec(any_used(), 0..24), random: u64) {
        match Subnet::choose(None, &used, random) {
            Ok(subnet) => {
                prop_assert_eq!(subnet.conflict(&used), None);
                for one in used.iter().filter(|one| one.origin == Origin::Address) {
                    prop_assert!(!subnet.networks().iter().any(|own| own.overlaps(one.network)), "{}", one.network);
                }
                prop_assert_eq!(Subnet::choose(None, &used, random), Ok(subnet), "the same again");
            }
            Err(conflict) => prop_assert!(used.contains(&conflict.used)),
        }
    }

    #[test]
    fn overlap_is_sharing_an_address(a in any_network(), b in any_network()) {
        let shares = a.contains(b.address()) || b.contains(a.address());
        prop_assert_eq!(a.overlaps(b), shares);
        prop_assert_eq!(b.overlaps(a), shares);
    }

    #[test]
    fn networks_are_read_as_written(network in any_network(), text in ".{0,24}") {
        prop_assert_eq!(network.to_string().parse(), Ok(network));
        let _ = text.parse::<IpNetwork>();
    }

    #[test]
    fn a_subnet_is_kept_as_it_was(random: u64) {
        let subnet = Subnet::choose(None, &[], random).unwrap();
        let text = serde_json::to_string(&subnet).unwrap();
        prop_assert_eq!(serde_json::from_str::<Subnet>(&text).unwrap(), subnet);
    }
}

#[test]
fn every_candidate_is_a_private_19() {
    for v4 in CANDIDATES {
        let network = IpNetwork::around(v4.into(), Subnet::PREFIX_V4).unwrap();
        assert_eq!(network.address(), IpAddr::from(v4));
        assert!(Subnet::new(network, Subnet::unique_local(0)).is_ok(), "{v4}");
    }
}

#[test]
fn no_two_slots_share_an_address_and_all_are_inside() {
    let subnet = Subnet::choose(None, &[], 7).unwrap();
    let [v4, v6] = subnet.networks();
    let mut seen = std::collections::HashSet::from([IpAddr::from(subnet.host_v4()), subnet.host_v6().into()]);
    for slot in Slot::all() {
        for (address, network) in [(subnet.guest_v4(slot).into(), v4), (subnet.guest_v6(slot).into(), v6)] {
            assert!(seen.insert(address) && network.contains(address), "{address}");
        }
    }
    assert!(!seen.contains(&v4.address()));
    assert!(!seen.contains(&IpAddr::from(Ipv4Addr::new(172, 30, 31, 255))), "the broadcast address");
}

#[test]
fn addresses_and_near_routes_are_in_the_way_and_wide_ones_are_not() {
    let first = Subnet::choose(None, &[], 1).unwrap();
    assert_eq!(first.host_v4(), Ipv4Addr::new(172, 30, 0, 1));
    let docker = used("172.30.0.0/16", "br-4711", Origin::Address);
    let conflict = first.conflict(std::slice::from_ref(&docker)).unwrap().to_string();
    assert!(
        conflict.contains("Docker (interface br-4711)") && conflict.contains("172.30.0.0/19"),
        "{conflict}"
    );
    assert!(conflict.contains("config.toml"), "{conflict}");
    let other = Subnet::choose(None, &[docker], 1).unwrap();
    assert_eq!(other.host_v4(), Ipv4Addr::new(172, 29, 128, 1));

    let vpn = used("172.30.4.0/24", "tun0", Origin::Route);
    assert!(first.conflict(&[vpn]).unwrap().to_string().contains("a VPN (interface tun0)"));
    for wide in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "172.16.0.0/12", "160.0.0.0/3"] {
        assert_eq!(first.conflict(&[used(wide, "tun0", Origin::Route)]), None, "{wide}");
    }
    assert!(first.conflict(&[used("172.16.0.0/12", "eth0", Origin::Address)]).is_some());
    assert!(first.conflict(&[used("172.30.0.0/17", "eth0", Origin::Route)]).is_some());
}

#[test]
fn a_network_that_nothing_touches_is_preferred_to_one_below_a_wide_route() {
    let vpn = used("172.16.0.0/12", "tun0", Origin::Route);
    let chosen = Subnet::choose(None, std::slice::from_ref(&vpn), 1).unwrap();
    assert_eq!(chosen.host_v4(), Ipv4Addr::new(10, 213, 64, 1));
    let all = [vpn, used("10.0.0.0/8", "tun0", Origin::Route), used("192.168.0.0/16", "tun0", Origin::Route)];
    assert_eq!(Subnet::choose(None, &all, 1).unwrap().host_v4(), Ipv4Addr::new(172, 30, 0, 1));
}

#[test]
fn the_administrators_network_is_taken_or_refused_and_never_replaced() {
    let forced = Some(net("10.9.32.0/19"));
    assert_eq!(Subnet::choose(forced, &[], 1).unwrap().host_v4(), Ipv4Addr::new(10, 9, 32, 1));
    let taken = used("10.9.40.0/24", "eth0", Origin::Address);
    assert!(Subnet::choose(forced, &[taken], 1).is_err());
}

#[test]
fn only_private_networks_of_the_right_size_are_the_vms() {
    let v6 = Subnet::unique_local(u64::MAX);
    assert_eq!(v6.to_string(), "fdff:ffff:ffff::/64");
    for v4 in ["8.8.0.0/19", "10.0.0.0/8", "10.0.0.0/20", "172.32.0.0/19", "fd00::/19"] {
        assert!(Subnet::new(net(v4), v6).is_err(), "{v4}");
    }
    for v6 in ["2001:db8::/64", "fd00::/48", "fc00::/64", "10.0.0.0/8"] {
        assert!(Subnet::new(net("10.0.0.0/19"), net(v6)).is_err(), "{v6}");
    }
    assert!(serde_json::from_str::<Subnet>(r#"{"v4":"8.8.0.0/19","v6":"fd00::/64"}"#).is_err());
    for text in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0", "/8", "10.0.0.0/+8", "::1/0"] {
        assert!(text.parse::<IpNetwork>().is_err(), "{text}");
    }
}
