//! The rules of the VMs' packets, made from what is to be.
//!
//! To what is the same for all VMs, each adds elements. Where only elements differ from what is in force, only those are
//! written out and given to the kernel, so that a VM's start costs the same however many there are.
//!
//! Two tables are ours. `bridge banger` sees each frame as it leaves a VM: it drops what has not that VM's MAC and
//! addresses, and what is for another VM unless both are shared. `inet banger` sees what the host routes. Both drop
//! by default what comes from a VM that they do not know.

use super::bridge::{NAME, TAP};
use banger_model::{NetworkMode, NetworkRules, Protocol, PublishedPort, Slot, Subnet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The name of both tables.
const TABLE: &str = "banger";

/// A VM, as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its slot.
    pub slot: Slot,
    /// Its TAP.
    pub tap: String,
    /// The TAP's number: another has the name when this one is gone.
    pub index: u32,
    /// What it may.
    pub rules: NetworkRules,
}

/// Interfaces that route only because of us: nothing may pass there that is not a VM's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarded {
    /// For IPv4, those through which packets come in.
    pub v4: BTreeSet<String>,
    /// For IPv6, all of the host's.
    pub v6: bool,
}

/// Both tables, as they are to be or in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    subnet: Subnet,
    guests: Vec<Guest>,
    guarded: Guarded,
}

/// What VMs add, each by what it is.
type Elements = BTreeMap<String, Element>;

/// The commands that add something to the tables, and that delete it.
#[derive(Debug, Clone, PartialEq)]
struct Element {
    add: Vec<Value>,
    delete: Vec<Value>,
}

impl Rules {
    /// What is to be.
    pub fn new(subnet: &Subnet, guests: &[Guest], guarded: &Guarded) -> Self {
        Self { subnet: *subnet, guests: guests.to_vec(), guarded: guarded.clone() }
    }

    /// The commands that replace both tables, whatever was there.
    pub fn replace(&self) -> Value {
        let mut commands = removal();
        commands.extend(bridge_table());
        commands.extend(inet_table(&self.subnet, &self.guests, &self.guarded));
        commands.extend(elements(&self.subnet, &self.guests).into_values().flat_map(|element| element.add));
        json!({ "nftables": commands })
    }

    /// The commands that make this of `before`, which is in force; none where it takes a replacement. Nothing is written out
    /// that both have.
    pub fn change(&self, before: &Self) -> Option<Vec<Value>> {
        if self.basis() != before.basis() {
            return None;
        }
        let but = |ours: &Self, theirs: &Self| {
            let guests = ours.guests.iter().filter(|guest| !theirs.guests.contains(guest)).cloned();
            elements(&ours.subnet, &guests.collect::<Vec<_>>())
        };
        let (old, new) = (but(before, self), but(self, before));
        let gone = old.iter().filter(|(what, _)| !new.contains_key(*what));
        let come = new.iter().filter(|(what, _)| !old.contains_key(*what));
        let gone = gone.flat_map(|(_, element)| element.delete.clone());
        Some(gone.chain(come.flat_map(|(_, element)| element.add.clone())).collect())
    }

    /// All that is more than an element.
    fn basis(&self) -> (&Subnet, &Guarded, Vec<(Slot, &[PublishedPort])>) {
        let published = self.guests.iter().filter(|guest| !guest.rules.ports.is_empty());
        let published = published.map(|guest| (guest.slot, guest.rules.ports.as_slice()));
        (&self.subnet, &self.guarded, published.collect())
    }
}

