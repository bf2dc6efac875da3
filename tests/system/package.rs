//! The package: installed, upgraded, removed, purged.

use crate::host::{TEST, alice, answers, root, run, shown, start, systemctl};
use banger_harness::inside::{self, eventually};
use std::{fs, path::Path};

/// The file of the package.
fn file() -> String {
    format!("{TEST}/banger.deb")
}

/// What may not be there once the package is purged.
const TRACES: &[&str] = &[
    "/etc/banger",
    "/etc/systemd/system/multi-user.target.wants/bangerd.service",
    "/etc/systemd/system/sockets.target.wants/banger-hostd.socket",
    "/run/banger",
    "/usr/bin/banger",
    "/usr/lib/banger",
    "/usr/libexec/bangerd",
    "/usr/share/dbus-1/system-services/org.banger.Manager.service",
    "/usr/share/polkit-1/actions/org.banger.manager.policy",
    "/var/lib/banger",
];

/// With one command, and nothing to edit.
pub fn installs() {
    run("/usr/bin/apt-get", &["--quiet", "--yes", "install", &file()]).expect(0);
    for unit in ["bangerd.service", "banger-hostd.socket"] {
        systemctl(&["is-enabled", unit]).expect(0);
        systemctl(&["is-active", unit]).expect(0);
    }
    assert!(alice(&["version"]).expect(0).text().contains(env!("CARGO_PKG_VERSION")));
    // Whoever calls has it started.
    systemctl(&["stop", "bangerd.service"]).expect(0);
    alice(&["vm", "ls"]).expect(0);
    systemctl(&["is-active", "bangerd.service"]).expect(0);
    for page in ["banger", "banger-vm", "bangerd", "banger-hostd"] {
        let section = if page.ends_with('d') { 8 } else { 1 };
        let path = format!("/usr/share/man/man{section}/{page}.{section}.gz");
        assert!(Path::new(&path).exists(), "{path}");
    }
    // This host is emulated: what KVM does in a second takes it ten, and that must not count as a KVM that does not work.
    fs::create_dir_all("/etc/banger").unwrap();
    fs::write("/etc/banger/config.toml", "[timeouts]\nfirst-kvm-boot = 100\n").unwrap();
    systemctl(&["restart", "bangerd.service"]).expect(0);
}

/// As far as systemd can tell: 0 is the best, 100 the worst.
pub fn is_confined() {
    for (unit, most) in [("bangerd.service", 15), ("banger-hostd.service", 40)] {
        let threshold = format!("--threshold={most}");
        run("/usr/bin/systemd-analyze", &["security", "--no-pager", &threshold, unit]).expect(0);
    }
}

/// The same package once more is an upgrade as far as dpkg is concerned.
pub fn upgrades() {
    start("kept", &[]);
    let before = shown("kept");
    let service = || systemctl(&["show", "--property=MainPID", "bangerd.service"]).text();
    let first = service();
    run("/usr/bin/dpkg", &["--install", &file()]).expect(0);
    assert_ne!(service(), first, "the service is the new one");
    eventually("its state is known again", || shown("kept")["state"] == "running");
    assert_eq!(shown("kept")["pid"], before["pid"]);
    answers("kept");
    alice(&["vm", "rm", "--force", "kept"]).expect(0);
}

/// A removal ends what runs and keeps what is stored; a purge keeps nothing.
pub fn is_removed() {
    start("doomed", &["--nat"]);
    let disk = format!("/var/lib/banger/vms/{}", shown("doomed")["id"].as_str().unwrap());
    let removed = run("/usr/bin/dpkg", &["--remove", "banger"]).expect(0);
    assert!(removed.text().contains("Stopping the virtual machines"), "{removed}");
    assert!(inside::vm_pids().is_empty(), "a VM runs on");
    assert!(Path::new(&disk).exists(), "its disk is kept");
    for unit in ["bangerd.service", "banger-hostd.service", "banger-hostd.socket"] {
        assert_ne!(systemctl(&["is-active", unit]).code, 0, "{unit}");
    }

    run("/usr/bin/dpkg", &["--install", &file()]).expect(0);
    eventually("the VM is known as before", || crate::host::state("doomed") == "stopped");
    root(&["vm", "start", "doomed"]).expect(0);

    run("/usr/bin/dpkg", &["--purge", "banger"]).expect(0);
    for trace in TRACES {
        assert!(!Path::new(trace).exists(), "{trace} is left");
    }
    assert!(inside::vm_pids().is_empty(), "a VM runs on");
    assert_ne!(run("/usr/bin/getent", &["passwd", "banger"]).code, 0, "its user is left");
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", "banger*"]).text();
    assert_eq!(units, "", "units are left");
    let tables = run("/usr/sbin/nft", &["list", "tables"]).text();
    assert!(!tables.contains("banger"), "{tables}");
    let links = run("/usr/sbin/ip", &["-o", "link"]).text();
    assert!(!links.contains("banger") && !links.contains("bngr"), "{links}");
    let mapped = run("/usr/sbin/dmsetup", &["ls"]).text();
    assert!(!mapped.contains("banger"), "{mapped}");
}
