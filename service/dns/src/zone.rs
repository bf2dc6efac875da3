//! What there is to answer with.

use crate::reverse::parse;
use banger_model::{IpNetwork, VmName, reverse};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// How long an answer may be kept, in seconds. The server is on the same machine: asking again costs nothing, and a
/// VM's name goes when it stops.
pub const TTL: u32 = 1;

/// How long it may be kept that there is nothing, in seconds (RFC 2308, section 5): not at all, for the name of a VM that has just
/// come up has to be found at once, also by whoever looked for it before.
const NEGATIVE_TTL: u32 = 0;

/// What nobody transfers needs no sensible value; these are RIPE-203's.
const REFRESH: i32 = 86_400;
const RETRY: i32 = 7_200;
const EXPIRE: i32 = 3_600_000;

/// The VMs' names and addresses.
///
/// A VM that exists and does not run has a name without addresses. Only the label itself is a name: there is nothing
/// below `web.vm`.
#[derive(Debug)]
pub struct Zone {
    networks: Vec<IpNetwork>,
    hosts: Vec<IpAddr>,
    names: HashMap<String, Vec<IpAddr>>,
    pointers: BTreeMap<IpAddr, Name>,
    serial: u32,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'z> {
    /// The name is in no zone of ours.
    Elsewhere,
    /// There is no such name.
    Nothing {
        /// The name of its zone.
        zone: Name,
    },
    /// There is such a name, maybe without any record.
    Node {
        /// The name of its zone.
        zone: Name,
        /// What is there.
        node: Node<'z>,
    },
}

/// What is at a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Node<'z> {
    /// Whether it is its zone's own name.
    is_apex: bool,
    addresses: &'z [IpAddr],
    pointer: Option<&'z Name>,
}

impl Zone {
    /// A zone without VMs. `networks` are those that the VMs' addresses come from, `hosts` this host's own addresses in
    /// them, where it is served.
    pub fn new(networks: Vec<IpNetwork>, hosts: Vec<IpAddr>) -> Self {
        let pointers = hosts.iter().map(|host| (*host, apex())).collect();
        Self { networks, hosts, names: HashMap::new(), pointers, serial: 1 }
    }

    /// Gives a VM these addresses and no others; none when it does not run.
    pub fn set(&mut self, name: &VmName, addresses: Vec<IpAddr>) {
        self.take_out(name.as_str());
        if let Ok(full) = Name::from_labels([name.as_str(), VmName::DOMAIN]) {
            self.pointers.extend(addresses.iter().map(|address| (*address, full.clone())));
        }
        self.names.insert(name.as_str().to_owned(), addresses);
        self.serial = self.serial.wrapping_add(1);
    }

    /// Forgets a VM.
    pub fn remove(&mut self, name: &VmName) {
        self.take_out(name.as_str());
        self.serial = self.serial.wrapping_add(1);
    }

    fn take_out(&mut self, name: &str) {
        for address in self.names.remove(name).unwrap_or_default() {
            // An address that another VM has got meanwhile is the other's.
            let own = self.pointers.get(&address).and_then(|full| full.iter().next());
            if own == Some(name.as_bytes()) {
                self.pointers.remove(&address);
            }
        }
    }

    /// The addresses that a VM's name leads to; none when there is no such name.
    pub fn addresses(&self, name: &VmName) -> Option<&[IpAddr]> {
        self.names.get(name.as_str()).map(Vec::as_slice)
    }

    /// Whether whoever is at this address may ask: this host and its VMs.
    pub fn serves(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        source.is_loopback() || self.networks.iter().any(|network| network.contains(source))
    }

    /// Whether the address is this host's own.
    pub fn is_host(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        source.is_loopback() || self.hosts.contains(&source)
    }