/// What these VMs add to both tables.
fn elements(subnet: &Subnet, guests: &[Guest]) -> Elements {
    let mut elements = Elements::new();
    for guest in guests {
        let (v4, v6) = (subnet.guest_v4(guest.slot).to_string(), subnet.guest_v6(guest.slot).to_string());
        let of_tap = |value: &str| json!({ "concat": [guest.tap, value] });
        let shared = guest.rules.mode == NetworkMode::Shared;
        for (family, set, value, wanted) in [
            ("bridge", "macs", of_tap(&mac(guest.slot)), true),
            ("bridge", "v4", of_tap(&v4), true),
            ("bridge", "v6", of_tap(&v6), true),
            ("bridge", "shared", guest.tap.clone().into(), shared),
            ("inet", "nat4", v4.clone().into(), guest.rules.nat),
            ("inet", "nat6", v6.clone().into(), guest.rules.nat),
            ("inet", "shared4", v4.clone().into(), shared),
            ("inet", "shared6", v6.clone().into(), shared),
        ] {
            if wanted {
                let what = format!("{family} {set} {value}");
                let element = element(family, set, value);
                let [add, delete] = ["add", "delete"].map(|verb| vec![json!({ verb: element })]);
                elements.insert(what, Element { add, delete });
            }
        }
        let (what, claim) = claim(subnet, guest);
        elements.insert(what, claim);
    }
    elements
}

fn element(family: &str, set: &str, element: Value) -> Value {
    json!({ "element": { "family": family, "table": TABLE, "name": set, "elem": [element] } })
}

/// The chain of what a VM may say of neighbours, and the way to it: of no other address than its own, 64 bits behind the
/// beginning of the message (RFC 4861, section 4.4).
fn claim(subnet: &Subnet, guest: &Guest) -> (String, Element) {
    let target = |length: u32| json!({ "payload": { "base": "th", "offset": 64, "len": length } });
    let own = format!("{:#x}", subnet.guest_v6(guest.slot).to_bits());
    // The first ten bits of a link-local address.
    let expressions = [is_not(target(10), 0x3fa), is_not(target(128), own), drop()];
    let name = format!("claims-{}", guest.tap);
    let chain = json!({ "chain": { "family": "bridge", "table": TABLE, "name": name } });
    let rule = json!({ "family": "bridge", "table": TABLE, "chain": name, "expr": expressions });
    let what = format!("bridge {name} {}", rule["expr"]);
    let element = element("bridge", "claims", json!([guest.tap, jump(&name)]));
    let add = vec![json!({ "add": chain }), json!({ "add": { "rule": rule } }), json!({ "add": element })];
    let delete = vec![json!({ "delete": element }), json!({ "delete": chain })];
    (what, Element { add, delete })
}

/// The commands that remove both tables, whether they are there or not.
pub fn remove() -> Value {
    json!({ "nftables": removal() })
}

fn removal() -> Vec<Value> {
    let tables = ["bridge", "inet"].map(|family| json!({ "table": { "family": family, "name": TABLE } }));
    // Removing one that is not there is an error; adding one that is there is none.
    tables.iter().flat_map(|table| [json!({ "add": table }), json!({ "delete": table })]).collect()
}

/// Writes a table down, command by command: a chain has to be there before the rule that jumps to it.
struct Table {
    family: &'static str,
    commands: Vec<Value>,
    rules: Vec<Value>,
}

impl Table {
    fn new(family: &'static str) -> Self {
        let table = json!({ "add": { "table": { "family": family, "name": TABLE } } });
        Self { family, commands: vec![table], rules: Vec::new() }
    }

    fn set(&mut self, name: &str, kind: Value) {
        let set = json!({ "family": self.family, "table": TABLE, "name": name, "type": kind });
        self.commands.push(json!({ "add": { "set": set } }));
    }

    /// A map from interfaces to chains of their own.
    fn map(&mut self, name: &str) {
        let map = json!({
            "family": self.family, "table": TABLE, "name": name, "type": "ifname", "map": "verdict",
        });
        self.commands.push(json!({ "add": { "map": map } }));
    }

    fn base(&mut self, name: &str, kind: &str, hook: &str, priority: i32) {
        self.commands.push(json!({ "add": { "chain": {
            "family": self.family, "table": TABLE, "name": name,
            "type": kind, "hook": hook, "prio": priority, "policy": "accept",
        } } }));
    }

    fn chain(&mut self, name: &str) {
        let chain = json!({ "family": self.family, "table": TABLE, "name": name });
        self.commands.push(json!({ "add": { "chain": chain } }));
    }

