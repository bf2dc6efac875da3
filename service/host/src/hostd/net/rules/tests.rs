//! The rules as text that nft understands, and what must be in them. That packets obey is for tests with packets.

use super::*;
use std::process::{Command, Stdio};

fn guest(number: u16, mode: NetworkMode, nat: bool, ports: &[&str]) -> Guest {
    let ports = ports.iter().map(|port| port.parse().unwrap()).collect();
    Guest {
        slot: Slot::try_from(number).unwrap(),
        tap: format!("bngr{number}"),
        index: 100 + u32::from(number),
        rules: NetworkRules { mode, nat, ports },
    }
}

fn subnet() -> Subnet {
    Subnet::choose(None, &[], 7).unwrap()
}

fn replace(subnet: &Subnet, guests: &[Guest], guarded: &Guarded) -> Value {
    Rules::new(subnet, guests, guarded).replace()
}

fn guests() -> [Guest; 3] {
    [
        guest(0, NetworkMode::Private, false, &[]),
        guest(
            1,
            NetworkMode::Shared,
            true,
            &["8080:80", "0.0.0.0:53:53/udp", "[::]:8443:443", "192.0.2.1:25:25"],
        ),
        guest(2, NetworkMode::Shared, false, &["[2001:db8::1]:80:80"]),
    ]
}

fn guarded() -> Guarded {
    Guarded { v4: ["eth0".into(), "wlan0".into()].into(), v6: true }
}

fn everything() -> Value {
    replace(&subnet(), &guests(), &guarded())
}

/// The rules with these guests, without ports.
fn rules(guests: &[Guest]) -> Rules {
    Rules::new(&subnet(), guests, &guarded())
}

#[test]
fn a_vm_more_or_less_costs_the_same_however_many_there_are() {
    let many: Vec<Guest> = (0..100).map(|number| guest(number, NetworkMode::Private, true, &[])).collect();
    let come = |before: &[Guest], after: &[Guest]| rules(after).change(&rules(before)).unwrap();
    assert_eq!(come(&many[..99], &many).len(), come(&[], &many[..1]).len());
    assert_eq!(come(&many, &many[..99]).len(), come(&many[..1], &[]).len());
    assert_eq!(come(&many, &many), Vec::<Value>::new());
    // What a VM may is changed without what it is.
    let closed = [guest(0, NetworkMode::Private, false, &[])];
    let words: Vec<String> = come(&closed, &many[..1]).iter().map(Value::to_string).collect();
    assert!(words.len() == 2 && words.iter().all(|word| word.contains("nat")), "{words:?}");
}

#[test]
fn a_change_that_is_no_element_is_a_replacement() {
    let [one, published, _] = guests();
    assert_eq!(rules(&[one.clone(), published]).change(&rules(std::slice::from_ref(&one))), None);
    let unguarded = Rules::new(&subnet(), std::slice::from_ref(&one), &Guarded::default());
    assert_eq!(rules(&[one]).change(&unguarded), None);
}

#[test]
fn nft_understands_all_of_it() {
    let nft = "/usr/sbin/nft";
    if !std::path::Path::new(nft).exists() {
        eprintln!("there is no nft here: the host lane looks at it");
        return;
    }
    for commands in [everything(), replace(&subnet(), &[], &Guarded::default()), remove()] {
        // Checked and not carried out; in a network of its own where that can be had, or else not at all.
        let mut child = Command::new("/usr/bin/unshare")
            .args(["--user", "--map-root-user", "--net", nft, "-c", "-j", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), commands.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.starts_with("unshare:") {
            eprintln!("no namespaces here: the host lane looks at it");
            return;
        }
        assert!(output.status.success(), "{errors}\n{commands}");
    }
}

/// The rules of a chain.
fn chain(commands: &Value, family: &str, name: &str) -> Vec<String> {
    let all =
        commands["nftables"].as_array().unwrap().iter().filter_map(|command| command["add"].get("rule"));
    let own = all.filter(|rule| rule["family"] == family && rule["chain"] == name);
    own.map(|rule| rule["expr"].to_string()).collect()
}

#[test]
fn nothing_of_an_unknown_vm_passes() {
    for commands in [everything(), replace(&subnet(), &[], &Guarded::default())] {
        for (family, name, last) in [
            ("bridge", "source", "drop"),
            ("bridge", "v6", "drop"),
            ("bridge", "between", "drop"),
            ("inet", "from-vm", "reject"),
            ("inet", "to-vm", "drop"),
            ("inet", "to-host", "reject"),
        ] {
            let rules = chain(&commands, family, name);
            let end = rules.last().unwrap();
            assert!(end.contains(&format!("\"{last}\"")), "{family} {name}: {end}");
        }
    }
}

#[test]
fn loopback_ports_are_for_this_host_alone() {
    let commands = everything();
    let published = |name| {
        chain(&commands, "inet", name).into_iter().filter(|rule| rule.contains("dnat")).collect::<Vec<_>>()
    };
    assert_eq!(published("output").len(), 5);
    let outside = published("prerouting");
    assert_eq!(outside.len(), 4);
    assert!(outside.iter().all(|rule| !rule.contains("127.0.0.1") && rule.contains("banger0")));
}

#[test]
fn a_table_is_replaced_whatever_was_there() {
    let commands = everything();
    let words: Vec<String> = commands["nftables"].as_array().unwrap()[..4]
        .iter()
        .map(|one| {
            let (verb, what) = one.as_object().unwrap().iter().next().unwrap();
            format!("{verb} {}", what["table"]["family"].as_str().unwrap())
        })
        .collect();
    assert_eq!(words, ["add bridge", "delete bridge", "add inet", "delete inet"]);
}
