use super::*;
use banger_model::IpNetwork;
use hickory_proto::rr::{Name, RData, Record};
use proptest::prelude::*;
use std::net::IpAddr;

const V4: &str = "172.30.0.6";
const V6: &str = "fd12:3456:789a::6";

fn zone() -> Zone {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let networks: Vec<IpNetwork> =
        ["172.30.0.0/18", "fd12:3456:789a::/64"].map(|text| text.parse().unwrap()).into();
    let mut zone = Zone::new(networks, vec![address("172.30.0.1"), address("fd12:3456:789a::1")]);
    zone.set(&"web".parse().unwrap(), vec![address(V4), address(V6)]);
    zone.set(&"resting".parse().unwrap(), Vec::new());
    zone
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn ask(zone: &Zone, query: &Message) -> Message {
    let packet = answer(zone, &query.to_vec().unwrap(), Transport::Udp).unwrap();
    let answer = Message::from_vec(&packet).unwrap();
    assert_eq!(
        (answer.metadata.id, answer.metadata.message_type),
        (query.metadata.id, MessageType::Response)
    );
    answer
}

fn data(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.data.to_string()).collect()
}

/// What comes for a name and a type, in short: the code, the answers, and of whom the SOA in the authority section is.
fn told(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Option<String>) {
    let answer = ask(&zone(), &query(name, kind));
    let soa = answer.authorities.iter().map(|record| {
        assert!(matches!(record.data, RData::SOA(_)), "{record}");
        record.name.to_string()
    });
    let soa: Vec<_> = soa.collect();
    assert!(soa.len() <= 1);
    (answer.metadata.response_code, data(&answer.answers), soa.first().cloned())
}

#[test]
fn names_have_addresses_and_addresses_names() {
    use RecordType as T;
    let found = |name: &str, kind, values: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        assert_eq!(told(name, kind), (ResponseCode::NoError, values, None), "{name} {kind}");
    };
    found("web.vm.", T::A, &[V4]);
    found("web.vm.", T::AAAA, &[V6]);
    found("web.vm.", T::ANY, &[V4, V6]);
    found("WeB.Vm.", T::A, &[V4]);
    found("6.0.30.172.in-addr.arpa.", T::PTR, &["web.vm."]);
    found("6.0.30.172.IN-ADDR.arpa.", T::PTR, &["web.vm."]);
    found(&banger_model::reverse::name(V6.parse().unwrap(), 128), T::PTR, &["web.vm."]);
    found("1.0.30.172.in-addr.arpa.", T::PTR, &["vm."]);
    found("vm.", T::A, &["172.30.0.1"]);
    found("vm.", T::NS, &["vm."]);
    found("0.30.172.in-addr.arpa.", T::NS, &["vm."]);
    for zone in ["vm.", "63.30.172.in-addr.arpa.", "0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."] {
        let (code, answers, authority) = told(zone, T::SOA);
        assert_eq!((code, answers.len(), authority), (ResponseCode::NoError, 1, None), "{zone}");
    }
}

#[test]
fn there_is_nothing_or_nothing_of_the_kind() {
    use RecordType as T;
    let nibbles = "0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.";
    for (name, kind, code, zone) in [
        // There is such a name, but not that.
        ("web.vm.", T::TXT, ResponseCode::NoError, "vm."),
        ("web.vm.", T::SOA, ResponseCode::NoError, "vm."),
        ("resting.vm.", T::A, ResponseCode::NoError, "vm."),
        ("vm.", T::MX, ResponseCode::NoError, "vm."),
        ("0.30.172.in-addr.arpa.", T::PTR, ResponseCode::NoError, "0.30.172.in-addr.arpa."),
        ("6.0.30.172.in-addr.arpa.", T::A, ResponseCode::NoError, "0.30.172.in-addr.arpa."),
        // Nothing itself, and something below.
        (&format!("0.0.{nibbles}"), T::PTR, ResponseCode::NoError, nibbles),
        // There is no such name.
        ("none.vm.", T::A, ResponseCode::NXDomain, "vm."),
        ("x.web.vm.", T::A, ResponseCode::NXDomain, "vm."),
        ("*.vm.", T::A, ResponseCode::NXDomain, "vm."),
        ("7.0.30.172.in-addr.arpa.", T::PTR, ResponseCode::NXDomain, "0.30.172.in-addr.arpa."),
        ("06.0.30.172.in-addr.arpa.", T::PTR, ResponseCode::NXDomain, "0.30.172.in-addr.arpa."),
        ("1.6.0.30.172.in-addr.arpa.", T::PTR, ResponseCode::NXDomain, "0.30.172.in-addr.arpa."),
        (&format!("1.{nibbles}"), T::PTR, ResponseCode::NXDomain, nibbles),
    ] {
        assert_eq!(told(name, kind), (code, Vec::new(), Some(zone.to_owned())), "{name} {kind}");
    }
}

