//! Other firewalls: what they drop, nobody else's accept brings back. Each is told, in its own way, to let the
//! VMs' packets through; our own table decides about them.

use super::bridge::NAME;
use super::nft;
use banger_model::{Firewall, FirewallOwner};
use serde_json::{Value, json};
use std::io;
use std::process::{Command, Stdio};

/// By this are our rules in others' chains known.
const COMMENT: &str = "banger: virtual machines, see the table inet banger";

const BUSCTL: &str = "/usr/bin/busctl";

/// A chain as nft lists it.
struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
    drops: bool,
}

fn chains(listed: &Value) -> impl Iterator<Item = Chain<'_>> {
    let items = listed["nftables"].as_array().into_iter().flatten();
    items.filter_map(|item| item.get("chain")).map(|chain| {
        let text = |key: &str| chain[key].as_str().unwrap_or_default();
        Chain {
            family: text("family"),
            table: text("table"),
            name: text("name"),
            hook: text("hook"),
            drops: text("policy") == "drop",
        }
    })
}

/// The chains that can stop the VMs' packets, of what `nft -j list chains` lists. None is open yet.
fn obstacles(listed: &Value) -> Vec<Firewall> {
    let all: Vec<Chain<'_>> = chains(listed).collect();
    let mut found = Vec::new();
    for chain in &all {
        let Chain { family, table, name, hook, drops } = *chain;
        if table == "banger" || !["forward", "input"].contains(&hook) {
            continue;
        }
        let firewalld = (family, table) == ("inet", "firewalld");
        if !drops && !firewalld {
            continue;
        }
        let named = |name: &str| {
            all.iter().any(|other| (other.family, other.table, other.name) == (family, table, name))
        };
        let (owner, name) = match (family, table, name) {
            _ if firewalld => (FirewallOwner::Firewalld, name),
            ("ip" | "ip6", "filter", "FORWARD") if named("DOCKER-USER") => {
                (FirewallOwner::Docker, "DOCKER-USER")
            }
            ("ip" | "ip6", "filter", "FORWARD" | "INPUT") => (FirewallOwner::Iptables, name),
            _ => (FirewallOwner::Nftables, name),
        };
        found.push(Firewall { owner, chain: format!("{family} {table} {name}"), open: false });
    }
    found.sort();
    found.dedup();
    found
}

/// The rules that let the VMs' packets through a chain of iptables's.
fn accepting(chain: &str) -> Vec<Value> {
    let parts: Vec<&str> = chain.split(' ').collect();
    let [family, table, name] = parts[..] else { return Vec::new() };
    let directions: &[&str] = if name == "INPUT" { &["iifname"] } else { &["iifname", "oifname"] };
    let rule = |key: &&str| {
        let ours = json!({ "match": { "op": "==", "left": { "meta": { "key": key } }, "right": NAME } });
        json!({ "insert": { "rule": {
            "family": family, "table": table, "chain": name,
            "expr": [ours, { "accept": null }], "comment": COMMENT,
        } } })
    };
    directions.iter().map(rule).collect()
}

/// Our rules among those that nft lists, as commands that delete them.
fn deleting(listed: &Value) -> Vec<Value> {
    let items = listed["nftables"].as_array().into_iter().flatten();
    let ours = items.filter_map(|item| item.get("rule")).filter(|rule| rule["comment"] == COMMENT);
    ours.map(|rule| {
        json!({ "delete": { "rule": {
            "family": rule["family"], "table": rule["table"], "chain": rule["chain"], "handle": rule["handle"],
        } } })
    })
    .collect()
}

/// Every firewall that could stop the VMs' packets, and whether it lets them through.
pub fn look() -> io::Result<Vec<Firewall>> {
    let mut found = obstacles(&nft::list(&["list", "chains"])?);
    for firewall in &mut found {
        firewall.open = is_open(firewall)?;
    }
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if tables.lines().any(|table| table == "filter") {
        found.push(Firewall { owner: FirewallOwner::Legacy, chain: "filter FORWARD".into(), open: false });
    }
    Ok(found)
}

fn is_open(firewall: &Firewall) -> io::Result<bool> {
    match firewall.owner {
        FirewallOwner::Docker | FirewallOwner::Iptables => {
            let words: Vec<&str> = firewall.chain.split(' ').collect();
            let listed = nft::list(&[&["-a", "list", "chain"], &words[..]].concat())?;
            Ok(!deleting(&listed).is_empty())
        }
        FirewallOwner::Firewalld => Ok(nft::list(&["list", "table", "inet", "firewalld"])?
            .to_string()
            .contains(&format!("\"{NAME}\""))),
        // What an administrator has written is understood by nobody else: an accept of the bridge counts.
        FirewallOwner::Nftables | FirewallOwner::Legacy => {
            let words: Vec<&str> = firewall.chain.split(' ').collect();
            let listed = nft::list(&[&["list", "chain"], &words[..]].concat())?;
            Ok(listed.to_string().contains(&format!("\"{NAME}\"")))
        }
    }
}

