//! `banger doctor`, on a host that lacks a resolver, and on one that lacks more.

use crate::support::{ALICE, Vm};
use banger_harness::inside::{banger, busctl, kill_9};
use serde_json::Value;

fn finding(all: &Value, id: &str) -> Value {
    let found = all.as_array().expect("a list").iter().find(|finding| finding["id"] == id);
    found.unwrap_or_else(|| panic!("no {id}: {all:#}")).clone()
}

#[test]
fn it_says_what_works_and_what_to_do() {
    let vm = Vm::start("examined");
    let ran = banger(ALICE, &["doctor", "--format", "json"]);
    let all = ran.json();
    assert!(all.as_array().unwrap().iter().all(|finding| finding["severity"] != "error"), "{ran}");
    let ran = ran.expect(0);
    for id in ["hostd", "polkit", "vmm", "kernel", "state", "network", "firewalls", "forwarding", "dns"] {
        assert_eq!(finding(&all, id)["severity"], "ok", "{ran}");
    }
    assert!(finding(&all, "disks")["found"].as_str().unwrap().contains("no device-mapper"), "{ran}");
    let names = finding(&all, "dns");
    assert!(names["found"].as_str().unwrap().contains(&crate::server::host().to_string()), "{names}");
    vm.remove();

    let text = banger("bob", &["doctor"]).expect(0).text();
    assert!(text.contains("ok") && text.contains("privileged helper: "), "{text}");
}

#[test]
fn every_row_is_of_the_kind_that_is_written_down() {
    let told = busctl(
        ALICE,
        &["org.banger.Manager", "/org/banger/Manager", "org.banger.Manager", "Check", "a{sv}", "0"],
    );
    assert!(told.expect(0).text().starts_with("a(ssssa{sv})"));
    let refused = busctl(
        ALICE,
        &[
            "org.banger.Manager",
            "/org/banger/Manager",
            "org.banger.Manager",
            "Check",
            "a{sv}",
            "1",
            "x",
            "b",
            "true",
        ],
    );
    assert_ne!(refused.code, 0, "an option that is not known");
}

#[test]
fn a_helper_that_was_killed_is_there_again_when_it_is_asked() {
    kill_9("banger-hostd");
    let all = banger(ALICE, &["doctor", "--format", "json"]).json();
    assert_eq!(finding(&all, "hostd")["severity"], "ok", "{all:#}");
}
