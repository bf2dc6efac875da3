//! A VM's life beyond start and stop: paused, signalled, waited for, changed, started by itself; and what is seen of it.

use crate::support::{ALICE, Vm, image, refused, state};
use banger_harness::inside::{self, banger, client, eventually, kill_9};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

/// Everything that is told of a VM.
#[track_caller]
fn show(vm: &str) -> Value {
    banger(ALICE, &["vm", "show", vm, "--format", "json"]).expect(0).json()[0].clone()
}

fn spawn(args: &[&str]) -> Child {
    let mut command = client(ALICE, args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn output(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_paused_vm_stands_still_and_is_found_so() {
    let vm = Vm::start("standing");
    banger(ALICE, &["pause", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    banger(ALICE, &["pause", vm.0]).expect(0);
    refused(ALICE, &["exec", vm.0, "--", "true"], "WrongState");
    let worked = || {
        let stats = banger(ALICE, &["stats", "--no-stream", "--format", "json", vm.0]).expect(0).json();
        stats[0]["cpu-permille"].as_u64().unwrap()
    };
    assert!(worked() < 100, "its processors stand still");
    // What the database says may be wrong after the service was killed; the monitor knows.
    kill_9("bangerd");
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    banger(ALICE, &["unpause", vm.0]).expect(0);
    vm.exec(&["true"]).expect(0);
    kill_9("bangerd");
    let id = show(vm.0)["id"].as_str().unwrap().to_owned();
    kill_9("bangerd");
    let mut monitor = UnixStream::connect(format!("/run/banger/vm/{id}/qmp.sock")).unwrap();
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"stop\"}\n").unwrap();
    let mut lines = BufReader::new(monitor.try_clone().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"STOP\""))).unwrap().unwrap();
    drop((lines, monitor));
    assert_eq!(state(vm.0).as_deref(), Some("paused"));
    // A stop lets it run again, so that it can shut itself down.
    banger(ALICE, &["stop", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    vm.remove();
}

#[test]
fn a_vm_ends_with_its_command_and_tells_how() {
    let vm = Vm("ending");
    let script = "trap 'exit 42' TERM; echo it is up; while :; do sleep 1; done";
    banger(ALICE, &["run", "-d", "--name", vm.0, image(), "--", "sh", "-c", script]).expect(0);
    let waiting = spawn(&["wait", vm.0]);
    eventually("the command is up", || {
        banger(ALICE, &["logs", vm.0]).text().lines().any(|line| line.trim() == "it is up")
    });
    refused(ALICE, &["kill", "--signal", "TERM", "nobody"], "NotFound");
    banger(ALICE, &["kill", "--signal", "TERM", vm.0]).expect(0);
    assert_eq!(output(waiting).1, "42\n");
    let shown = show(vm.0);
    assert_eq!((&shown["state"], &shown["exit-code"]), (&"stopped".into(), &42.into()));
    assert_eq!(banger(ALICE, &["wait", vm.0]).expect(0).text(), "42\n", "and who asks later hears it too");
    refused(ALICE, &["kill", "--signal", "TERM", vm.0], "WrongState");
    vm.remove();

    let gone = Vm("vanishing");
    banger(ALICE, &["run", "-d", "--rm", "--name", gone.0, image(), "--", "sh", "-c", "sleep 1; exit 7"])
        .expect(0);
    let waited = output(spawn(&["wait", gone.0]));
    // It may have been gone before it was asked for.
    assert!(waited.1 == "7\n" || waited.2.contains("no VM"), "{waited:?}");
    eventually("it removed itself", || state(gone.0).is_none());
}

#[test]
fn what_fails_starts_again_until_somebody_stops_it() {
    let vm = Vm("stubborn");
    let script = "test -e /twice && exec sleep 1000; touch /twice; sync; exit 3";
    let run = ["run", "-d", "--restart", "on-failure", "--name", vm.0, image(), "--", "sh", "-c", script];
    banger(ALICE, &run).expect(0);
    let started = || show(vm.0)["started"].as_u64().unwrap_or(0);
    eventually("it runs the second time", || {
        state(vm.0).as_deref() == Some("running") && vm.exec(&["ls", "/twice"]).code == 0
    });
    let before = started();
    assert_ne!(inside::kill_vms(), 0);
    eventually("it runs again after its monitor was killed", || {
        state(vm.0).as_deref() == Some("running") && started() > before
    });
    banger(ALICE, &["stop", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    // A service that starts again on the same boot of the host leaves alone what somebody stopped.
    kill_9("bangerd");
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    let asked = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
    assert!(asked.as_array().unwrap().iter().all(|job| job["kind"] != "start-vm"), "{asked}");
    vm.remove();
    refused(ALICE, &["run", "-d", "--rm", "--restart", "always", image(), "--", "true"], "InvalidSpec");
}

#[test]
fn autostart_means_with_each_boot_of_the_host() {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    let vm = Vm("early");
    banger(ALICE, &["vm", "create", "--no-start", "--autostart", "--image", image(), "--name", vm.0])
        .expect(0);
    kill_9("bangerd");
    assert_eq!(state(vm.0).as_deref(), Some("created"), "the same boot");
    // As far as the service can tell, the host was booted.
    let other = inside::state().join("boot-id");
    fs::write(&other, "00000000-0000-4000-8000-000000000001\n").unwrap();
    fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let none: Option<&str> = None;
    mount(Some(&other), BOOT, none, MsFlags::MS_BIND, none).unwrap();
    kill_9("bangerd");
    let seen = std::panic::catch_unwind(|| {
        eventually("it starts with the host", || state(vm.0).as_deref() == Some("running"));
    });
    umount2(BOOT, MntFlags::MNT_DETACH).unwrap();
    seen.unwrap();
    vm.remove();
}

#[test]
fn a_vm_is_changed_and_says_what_waits_for_its_next_start() {
    let vm = Vm::start("before");
    let asked = banger(ALICE, &["set", "--cpus", "2", "--disk", "2G", "--idle-stop", "1d", vm.0]).expect(0);
    assert!(asked.errors().contains("next start on: cpus, disk"), "{asked}");
    refused(ALICE, &["set", "--disk", "1G", vm.0], "InvalidSpec");
    refused(ALICE, &["set", "--memory", "1M", vm.0], "InvalidSpec");
    refused("bob", &["set", "--memory", "256M", vm.0], "NotFound");
    let after = Vm("after");
    banger(ALICE, &["rename", vm.0, after.0]).expect(0);
    std::mem::forget(vm);
    assert_eq!(state("before"), None);
    banger(ALICE, &["restart", after.0]).expect(0);
    let seen = after.exec(&["/bin/busybox", "nproc"]).expect(0).text();
    assert_eq!(seen.trim(), "2");
    assert_eq!(after.exec(&["hostname"]).expect(0).text().trim(), after.0);
    let size = after.exec(&["/bin/busybox", "df", "-m", "/"]).expect(0).text();
    let megabytes: u64 = size.split_whitespace().rev().nth(4).and_then(|n| n.parse().ok()).unwrap();
    assert!(megabytes > 1800, "{size}");
    assert_eq!(show(after.0)["idle-stop"], 86_400);
    after.remove();
}

#[test]
fn a_vm_that_nobody_uses_is_stopped() {
    let vm = Vm("idle");
    banger(ALICE, &["run", "-d", "--idle-stop", "8", "--name", vm.0, image(), "--", "sleep", "1000"])
        .expect(0);
    // Who has a command in it uses it.
    banger(ALICE, &["exec", vm.0, "--", "sleep", "12"]).expect(0);
    eventually("it is stopped", || state(vm.0).as_deref() == Some("stopped"));
    vm.remove();
}

#[test]
fn a_stop_is_bounded_for_a_guest_whose_agent_hangs() {
    let vm = Vm::start("hanging");
    // The agent is the second process of that name, and stops itself by this: the client has no answer.
    let script = "for p in $(/bin/busybox pidof banger-guest); do test $p = 1 || kill -STOP $p; done";
    let mut asking = spawn(&["exec", vm.0, "--", "sh", "-c", script]);
    eventually("its agent is stopped", || show(vm.0)["listening"].is_null());
    banger(ALICE, &["stop", "--timeout", "30", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    asking.wait().unwrap();
    vm.remove();
}

#[test]
fn the_second_of_two_starts_comes_to_what_the_first_does() {
    let vm = Vm("twice");
    banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", vm.0]).expect(0);
    let (one, two) = (spawn(&["start", vm.0]), spawn(&["start", vm.0]));
    assert_eq!((output(one).0, output(two).0), (0, 0));
    assert_eq!(inside::vm_pids().len(), 1);
    banger(ALICE, &["stop", vm.0]).expect(0);
    let disk = format!("/var/lib/banger/vms/{}/disk.img", show(vm.0)["id"].as_str().unwrap());
    let file = fs::File::options().write(true).open(disk).unwrap();
    file.write_all_at(&[0; 64 << 10], 0).unwrap();
    let (one, two) = (spawn(&["--verbose", "start", vm.0]), spawn(&["--verbose", "start", vm.0]));
    let (one, two) = (output(one), output(two));
    assert_eq!((one.0, two.0), (125, 125), "{one:?} {two:?}");
    assert!(one.2.contains("VMMFailed") && two.2.contains("VMMFailed"), "{one:?} {two:?}");
    vm.remove();
}

#[test]
fn the_log_is_followed_to_the_end() {
    let vm = Vm::start("talking");
    let following = spawn(&["logs", "-f", "-n", "9", vm.0]);
    for n in 0..5 {
        vm.exec(&["sh", "-c", &format!("echo word {n} > /dev/console")]).expect(0);
    }
    banger(ALICE, &["stop", vm.0]).expect(0);
    let (code, said, _) = output(following);
    assert!(code == 0 && said.contains("word 4"), "{said}");
    let all = banger(ALICE, &["vm", "logs", vm.0]).expect(0).text();
    let spoken = all.lines().filter(|line| line.starts_with("word ")).count();
    assert_eq!(spoken, 5, "{all}");
    let last = banger(ALICE, &["logs", "--tail", "1", vm.0]).expect(0).text();
    assert!(last.lines().count() == 1 && all.trim_end().ends_with(last.trim_end()), "{last:?}");
    vm.remove();
}

#[test]
fn ports_figures_and_phases_are_seen() {
    let vm = Vm::start("seen");
    let mut listening = client(ALICE, &["exec", vm.0, "--", "/bin/busybox", "nc", "-l", "-p", "7000"]);
    let mut listening = listening.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the port is told", || {
        let ports = banger(ALICE, &["vm", "ports", vm.0, "--format", "json"]).expect(0).json();
        ports.as_array().unwrap().iter().any(|port| port.as_str().unwrap().ends_with(":7000"))
    });
    let mut sending = client(ALICE, &["vm", "connect", vm.0, "7000"]);
    let mut sending = sending.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    sending.stdin.take().unwrap().write_all(b"over the agent\n").unwrap();
    let mut heard = String::new();
    listening.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "over the agent\n");
    assert!(sending.wait().unwrap().success() && listening.wait().unwrap().success());
    refused(ALICE, &["vm", "connect", vm.0, "7001"], "GuestUnreachable");
    refused("bob", &["vm", "connect", vm.0, "7000"], "NotFound");

    let stats = banger(ALICE, &["stats", "--no-stream", "--format", "json"]).expect(0).json();
    let figure = |name: &str| stats[0][name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"));
    for name in ["cpu-time", "memory", "read", "guest-uptime", "guest-memory", "guest-disk", "guest-tasks"] {
        assert!(figure(name) > 0, "{name} of {stats}");
    }
    assert!(figure("guest-memory") > figure("guest-memory-available"), "{stats}");
    let shown = show(vm.0);
    let boot = shown["boot"].as_array().unwrap();
    let phases: Vec<&str> = boot.iter().map(|phase| phase[0].as_str().unwrap()).collect();
    assert_eq!(phases, ["kernel", "initramfs", "root", "network", "init", "agent"], "{shown}");
    assert!(boot.windows(2).all(|two| two[0][1].as_u64() <= two[1][1].as_u64()), "{shown}");
    assert!(shown["uptime"].is_u64(), "{shown}");
    vm.remove();
}

#[test]
fn events_are_told_as_they_happen() {
    let mut child = client("bob", &["events", "--format", "json"]);
    let mut child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (all, from) = (seen.clone(), BufReader::new(child.stdout.take().unwrap()));
    let reader = std::thread::spawn(move || {
        for line in from.lines().map_while(Result::ok) {
            all.lock().unwrap().push(serde_json::from_str(&line).expect("a JSON object a line"));
        }
    });
    let told = |kind: &str, event: &str, key: &str, value: &str| {
        let is = |it: &Value| it["kind"] == kind && it["event"] == event && it[key] == value;
        seen.lock().unwrap().iter().any(is)
    };
    // Nobody tells when the subscription is there.
    eventually("a subscription", || {
        banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", "herald"]).expect(0);
        banger(ALICE, &["vm", "rm", "herald"]).expect(0);
        told("vm", "removed", "name", "herald")
    });
    let vm = Vm::start("told");
    banger(ALICE, &["pause", vm.0]).expect(0);
    banger(ALICE, &["rename", vm.0, "retold"]).expect(0);
    std::mem::forget(vm);
    Vm("retold").remove();
    eventually("all of it", || {
        told("vm", "added", "name", "told")
            && ["starting", "running", "paused"].iter().all(|state| told("vm", "state", "state", state))
            && told("vm", "name", "name", "retold")
            && told("vm", "removed", "name", "retold")
            && told("job", "added", "name", "pause-vm told")
    });
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
}