#[test]
fn what_is_said_may_be_kept_for_a_moment_and_that_there_is_nothing_not_at_all() {
    let found = ask(&zone(), &query("web.vm.", RecordType::A));
    assert_eq!(found.answers[0].ttl, crate::TTL);
    let missing = ask(&zone(), &query("none.vm.", RecordType::A));
    let RData::SOA(soa) = &missing.authorities[0].data else { panic!("{missing}") };
    assert_eq!((missing.authorities[0].ttl, soa.minimum), (0, 0));
}

#[test]
fn what_is_not_ours_is_refused() {
    for name in
        ["example.org.", ".", "vm.example.org.", "6.64.30.172.in-addr.arpa.", "30.172.in-addr.arpa.", "arpa."]
    {
        assert_eq!(told(name, RecordType::A), (ResponseCode::Refused, Vec::new(), None), "{name}");
    }
    assert_eq!(told("vm.", RecordType::AXFR).0, ResponseCode::Refused);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(ask(&zone(), &chaos).metadata.response_code, ResponseCode::Refused);
}

#[test]
fn the_flags_say_who_answers() {
    let answer = ask(&zone(), &query("web.vm.", RecordType::A));
    let flags = answer.metadata;
    assert!(
        flags.authoritative && flags.recursion_desired && !flags.recursion_available && !flags.truncation
    );
    let refused = ask(&zone(), &query("example.org.", RecordType::A));
    assert!(!refused.metadata.authoritative);
}