    fn rule(&mut self, chain: &str, expressions: Vec<Value>) {
        let rule = json!({ "family": self.family, "table": TABLE, "chain": chain, "expr": expressions });
        self.rules.push(json!({ "add": { "rule": rule } }));
    }

    fn finish(mut self) -> Vec<Value> {
        self.commands.append(&mut self.rules);
        self.commands
    }
}

fn compare(left: Value, operator: &str, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": operator, "left": left, "right": right.into() } })
}

fn is(left: Value, right: impl Into<Value>) -> Value {
    compare(left, "==", right)
}

fn is_not(left: Value, right: impl Into<Value>) -> Value {
    compare(left, "!=", right)
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn ct(key: &str) -> Value {
    json!({ "ct": { "key": key } })
}

fn both(one: Value, other: Value) -> Value {
    json!({ "concat": [one, other] })
}

fn any_of(values: &[&str]) -> Value {
    json!({ "set": values })
}

fn network(text: &str, prefix: u8) -> Value {
    json!({ "prefix": { "addr": text, "len": prefix } })
}

fn from(interface: &str) -> Value {
    is(meta("iifname"), interface)
}

fn to(interface: &str) -> Value {
    is(meta("oifname"), interface)
}

fn jump(chain: &str) -> Value {
    json!({ "jump": { "target": chain } })
}

fn accept() -> Value {
    json!({ "accept": null })
}

fn drop() -> Value {
    json!({ "drop": null })
}

/// The sender is told at once, and does not wait for nothing.
fn reject() -> Value {
    json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })
}

fn mac(slot: Slot) -> String {
    slot.mac().map(|byte| format!("{byte:02x}")).join(":")
}

/// Frames between the ports. Its hooks run before the bridge looks at a frame (linux/netfilter_bridge.h).
fn bridge_table() -> Vec<Value> {
    let mut table = Table::new("bridge");
    table.set("macs", json!(["ifname", "ether_addr"]));
    table.set("v4", json!(["ifname", "ipv4_addr"]));
    table.set("v6", json!(["ifname", "ipv6_addr"]));
    table.set("shared", "ifname".into());

    let tap = format!("{TAP}*");
    let of_tap = |value: Value| both(meta("iifname"), value);
    table.base("source", "filter", "prerouting", -300);
    table.rule("source", vec![is_not(meta("iifname"), tap.as_str()), accept()]);
    table.rule("source", vec![is_not(of_tap(field("ether", "saddr")), "@macs"), drop()]);
    table.rule("source", vec![is(field("ether", "type"), "arp"), jump("arp")]);
    table.rule(
        "source",
        vec![is(field("ether", "type"), "ip"), is_not(of_tap(field("ip", "saddr")), "@v4"), drop()],
    );
    table.rule("source", vec![is(field("ether", "type"), "ip"), accept()]);
    table.rule("source", vec![is(field("ether", "type"), "ip6"), jump("v6")]);
    table.rule("source", vec![drop()]);

    table.chain("arp");
    table.rule("arp", vec![is_not(of_tap(field("arp", "saddr ether")), "@macs"), drop()]);
    table.rule("arp", vec![is_not(of_tap(field("arp", "saddr ip")), "@v4"), drop()]);
    table.rule("arp", vec![accept()]);

    // Guests are no routers. What they say of neighbours is checked too: the target is the address of which
    // they claim to be the owner.
    table.chain("v6");
    let kind = || field("icmpv6", "type");
    table.rule("v6", vec![is(kind(), any_of(&["nd-router-advert", "nd-redirect"])), drop()]);
    let link_local = || vec![is(field("ip6", "saddr"), network("fe80::", 10))];
    table.map("claims");
    let claims = json!({ "vmap": { "key": meta("iifname"), "data": "@claims" } });
    table.rule("v6", vec![is(kind(), "nd-neighbor-advert"), claims]);
    table.rule("v6", vec![is(of_tap(field("ip6", "saddr")), "@v6"), accept()]);
    // Neighbours are looked for, and groups joined, from link-local and unspecified addresses.
    let icmp = is(meta("l4proto"), "ipv6-icmp");
    table.rule("v6", [link_local(), vec![icmp.clone(), accept()]].concat());
    table.rule("v6", vec![is(field("ip6", "saddr"), "::"), icmp, accept()]);
    table.rule("v6", vec![drop()]);

    // Isolated ports do reach those that are not: the flag alone would let a private VM talk to shared ones.
    table.base("between", "filter", "forward", -200);
    let ends = |operator| {
        [("iifname", operator), ("oifname", operator)].map(|(key, op)| compare(meta(key), op, "@shared"))
    };
    table.rule("between", [&ends("==")[..], &[accept()]].concat());
    for direction in ["iifname", "oifname"] {
        table.rule("between", vec![is(meta(direction), tap.as_str()), drop()]);
    }
    table.finish()
}