    /// Looks a name up. Upper and lower case are the same.
    pub fn find(&self, name: &Name) -> Found<'_> {
        let mut labels = name.iter().rev();
        match labels.next() {
            Some(last) if last.eq_ignore_ascii_case(VmName::DOMAIN.as_bytes()) => {}
            _ => return self.find_reverse(name),
        }
        let zone = apex();
        let Some(label) = labels.next() else {
            let node = Node { is_apex: true, addresses: &self.hosts, pointer: None };
            return Found::Node { zone, node };
        };
        let lower = label.to_ascii_lowercase();
        let known = std::str::from_utf8(&lower).ok().and_then(|label| self.names.get(label));
        match (known, labels.next()) {
            (Some(addresses), None) => {
                Found::Node { zone, node: Node { addresses: addresses.as_slice(), ..Node::default() } }
            }
            _ => Found::Nothing { zone },
        }
    }

    fn find_reverse(&self, name: &Name) -> Found<'_> {
        let Some(asked) = parse(name) else { return Found::Elsewhere };
        let inside = |network: &&IpNetwork| {
            network.contains(asked.address) && asked.bits >= reverse::apex_bits(**network)
        };
        let Some(network) = self.networks.iter().find(inside) else { return Found::Elsewhere };
        let bits = reverse::apex_bits(*network);
        let Ok(zone) = Name::from_ascii(reverse::name(asked.address, bits)) else { return Found::Elsewhere };
        let is_apex = asked.whole && asked.bits == bits;
        let pointer = match asked.bits == if asked.address.is_ipv4() { 32 } else { 128 } {
            true => self.pointers.get(&asked.address),
            false => None,
        };
        // A name that has none itself is there when there are some below it (RFC 8020).
        let below = || {
            let next = self.pointers.range(asked.address..).next();
            next.is_some_and(|(address, _)| {
                IpNetwork::around(asked.address, asked.bits).is_ok_and(|above| above.contains(*address))
            })
        };
        match asked.whole && (is_apex || pointer.is_some() || below()) {
            true => Found::Node { zone, node: Node { is_apex, addresses: &[], pointer } },
            false => Found::Nothing { zone },
        }
    }

    /// The records of a type at a node. `name` is the node's, as it was asked for.
    pub fn records(&self, node: Node<'_>, zone: &Name, name: &Name, kind: RecordType) -> Vec<Record> {
        let wanted = |own: RecordType| kind == own || kind == RecordType::ANY;
        let mut data = Vec::new();
        if node.is_apex && wanted(RecordType::SOA) {
            data.push(RData::SOA(self.authority()));
        }
        if node.is_apex && wanted(RecordType::NS) {
            data.push(RData::NS(NS(apex())));
        }
        for address in node.addresses {
            match address {
                IpAddr::V4(v4) if wanted(RecordType::A) => data.push(RData::A(A(*v4))),
                IpAddr::V6(v6) if wanted(RecordType::AAAA) => data.push(RData::AAAA(AAAA(*v6))),
                _ => {}
            }
        }
        if let Some(pointer) = node.pointer.filter(|_| wanted(RecordType::PTR)) {
            data.push(RData::PTR(PTR(pointer.clone())));
        }
        // The apex's records are under the zone's own name, the others under the one that was asked for: the same
        // name, maybe in other letters.
        let owner = if node.is_apex { zone } else { name };
        data.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL, data)).collect()
    }

    /// What an answer without records has in its authority section: for how long there is nothing.
    pub fn negative(&self, zone: &Name) -> Record {
        Record::from_rdata(zone.clone(), NEGATIVE_TTL, RData::SOA(self.authority()))
    }

    fn authority(&self) -> SOA {
        let mailbox = Name::from_labels(["hostmaster", VmName::DOMAIN]).unwrap_or_default();
        SOA::new(apex(), mailbox, self.serial, REFRESH, RETRY, EXPIRE, NEGATIVE_TTL)
    }
}

/// The domain's own name, which is also the server's: no VM can be called so.
fn apex() -> Name {
    Name::from_labels([VmName::DOMAIN]).unwrap_or_default()
}
