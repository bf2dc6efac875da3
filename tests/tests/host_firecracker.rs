//! Host lane: VMs under Firecracker, from the client to its API and back. Where no Firecracker is installed, a stand-in
//! takes its place (`tests/firecracker`): the same rules of the API, the same names in the same place, the real agent; no
//! kernel boots then.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

#[path = "host_main_job/support.rs"]
#[allow(dead_code, reason = "shared with other tests of this lane")]
mod support;

use banger_harness::inside::{Ran, assert_no_residue, banger, eventually, kill_9, kill_vms};
use serde_json::Value;
use std::{fs, os::unix::fs::MetadataExt};
use support::{ALICE, Vm, image, refused, state, vms};

const CONFIG: &str = "/etc/banger/config.toml";

/// The private host insists on emulation. Until this is dropped it does not.
struct WithKvm(String);

impl WithKvm {
    fn new() -> Self {
        let before = fs::read_to_string(CONFIG).unwrap();
        assert!(before.contains("accel = \"tcg\""), "{before}");
        fs::write(CONFIG, before.replace("accel = \"tcg\"", "accel = \"kvm\"")).unwrap();
        kill_9("bangerd");
        Self(before)
    }
}

impl Drop for WithKvm {
    fn drop(&mut self) {
        let _ = fs::write(CONFIG, &self.0);
        kill_9("bangerd");
    }
}

fn start(name: &'static str, more: &[&str]) -> Vm {
    let vm = Vm(name);
    let words = ["vm", "create", "--vmm", "firecracker", "--image", image(), "--name", name];
    banger(ALICE, &[&words[..], more].concat()).expect(0);
    vm
}

fn shown(name: &str) -> Value {
    vms(ALICE).into_iter().find(|vm| vm["name"] == name).expect("the VM is listed")
}

/// Runs a command as the user that the VM's process has: the stand-in's guest can be nobody else.
#[track_caller]
fn exec(vm: &Vm, command: &[&str]) -> Ran {
    let uid = fs::metadata(format!("/proc/{}", shown(vm.0)["pid"])).unwrap().uid();
    let user = format!("{uid}:{uid}");
    banger(ALICE, &[&["exec", "--user", &user, vm.0, "--"], command].concat())
}

#[track_caller]
fn says(vm: &Vm, word: &str) -> bool {
    exec(vm, &["echo", word]).expect(0).text() == format!("{word}\n")
}

#[test]
fn a_vm_lives_under_it_as_under_any_other() {
    let _kvm = WithKvm::new();
    let limits = ["--disk-bytes-per-second", "50M", "--network-bytes-per-second", "10M"];
    let vm = start("burning", &limits);
    assert_eq!((&shown(vm.0)["vmm"], &shown(vm.0)["accel"]), (&"firecracker".into(), &"kvm".into()));
    assert!(says(&vm, "hello"));
    exec(&vm, &["sh", "-c", "exit 42"]).expect(42);
    assert!(
        !banger(ALICE, &["vm", "logs", vm.0]).expect(0).text().is_empty(),
        "its serial port says something"
    );
    let stats = banger(ALICE, &["stats", "--no-stream", "--format", "json", vm.0]).expect(0).json();
    assert!(stats[0]["memory"].as_u64().unwrap() > 0, "{stats}");

    banger(ALICE, &["pause", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    refused(ALICE, &["exec", vm.0, "--", "true"], "WrongState");
    // What the database says may be wrong after the service was killed; the monitor knows.
    kill_9("bangerd");
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    banger(ALICE, &["unpause", vm.0]).expect(0);
    assert!(says(&vm, "again"));

    let pid = shown(vm.0)["pid"].clone();
    for service in ["bangerd", "banger-hostd"] {
        kill_9(service);
        assert!(says(&vm, service));
        assert_eq!(shown(vm.0)["pid"], pid, "{service} is not what keeps it");
    }
    banger(ALICE, &["restart", vm.0]).expect(0);
    assert!(says(&vm, "anew") && shown(vm.0)["pid"] != pid);
    banger(ALICE, &["stop", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    assert_no_residue();
    banger(ALICE, &["start", vm.0]).expect(0);
    banger(ALICE, &["stop", "--force", vm.0]).expect(0);
    vm.remove();
}

#[test]
fn one_that_dies_leaves_nothing() {
    let _kvm = WithKvm::new();
    let vm = start("dying", &[]);
    for killed in [&[][..], &["banger-hostd"], &["banger-hostd", "bangerd"]] {
        for service in killed {
            kill_9(service);
        }
        assert_ne!(kill_vms(), 0);
        eventually("its end is told", || matches!(state(vm.0).as_deref(), Some("failed" | "stopped")));
        // Its TAP was lent, so it did not go with its process.
        assert_no_residue();
        banger(ALICE, &["start", vm.0]).expect(0);
        assert!(says(&vm, "up"));
    }
    vm.remove();
}

#[test]
fn snapshots_are_taken_restored_and_forked() {
    let _kvm = WithKvm::new();
    let vm = start("frozen", &[]);
    banger(ALICE, &["vm", "snapshot", vm.0, "first"]).expect(0);
    let listed = banger(ALICE, &["vm", "snapshots", vm.0, "--format", "json"]).expect(0).json();
    assert_eq!((&listed[0]["name"], &listed[0]["vmm"]), (&"first".into(), &"firecracker".into()));
    assert!(says(&vm, "on"), "it goes on");
    banger(ALICE, &["vm", "restore", vm.0, "first"]).expect(0);
    assert!(says(&vm, "back"));
    banger(ALICE, &["vm", "stop", "--force", vm.0]).expect(0);
    banger(ALICE, &["vm", "restore", vm.0, "first"]).expect(0);
    assert!(says(&vm, "back again"));

    let child = Vm("thawed");
    banger(ALICE, &["vm", "fork", vm.0, child.0]).expect(0);
    assert!(says(&vm, "parent") && says(&child, "child"));
    let (parents, childs) = (shown(vm.0), shown(child.0));
    assert_ne!(parents["addresses"], childs["addresses"]);
    banger(ALICE, &["vm", "rm", "--force", child.0]).expect(0);
    vm.remove();
}

#[test]
fn volumes_come_as_further_drives() {
    let _kvm = WithKvm::new();
    let vm = start("loaded", &["-v", "burned:/data", "-v", "burned-too:/more"]);
    assert!(says(&vm, "with volumes"));
    refused(ALICE, &["vm", "snapshot", vm.0, "never"], "InvalidSpec");
    banger(ALICE, &["vm", "rm", "--force", vm.0]).expect(0);
    banger(ALICE, &["volume", "rm", "burned", "burned-too"]).expect(0);
    assert_no_residue();
    std::mem::forget(vm);
}
