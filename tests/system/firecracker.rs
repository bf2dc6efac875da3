//! VMs under Firecracker itself, with the host's KVM: where whoever runs the lane has it.

use crate::host::{TEST, alice, answers, root, shown, start};
use banger_harness::inside::{eventually, kill_9};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// The program, if it came along.
pub fn came_along() -> bool {
    Path::new(TEST).join("firecracker").exists()
}

fn install() {
    let program = "/usr/bin/firecracker";
    fs::copy(Path::new(TEST).join("firecracker"), program).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A whole life, and what only a VMM that can write its guest down is able to do.
pub fn lives() {
    install();
    start("hot", &["--vmm", "firecracker"]);
    let described = shown("hot");
    assert_eq!(
        (&described["vmm"], &described["accel"]),
        (&"firecracker".into(), &"kvm".into()),
        "{described}"
    );
    assert_eq!(alice(&["exec", "hot", "--", "cat", "/etc/motd"]).expect(0).text(), "made for a test\n");
    alice(&["exec", "hot", "--", "sh", "-c", "echo said > /dev/console"]).expect(0);
    eventually("its console is kept", || alice(&["logs", "hot"]).text().contains("said"));
    alice(&["exec", "hot", "--", "sh", "-c", "echo kept > /root/file; sync"]).expect(0);
    let stats = alice(&["stats", "--no-stream", "--format", "json", "hot"]).expect(0).json();
    assert!(stats[0]["guest-memory"].as_u64().unwrap() > 128 << 20, "{stats}");

    alice(&["pause", "hot"]).expect(0);
    assert_eq!(shown("hot")["state"], "paused");
    alice(&["unpause", "hot"]).expect(0);
    answers("hot");
    for service in ["banger-hostd", "bangerd"] {
        kill_9(service);
        eventually("the service answers", || root(&["vm", "ls"]).code == 0);
        answers("hot");
        assert_eq!(shown("hot")["pid"], described["pid"], "{service} is not what keeps it");
    }

    alice(&["vm", "restart", "hot"]).expect(0);
    assert_eq!(alice(&["exec", "hot", "--", "cat", "/root/file"]).expect(0).text(), "kept\n");
    alice(&["vm", "stop", "hot"]).expect(0);
    alice(&["vm", "rm", "hot"]).expect(0);
}

/// Memory, devices and disk at one moment; back to it, and on from it as another machine.
pub fn is_written_down() {
    install();
    start("frozen", &["--vmm", "firecracker"]);
    let say = |vm: &str, script: &str| alice(&["exec", vm, "--", "sh", "-c", script]).expect(0).text();
    say("frozen", "echo before > /root/file; sleep 1000 & sync");
    alice(&["vm", "snapshot", "frozen", "moment"]).expect(0);
    say("frozen", "echo after > /root/file; sync");
    alice(&["vm", "restore", "frozen", "moment"]).expect(0);
    assert_eq!(say("frozen", "cat /root/file"), "before\n");
    let identity = "cat /sys/class/net/*/address; hostname";
    let parent = say("frozen", identity);
    alice(&["vm", "fork", "frozen", "child"]).expect(0);
    assert_eq!(say("child", "cat /root/file"), "before\n");
    assert_ne!(say("child", identity), parent, "it is another machine");
    assert_ne!(shown("child")["addresses"], shown("frozen")["addresses"]);
    for vm in ["child", "frozen"] {
        alice(&["vm", "rm", "--force", vm]).expect(0);
    }
}