/// Opens those that can be opened.
pub fn open() {
    let found = match look() {
        Ok(found) => found,
        Err(error) => return tracing::warn!(%error, "other firewalls cannot be looked at"),
    };
    for firewall in found.into_iter().filter(|firewall| !firewall.open) {
        let opened = match firewall.owner {
            FirewallOwner::Docker | FirewallOwner::Iptables => {
                nft::run(&json!({ "nftables": accepting(&firewall.chain) }))
            }
            FirewallOwner::Firewalld => firewalld("changeZoneOfInterface"),
            FirewallOwner::Nftables | FirewallOwner::Legacy => {
                Err(io::Error::other("it is an administrator's own"))
            }
        };
        match opened {
            Ok(()) => {
                tracing::info!(chain = firewall.chain, "another firewall lets the VMs' packets through")
            }
            Err(error) => tracing::warn!(%error, remedy = firewall.remedy(), "{firewall}"),
        }
    }
}

/// Takes back what [`open`] did.
pub fn close() -> io::Result<()> {
    let listed = nft::list(&["list", "chains"])?;
    let mut firewalld_knows = false;
    for firewall in obstacles(&listed) {
        firewalld_knows |= firewall.owner == FirewallOwner::Firewalld && is_open(&firewall)?;
    }
    if firewalld_knows && let Err(error) = firewalld("removeInterface") {
        tracing::warn!(%error, "firewalld keeps the bridge in its zone");
    }
    // A chain that has meanwhile another policy still has our rules.
    for family in ["ip", "ip6"] {
        if chains(&listed).any(|chain| (chain.family, chain.table) == (family, "filter")) {
            let commands = deleting(&nft::list(&["-a", "list", "table", family, "filter"])?);
            if !commands.is_empty() {
                nft::run(&json!({ "nftables": commands }))?;
            }
        }
    }
    Ok(())
}

/// Asks firewalld, until it ends or is reloaded: its zone for networks that have a judge of their own.
///
/// <https://firewalld.org/documentation/man-pages/firewalld.dbus.html>
fn firewalld(method: &str) -> io::Result<()> {
    let output = Command::new(BUSCTL)
        .args(["--system", "--timeout=5", "--quiet", "call", "org.fedoraproject.FirewallD1"])
        .args([
            "/org/fedoraproject/FirewallD1",
            "org.fedoraproject.FirewallD1.zone",
            method,
            "ss",
            "trusted",
            NAME,
        ])
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(chains: &[(&str, &str, &str, &str, &str)]) -> Value {
        let chain = |(family, table, name, hook, policy): &(&str, &str, &str, &str, &str)| json!({ "chain": { "family": family, "table": table, "name": name, "hook": hook, "policy": policy } });
        json!({ "nftables": chains.iter().map(chain).collect::<Vec<_>>() })
    }

    fn found(chains: &[(&str, &str, &str, &str, &str)]) -> Vec<(FirewallOwner, String)> {
        obstacles(&listed(chains)).into_iter().map(|firewall| (firewall.owner, firewall.chain)).collect()
    }

    #[test]
    fn each_firewall_is_known_by_its_shape() {
        use FirewallOwner::*;
        let docker =
            [("ip", "filter", "FORWARD", "forward", "drop"), ("ip", "filter", "DOCKER-USER", "", "")];
        assert_eq!(found(&docker), [(Docker, "ip filter DOCKER-USER".into())]);
        let ufw =
            [("ip", "filter", "FORWARD", "forward", "drop"), ("ip", "filter", "INPUT", "input", "drop")];
        assert_eq!(
            found(&ufw),
            [(Iptables, "ip filter FORWARD".into()), (Iptables, "ip filter INPUT".into())]
        );
        let firewalld = [("inet", "firewalld", "filter_FORWARD", "forward", "accept")];
        assert_eq!(found(&firewalld), [(Firewalld, "inet firewalld filter_FORWARD".into())]);
        assert_eq!(
            found(&[("inet", "filter", "forward", "forward", "drop")]),
            [(Nftables, "inet filter forward".into())]
        );
        let harmless = [
            ("ip", "filter", "FORWARD", "forward", "accept"),
            ("ip", "nat", "PREROUTING", "prerouting", "accept"),
            ("inet", "banger", "forward", "forward", "drop"),
            ("ip", "filter", "OUTPUT", "output", "drop"),
        ];
        assert_eq!(found(&harmless), []);
    }

    #[test]
    fn only_rules_with_our_comment_are_deleted() {
        let rule = |comment: Option<&str>, handle: u32| json!({ "rule": { "family": "ip", "table": "filter", "chain": "DOCKER-USER", "handle": handle, "comment": comment } });
        let listed = json!({ "nftables": [rule(None, 3), rule(Some(COMMENT), 4), rule(Some("banger"), 5)] });
        let deleted = deleting(&listed);
        assert_eq!(deleted.len(), 1);
        assert_eq!(deleted[0]["delete"]["rule"]["handle"], 4);
    }

    #[test]
    fn what_stays_closed_has_a_remedy() {
        for firewall in obstacles(&listed(&[("inet", "filter", "input", "input", "drop")])) {
            assert!(firewall.remedy().unwrap().contains("banger0"));
        }
    }
}
