//! What systemd-resolved is told, by one that only writes it down.

use crate::support::{ALICE, Vm};
use banger_harness::inside::{banger, eventually, kill_9, run};
use std::{
    process::Command,
    sync::{Arc, Mutex},
};
use zbus::{Connection, connection::Builder, fdo};

type Calls = Arc<Mutex<Vec<String>>>;

/// The part of systemd-resolved's interface that links are configured by.
struct Scripted {
    calls: Calls,
}

impl Scripted {
    fn heard(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl Scripted {
    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, link: i32, servers: Vec<(i32, Vec<u8>, u16, String)>) -> fdo::Result<()> {
        let told: Vec<_> = servers
            .iter()
            .map(|(family, address, port, _)| format!("{family}/{}/{port}", address.len()))
            .collect();
        self.heard(format!("dns {link} {}", told.join(" ")));
        Ok(())
    }

    fn set_link_domains(&self, link: i32, domains: Vec<(String, bool)>) -> fdo::Result<()> {
        let routed = domains.iter().all(|(_, only_routes)| *only_routes);
        let names: Vec<_> = domains.into_iter().map(|(name, _)| name).collect();
        self.heard(format!("domains {link} {routed} {}", names.join(" ")));
        Ok(())
    }

    fn set_link_default_route(&self, link: i32, enable: bool) -> fdo::Result<()> {
        self.heard(format!("default {link} {enable}"));
        Ok(())
    }

    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, link: i32, mode: &str) -> fdo::Result<()> {
        self.heard(format!("llmnr {link} {mode}"));
        Ok(())
    }

    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, link: i32, mode: &str) -> fdo::Result<()> {
        self.heard(format!("mdns {link} {mode}"));
        Ok(())
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, link: i32, mode: &str) -> fdo::Result<()> {
        self.heard(format!("tls {link} {mode}"));
        Ok(())
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, link: i32, mode: &str) -> fdo::Result<()> {
        self.heard(format!("dnssec {link} {mode}"));
        Ok(())
    }

    fn revert_link(&self, link: i32) -> fdo::Result<()> {
        self.heard(format!("revert {link}"));
        Ok(())
    }
}

/// A resolver on the bus, until dropped.
struct Resolver {
    calls: Calls,
    _bus: Connection,
}

async fn start() -> Resolver {
    let calls = Calls::default();
    let bus = Builder::system()
        .serve_at("/org/freedesktop/resolve1", Scripted { calls: calls.clone() })
        .name("org.freedesktop.resolve1")
        .build()
        .await
        .unwrap();
    Resolver { calls, _bus: bus }
}

impl Resolver {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits until it was told of servers, and takes what it heard.
    fn await_told(&self, what: &str) -> Vec<String> {
        eventually(what, || self.calls().iter().any(|call| call.starts_with("dns ")));
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

/// The bridge's number, as this network namespace has it.
fn link() -> String {
    let mut ip = Command::new("/usr/sbin/ip");
    ip.args(["-o", "link", "show", "dev", "banger0"]);
    let told = run(ip, b"").expect(0).text();
    told.split(':').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resolver_is_told_again_whenever_it_has_to_be_and_at_last_to_forget() {
    let vm = Vm::start("routed");
    let resolver = start().await;
    let told = resolver.await_told("a resolver that has come is told");
    let link = link();
    assert!(told.contains(&format!("dns {link} 2/4/53 10/16/53")), "{told:?}");
    let domains = told.iter().find(|call| call.starts_with("domains ")).unwrap();
    assert!(domains.starts_with(&format!("domains {link} true vm ")), "{domains}");
    assert!(domains.contains(".in-addr.arpa") && domains.contains(".ip6.arpa"), "{domains}");
    for expected in ["default", "llmnr", "mdns", "tls", "dnssec"] {
        let value = if expected == "default" { "false" } else { "no" };
        assert!(told.contains(&format!("{expected} {link} {value}")), "{expected}: {told:?}");
    }
    let doctor = banger(ALICE, &["doctor", "--format", "json"]).json();
    let own = doctor.as_array().unwrap().iter().find(|finding| finding["id"] == "resolver").unwrap().clone();
    assert_eq!(own["severity"], "ok", "{own}");

    drop(resolver);
    let resolver = start().await;
    resolver.await_told("a resolver that was started again is told again");

    kill_9("banger-hostd");
    resolver.await_told("a helper that was started again tells it again");

    let before = resolver.calls().len();
    kill_9("bangerd");
    eventually("without a service nothing is routed", || {
        resolver.calls()[before..].contains(&format!("revert {link}"))
    });
    resolver.calls.lock().unwrap().clear();
    banger(ALICE, &["vm", "ls"]).expect(0);
    resolver.await_told("the next service is routed to again");
    vm.remove();
}

#[test]
fn where_there_is_no_resolver_it_is_said_what_to_do() {
    let doctor = banger(ALICE, &["doctor", "--format", "json"]).json();
    let own = doctor.as_array().unwrap().iter().find(|finding| finding["id"] == "resolver").unwrap().clone();
    // Another scenario may be a resolver at this moment.
    if own["severity"] == "warning" {
        let remedy = own["remedy"].as_str().unwrap();
        assert!(remedy.contains("systemd-resolved") && remedy.contains("server=/vm/"), "{own}");
    }
}
