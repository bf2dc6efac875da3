//! Services and hosts that end, with VMs running.

use crate::host::{alice, answers, root, shown, start, state, systemctl};
use banger_harness::inside::{eventually, kill_9};

/// In order and by force, one after the other and both at once.
pub fn services_end() {
    start("stays", &[]);
    let pid = shown("stays")["pid"].clone();
    // Each time its guest has another host to talk to.
    for _ in 0..10 {
        systemctl(&["reset-failed", "bangerd.service"]).expect(0);
        systemctl(&["restart", "bangerd.service"]).expect(0);
        answers("stays");
    }
    systemctl(&["restart", "banger-hostd.service"]).expect(0);
    answers("stays");
    for services in [&["bangerd"][..], &["banger-hostd"], &["banger-hostd", "bangerd"]] {
        for service in services {
            kill_9(service);
        }
        eventually("the service answers", || root(&["vm", "ls"]).code == 0);
        answers("stays");
        assert_eq!(shown("stays")["pid"], pid, "{services:?} are not what keeps it");
    }
    alice(&["vm", "stop", "stays"]).expect(0);
    alice(&["vm", "rm", "stays"]).expect(0);
}

/// While the service is stopped its VM runs on, and it is known afterwards.
pub fn stops_and_starts() {
    start("waits", &[]);
    let pid = shown("waits")["pid"].clone();
    systemctl(&["stop", "bangerd.service", "banger-hostd.service", "banger-hostd.socket"]).expect(0);
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it runs on");
    systemctl(&["start", "banger-hostd.socket", "bangerd.service"]).expect(0);
    answers("waits");
    assert_eq!(shown("waits")["pid"], pid);
    alice(&["vm", "rm", "--force", "waits"]).expect(0);
}

/// One that is to start with the host, and one that is not.
pub fn before_reboot() {
    start("with-host", &["--autostart"]);
    start("without", &[]);
    alice(&["exec", "with-host", "--", "sh", "-c", "echo kept > /root/file; sync"]).expect(0);
}

/// Each is what it says, and nothing is left of what ran before.
pub fn after_reboot() {
    eventually("it has started with the host", || state("with-host") == "running");
    assert_eq!(state("without"), "stopped");
    assert_eq!(alice(&["exec", "with-host", "--", "cat", "/root/file"]).expect(0).text(), "kept\n");
    alice(&["vm", "start", "without"]).expect(0);
    answers("without");
    for vm in ["with-host", "without"] {
        alice(&["vm", "rm", "--force", vm]).expect(0);
    }
}

/// One that runs and has written, one that is paused, one that is stopped, and one that is to come again.
pub fn before_power_cut() {
    for vm in ["runs", "sleeps", "stopped"] {
        start(vm, &[]);
    }
    start("again", &["--autostart"]);
    alice(&["exec", "runs", "--", "sh", "-c", "echo kept > /root/file; sync"]).expect(0);
    alice(&["pause", "sleeps"]).expect(0);
    alice(&["vm", "stop", "stopped"]).expect(0);
}

/// Nothing is called running that does not run, and each can be started.
pub fn after_power_cut() {
    eventually("the one that is to has started", || state("again") == "running");
    for vm in ["runs", "sleeps", "stopped"] {
        let state = state(vm);
        assert!(matches!(state.as_str(), "stopped" | "failed"), "{vm} is {state}");
        alice(&["vm", "start", vm]).expect(0);
        answers(vm);
    }
    assert_eq!(alice(&["exec", "runs", "--", "cat", "/root/file"]).expect(0).text(), "kept\n");
    for vm in ["again", "runs", "sleeps", "stopped"] {
        alice(&["vm", "rm", "--force", vm]).expect(0);
    }
}