#[test]
fn what_a_query_may_not_be() {
    let zone = zone();
    let code = |query: &Message| ask(&zone, query).metadata.response_code;
    let mut update = query("vm.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut two = query("web.vm.", RecordType::A);
    two.add_query(Query::query(Name::root(), RecordType::A));
    assert_eq!(code(&two), ResponseCode::FormErr);
    assert_eq!(code(&Message::query()), ResponseCode::FormErr, "none");
    let mut newer = query("web.vm.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    let answer = ask(&zone, &newer);
    // The same number as BADSIG (RFC 6895, section 2.3).
    let code = u16::from(answer.metadata.response_code);
    assert_eq!((code, answer.answers.len()), (ResponseCode::BADVERS.into(), 0));
    let cut = &query("web.vm.", RecordType::A).to_vec().unwrap()[..15];
    let failure = Message::from_vec(&super::answer(&zone, cut, Transport::Udp).unwrap()).unwrap();
    assert_eq!(failure.metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn answers_are_not_answered() {
    let mut reply = query("web.vm.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    let packet = reply.to_vec().unwrap();
    assert_eq!(answer(&zone(), &packet, Transport::Udp), None);
    assert_eq!(refuse(&packet), None);
    assert_eq!(answer(&zone(), &[0; 11], Transport::Udp), None);
}

#[test]
fn what_does_not_fit_is_cut_and_says_so() {
    let mut zone = zone();
    let many: Vec<IpAddr> = (0..100).map(|number| IpAddr::from([172, 30, 1, number])).collect();
    zone.set(&"many".parse().unwrap(), many);
    let mut asked = query("many.vm.", RecordType::A);
    let plain = asked.to_vec().unwrap();
    let cut = Message::from_vec(&answer(&zone, &plain, Transport::Udp).unwrap()).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = Message::from_vec(&answer(&zone, &plain, Transport::Tcp).unwrap()).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);

    // Two thirds of that are more than 512 bytes and less than 1232.
    let some: Vec<IpAddr> = (0..66).map(|number| IpAddr::from([172, 30, 1, number])).collect();
    zone.set(&"many".parse().unwrap(), some);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let packet = asked.to_vec().unwrap();
    let reply = answer(&zone, &packet, Transport::Udp).unwrap();
    assert!(reply.len() <= usize::from(LONGEST_UDP));
    let large = Message::from_vec(&reply).unwrap();
    assert_eq!((large.answers.len(), large.edns.unwrap().max_payload()), (66, LONGEST_UDP));
}

#[test]
fn who_is_not_served_gets_no_more_than_it_sent() {
    let packet = query("web.vm.", RecordType::A).to_vec().unwrap();
    let reply = refuse(&packet).unwrap();
    assert!(reply.len() <= packet.len());
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::Refused);
    let zone = zone();
    for (source, served) in [
        ("172.30.0.1", true),
        ("172.30.63.254", true),
        ("127.0.0.1", true),
        ("::ffff:172.30.0.6", true),
        ("fd12:3456:789a::77", true),
        ("192.168.1.5", false),
        ("fd12:3456:789b::1", false),
    ] {
        assert_eq!(zone.serves(source.parse().unwrap()), served, "{source}");
    }
}

#[test]
fn a_name_that_goes_takes_its_address_along_and_nobody_elses() {
    let mut zone = zone();
    let (web, other) = ("web".parse().unwrap(), "other".parse().unwrap());
    zone.set(&other, vec![V4.parse().unwrap()]);
    zone.remove(&web);
    let pointer = ask(&zone, &query("6.0.30.172.in-addr.arpa.", RecordType::PTR));
    assert_eq!(data(&pointer.answers), ["other.vm."]);
    assert_eq!(ask(&zone, &query("web.vm.", RecordType::A)).metadata.response_code, ResponseCode::NXDomain);
    zone.set(&other, Vec::new());
    let pointer = ask(&zone, &query("6.0.30.172.in-addr.arpa.", RecordType::PTR));
    assert_eq!(pointer.metadata.response_code, ResponseCode::NXDomain);
}

proptest! {
    #[test]
    fn any_bytes_are_answered_shortly_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let zone = zone();
        for reply in [answer(&zone, &bytes, Transport::Udp), refuse(&bytes)].into_iter().flatten() {
            prop_assert!(reply.len() <= usize::from(LONGEST_UDP));
            prop_assert_eq!(&reply[..2], &bytes[..2], "the id");
            prop_assert!(reply[2] & 0x80 != 0);
            prop_assert!(answer(&zone, &reply, Transport::Udp).is_none(), "an answer is answered");
        }
    }

    #[test]
    fn a_broken_query_is_survived(name in "([a-z0-9]{1,20}\\.){0,6}", kind: u16, at: usize, byte: u8) {
        let mut packet = query(&format!("{name}vm."), kind.into()).to_vec().unwrap();
        let at = at % packet.len();
        packet[at] = byte;
        let reply = answer(&zone(), &packet, Transport::Udp);
        prop_assert!(reply.is_none_or(|reply| Message::from_vec(&reply).is_ok()));
    }

    #[test]
    fn any_name_gets_a_sound_answer(name in "([a-z0-9]{1,20}\\.){0,4}(vm|in-addr\\.arpa|ip6\\.arpa|org)\\.", kind: u16) {
        let answer = ask(&zone(), &query(&name, kind.into()));
        let negative = answer.answers.is_empty() && answer.metadata.response_code != ResponseCode::Refused
            && answer.metadata.response_code != ResponseCode::NotImp;
        prop_assert_eq!(answer.authorities.len(), usize::from(negative));
    }
}