/// Packets that the host routes, receives or sends.
fn inet_table(subnet: &Subnet, guests: &[Guest], guarded: &Guarded) -> Vec<Value> {
    let mut table = Table::new("inet");
    for name in ["nat", "shared"] {
        table.set(&format!("{name}4"), "ipv4_addr".into());
        table.set(&format!("{name}6"), "ipv6_addr".into());
    }
    early(&mut table);
    forward(&mut table, guarded);
    input(&mut table, subnet);
    nat(&mut table, subnet, guests);
    table.finish()
}

/// A packet of a VM's has never to do with loopback addresses, though route_localnet would let it.
fn early(table: &mut Table) {
    table.base("early", "filter", "prerouting", -310);
    for end in ["saddr", "daddr"] {
        table.rule("early", vec![from(NAME), is(field("ip", end), network("127.0.0.0", 8)), drop()]);
    }
}

fn forward(table: &mut Table, guarded: &Guarded) {
    table.base("forward", "filter", "forward", -5);
    table.chain("from-vm");
    table.chain("to-vm");
    table.rule("forward", vec![from(NAME), jump("from-vm")]);
    table.rule("forward", vec![to(NAME), jump("to-vm")]);
    if !guarded.v4.is_empty() {
        let names: Vec<&str> = guarded.v4.iter().map(String::as_str).collect();
        table.rule(
            "forward",
            vec![
                is(meta("nfproto"), "ipv4"),
                is(meta("iifname"), any_of(&names)),
                is_not(meta("oifname"), NAME),
                drop(),
            ],
        );
    }
    if guarded.v6 {
        let elsewhere = ["iifname", "oifname"].map(|key| is_not(meta(key), NAME));
        table.rule("forward", [&[is(meta("nfproto"), "ipv6")][..], &elsewhere, &[drop()]].concat());
    }

    // With br_netfilter, frames between VMs come through here too: the bridge's own table has decided about them.
    for (family, set) in [("ip", "@shared4"), ("ip6", "@shared6")] {
        let ends = ["saddr", "daddr"].map(|end| is(field(family, end), set));
        table.rule("from-vm", [&[to(NAME)], &ends[..], &[accept()]].concat());
    }
    // So do those by which they find each other, which no router passes on.
    for (end, address, prefix) in [("saddr", "fe80::", 10), ("daddr", "fe80::", 10), ("daddr", "ff00::", 8)] {
        table.rule("from-vm", vec![to(NAME), is(field("ip6", end), network(address, prefix)), accept()]);
    }
    let groups = is(field("ip", "daddr"), network("224.0.0.0", 4));
    table.rule("from-vm", vec![to(NAME), is(field("ip", "saddr"), "@shared4"), groups, accept()]);
    table.rule("from-vm", vec![to(NAME), drop()]);
    // Ways out can have smaller packets than the bridge.
    let clamp = json!({ "mangle": {
        "key": { "tcp option": { "name": "maxseg", "field": "size" } },
        "value": { "rt": { "key": "mtu" } },
    } });
    let syn = || compare(field("tcp", "flags"), "in", "syn");
    table.rule("from-vm", vec![syn(), clamp.clone()]);
    table.rule("from-vm", vec![is(ct("direction"), "reply"), accept()]);
    for (family, set) in [("ip", "@nat4"), ("ip6", "@nat6")] {
        table.rule("from-vm", vec![is(field(family, "saddr"), set), accept()]);
    }
    table.rule("from-vm", vec![reject()]);

    table.rule("to-vm", vec![syn(), clamp]);
    table.rule("to-vm", vec![is(ct("direction"), "reply"), accept()]);
    table.rule("to-vm", vec![compare(ct("status"), "in", "dnat"), accept()]);
    table.rule("to-vm", vec![drop()]);
}

