//! Jobs: progress, being cancelled, and the commands about them.

use crate::bus::Bus;
use rustix::process::Signal;
use std::io::BufRead;

/// Reads the client's errors until a line holds `text`.
fn wait_for(stderr: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended without {text:?}");
    }
}

#[test]
fn a_pipe_gets_a_line_per_phase_and_quiet_none() {
    let bus = Bus::new();
    let ran = bus.banger(&["image", "pull", "127.0.0.1:5000/x", "--name", "x"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "x\n"));
    let lines: Vec<&str> = ran.err.lines().collect();
    let expected =
        ["pulling 50 MiB of 100 MiB (50%)", "publishing"].map(|what| format!("127.0.0.1:5000/x: {what}"));
    assert!(lines.ends_with(&[&expected[0], &expected[1]]), "{lines:?}");
    let ran = bus.banger(&["-q", "image", "pull", "127.0.0.1:5000/y", "--name", "y"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("y\n", ""));
}

#[test]
fn ctrl_c_cancels_the_job_and_waits_for_its_end() {
    let bus = Bus::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut running = bus.start(&["image", "pull", "slow"]);
        wait_for(&mut running.stderr, "pulling");
        running.signal(signal);
        let ran = running.end();
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{ran:?}");
        assert!(!ran.err.contains("Error"), "{}", ran.err);
    }
    let cancels = bus.state().calls().iter().filter(|call| *call == "Cancel slow").count();
    assert_eq!(cancels, 3);
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let bus = Bus::new();
    let mut running = bus.start(&["image", "pull", "stubborn"]);
    wait_for(&mut running.stderr, "pulling");
    running.signal(Signal::INT);
    wait_for(&mut running.stderr, "once more leaves at once");
    running.signal(Signal::INT);
    assert_eq!(running.end().code, 130);
    bus.state().call("Cancel stubborn");
}

#[test]
fn ctrl_c_while_a_vm_is_made_leaves_none() {
    let bus = Bus::new();
    let mut running = bus.start(&["run", "--rm", "--name", "slow", "debian", "true"]);
    wait_for(&mut running.stderr, "slow: ");
    running.signal(Signal::INT);
    assert_eq!(running.end().code, 130);
    bus.state().call("Cancel slow");
    bus.state().call("Delete slow");
    assert!(bus.state().vms().is_empty());
}

#[test]
fn signals_go_to_the_command_that_is_attached() {
    let bus = Bus::new();
    let script = "trap 'echo got; exit 7' INT; echo ready >&2; while :; do sleep 0.05; done";
    let mut running = bus.start(&["run", "--rm", "-q", "debian", "sh", "-c", script]);
    wait_for(&mut running.stderr, "ready");
    running.signal(Signal::INT);
    let ran = running.end();
    assert_eq!((ran.code, ran.out.as_str()), (7, "got\n"));
    assert!(bus.state().vms().is_empty());
    let mut running =
        bus.start(&["run", "--rm", "-q", "debian", "sh", "-c", "echo ready >&2; exec sleep 1000"]);
    wait_for(&mut running.stderr, "ready");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 143);
}

#[test]
fn who_insists_leaves_a_command_that_does_not() {
    let bus = Bus::new();
    let script = "trap 'echo no >&2' INT; echo ready >&2; while :; do sleep 0.05; done";
    let mut running = bus.start(&["run", "--rm", "-q", "debian", "sh", "-c", script]);
    wait_for(&mut running.stderr, "ready");
    for _ in 0..2 {
        running.signal(Signal::INT);
        wait_for(&mut running.stderr, "no");
    }
    running.signal(Signal::INT);
    let status = running.child.wait().unwrap();
    assert_eq!(crate::bus::code(status), 130);
    assert!(bus.state().vms().is_empty(), "--rm even then");
}

#[test]
fn a_jobs_own_error_is_the_clients() {
    let bus = Bus::new();
    let error = bus.banger(&["-q", "image", "pull", "denied"]).failed(125);
    assert_eq!(error, "Error: the registry refuses\n");
    let error = bus.banger(&["-v", "-q", "image", "pull", "denied"]).failed(125);
    assert_eq!(error, "Error: the registry refuses\n  (org.banger.Error.RegistryDenied)\n");
}

#[test]
fn jobs_are_listed_watched_and_cancelled() {
    let bus = Bus::new();
    let mut running = bus.start(&["image", "pull", "slow"]);
    wait_for(&mut running.stderr, "pulling");
    let jobs = bus.banger(&["job", "ls", "--format", "json"]).json();
    assert_eq!((&jobs[0]["kind"], &jobs[0]["subject"]), (&"pull-image".into(), &"slow".into()));
    let id = jobs[0]["id"].as_str().unwrap();
    let table = bus.banger(&["job", "ls"]).ok();
    assert!(table.starts_with("ID ") && table.contains("asking the registry"), "{table}");

    let mut watching = bus.start(&["job", "watch", id]);
    wait_for(&mut watching.stderr, "pull-image slow: ");
    bus.banger(&["job", "cancel", id]).ok();
    let error = watching.end().failed(125);
    assert!(error.contains("slow was cancelled"), "{error}");
    let error = running.end().failed(125);
    assert!(error.contains("slow was cancelled"), "somebody else did it: {error}");

    let error = bus.banger(&["job", "cancel", "ffff"]).failed(125);
    assert!(error.contains("banger job ls"), "{error}");
}

#[test]
fn an_ambiguous_job_is_not_guessed() {
    let bus = Bus::new();
    for name in ["a", "b"] {
        bus.banger(&["-q", "image", "pull", name]).ok();
    }
    let error = bus.banger(&["job", "cancel", "abcd"]).failed(125);
    assert!(error.contains("fits 2 jobs"), "{error}");
}

#[test]
fn watching_all_jobs_ends_with_ctrl_c_and_cancels_none() {
    let bus = Bus::new();
    let mut pulling = bus.start(&["image", "pull", "slow"]);
    wait_for(&mut pulling.stderr, "pulling");
    let mut watching = bus.start(&["job", "watch"]);
    let mut line = String::new();
    watching.stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "pull-image slow: asking the registry\n");
    watching.signal(Signal::INT);
    assert_eq!(watching.end().code, 0);
    assert!(!bus.state().calls().contains(&"Cancel slow".to_owned()));
    pulling.signal(Signal::INT);
    assert_eq!(pulling.end().code, 130);
}
