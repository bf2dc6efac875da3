//! Operations side by side, and one after the other on one VM.

use crate::support::{ALICE, Vm, image, state, vms};
use banger_harness::inside::{self, assert_no_residue, banger, busctl, client, eventually};
use serde_json::Value;
use std::process::{Child, Stdio};

fn spawn(args: &[&str]) -> Child {
    let mut command = client(ALICE, args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn code(mut child: Child) -> i32 {
    child.wait().unwrap().code().unwrap_or(-1)
}

/// Begins something with a VM, without waiting for its job.
#[track_caller]
fn call(vm: &Value, method: &str) {
    let path = format!("/org/banger/VM/{}", vm["id"].as_str().unwrap());
    busctl(ALICE, &["org.banger.Manager", &path, "org.banger.VM", method, "a{sv}", "0"]).expect(0);
}

/// Jobs of this kind that are under way.
fn under_way(kind: &str) -> usize {
    let jobs = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
    let open = |job: &&Value| job["kind"] == kind && (job["state"] == "running" || job["state"] == "queued");
    jobs.as_array().unwrap().iter().filter(open).count()
}

#[test]
fn ten_operations_on_ten_vms_run_at_once() {
    let names: Vec<String> = (0..10).map(|number| format!("side-{number}")).collect();
    for name in &names {
        banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", name]).expect(0);
    }
    // Nobody waits for anybody: each call comes back when its job has begun, long before a guest is up.
    for vm in vms(ALICE) {
        call(&vm, "Start");
    }
    assert_eq!(under_way("start-vm"), 10);
    eventually("ten VMs have a process at the same time", || inside::vm_pids().len() == 10);
    for name in &names {
        // A second start comes to what the first does.
        banger(ALICE, &["start", name]).expect(0);
    }
    assert!(vms(ALICE).iter().all(|vm| vm["state"] == "running"));
    let stops: Vec<Child> = names.iter().map(|name| spawn(&["stop", name])).collect();
    assert!(stops.into_iter().map(code).all(|code| code == 0));
    let removals: Vec<Child> = names.iter().map(|name| spawn(&["rm", name])).collect();
    assert!(removals.into_iter().map(code).all(|code| code == 0));
    assert_no_residue();
}

#[test]
fn operations_on_one_vm_are_ordered() {
    let vm = Vm::start("ordered");
    let before = inside::vm_pids();
    // The calls come back at once; what they began comes one after the other.
    for method in ["Stop", "Start", "Pause", "Resume", "Pause"] {
        call(&vms(ALICE)[0], method);
    }
    let quiet = || ["stop-vm", "start-vm", "pause-vm", "resume-vm"].iter().all(|kind| under_way(kind) == 0);
    eventually("all is done", quiet);
    let after = inside::vm_pids();
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    vm.remove();
    assert_no_residue();
}

#[test]
fn a_vm_that_goes_when_it_stops_stays_through_a_restart() {
    let vm = Vm("fleeting");
    let flags = ["run", "-d", "--rm", "--name", vm.0, image(), "--", "sleep", "1000"];
    banger(ALICE, &flags).expect(0);
    let before = inside::vm_pids();
    banger(ALICE, &["restart", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("running"));
    assert_ne!(inside::vm_pids(), before);
    banger(ALICE, &["stop", vm.0]).expect(0);
    assert_eq!(state(vm.0), None);
    assert_no_residue();
}

#[test]
fn what_a_vm_may_on_the_network_is_changed_while_it_runs() {
    let vm = Vm::start("reaching");
    let set = |flags: &[&str]| banger(ALICE, &[&["vm", "set"], flags, &[vm.0]].concat());
    let shown = || banger(ALICE, &["vm", "show", vm.0, "--format", "json"]).expect(0).json()[0].clone();
    set(&["-p", "18080:80", "-p", "18443:443"]).expect(0);
    assert_eq!(shown()["ports"].as_array().unwrap().len(), 2);
    set(&["-p", "18443:443"]).expect(0);
    assert_eq!(shown()["ports"].as_array().unwrap().len(), 1);
    let told = set(&["--nat", "--network", "shared"]).expect(0);
    assert!(told.errors().contains("from the next start on: name-servers"), "{told}");
    assert_eq!((shown()["nat"].clone(), shown()["network"].clone()), (true.into(), "shared".into()));
    // Everything or nothing: the second port is one of those that take more than a VM does.
    let ran = banger("bob", &["vm", "set", "-p", "18080:80", vm.0]);
    assert_ne!(ran.code, 0, "it is alice's: {ran}");
    let before = shown();
    set(&["--cpus", "2", "-p", "18443:443", "-p", "127.0.0.1:18443:80"]).expect(125);
    assert_eq!(shown(), before);
    set(&["--nat=false", "--network", "private"]).expect(0);
    assert_eq!((shown()["nat"].clone(), shown()["network"].clone()), (false.into(), "private".into()));
    vm.remove();
    assert_no_residue();
}