/// What VMs may ask of the host: whether it is there, who its neighbours are, and names.
fn input(table: &mut Table, subnet: &Subnet) {
    table.base("input", "filter", "input", -5);
    table.chain("to-host");
    table.rule("input", vec![from(NAME), jump("to-host")]);
    table.rule("to-host", vec![is(ct("direction"), "reply"), accept()]);
    table.rule("to-host", vec![is(field("icmp", "type"), "echo-request"), accept()]);
    let neighbours = any_of(&["echo-request", "nd-neighbor-solicit", "nd-neighbor-advert"]);
    table.rule("to-host", vec![is(field("icmpv6", "type"), neighbours), accept()]);
    for (family, host) in [("ip", subnet.host_v4().to_string()), ("ip6", subnet.host_v6().to_string())] {
        for protocol in ["udp", "tcp"] {
            table.rule(
                "to-host",
                vec![is(field(family, "daddr"), host.as_str()), is(field(protocol, "dport"), 53), accept()],
            );
        }
    }
    table.rule("to-host", vec![reject()]);
}

fn nat(table: &mut Table, subnet: &Subnet, guests: &[Guest]) {
    table.base("postrouting", "nat", "postrouting", 100);
    for (family, set) in [("ip", "@nat4"), ("ip6", "@nat6")] {
        table.rule(
            "postrouting",
            vec![
                is_not(meta("oifname"), NAME),
                is(field(family, "saddr"), set),
                json!({ "masquerade": null }),
            ],
        );
    }
    // The guest answers the host's address on the bridge: to 127.0.0.1 it has no way.
    let loopback = is(field("ip", "saddr"), network("127.0.0.0", 8));
    table.rule("postrouting", vec![to(NAME), loopback, json!({ "masquerade": null })]);

    table.base("prerouting", "nat", "prerouting", -100);
    table.base("output", "nat", "output", -100);
    for guest in guests {
        for port in &guest.rules.ports {
            let to: IpAddr = match port.address {
                IpAddr::V4(_) => subnet.guest_v4(guest.slot).into(),
                IpAddr::V6(_) => subnet.guest_v6(guest.slot).into(),
            };
            // What comes in from elsewhere is never for 127.0.0.1, whatever it says.
            if !port.is_local() {
                table.rule("prerouting", [vec![is_not(meta("iifname"), NAME)], publish(port, to)].concat());
            }
            table.rule("output", publish(port, to));
        }
    }
}

fn publish(port: &PublishedPort, to: IpAddr) -> Vec<Value> {
    let family = if port.address.is_ipv4() { "ip" } else { "ip6" };
    let mut expressions = match (port.address.is_unspecified(), port.address.is_ipv4()) {
        (false, _) => vec![is(field(family, "daddr"), port.address.to_string())],
        (true, v4) => {
            let local = is(json!({ "fib": { "result": "type", "flags": ["daddr"] } }), "local");
            let family = is(meta("nfproto"), if v4 { "ipv4" } else { "ipv6" });
            let own = is_not(field("ip6", "daddr"), "::1");
            if v4 { vec![family, local] } else { vec![family, own, local] }
        }
    };
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    expressions.push(is(field(protocol, "dport"), port.host));
    expressions.push(json!({ "dnat": { "family": family, "addr": to.to_string(), "port": port.guest } }));
    expressions
}

#[cfg(test)]
mod tests;
