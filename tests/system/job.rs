//! The main job, as a user at the host does it.

use crate::host::{IMAGE, alice, answers, at_the_host, published, run, shown, start, systemctl};
use banger_harness::inside::eventually;
use std::fs;

/// Pull, run, shell, files that stay, away.
pub fn by_client() {
    let (reference, digest) = published();
    alice(&["image", "pull", "--name", IMAGE, reference]).expect(0);
    let image = alice(&["image", "show", "--format", "json", IMAGE]).expect(0).json();
    assert_eq!(image[0]["digest"], digest.as_str());
    let run = alice(&["run", "--rm", "--memory", "192M", IMAGE, "--", "cat", "/etc/motd"]).expect(0);
    assert_eq!(run.text(), "made for a test\n");

    start("box", &["--disk", "1G"]);
    let ended = alice(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]).expect(42);
    assert_eq!((ended.text(), ended.errors()), ("out\n".into(), "err\n".into()));
    alice(&["exec", "box", "--", "sh", "-c", "echo kept > /root/file; sync"]).expect(0);
    alice(&["vm", "stop", "box"]).expect(0);
    alice(&["vm", "start", "box"]).expect(0);
    assert_eq!(alice(&["exec", "box", "--", "cat", "/root/file"]).expect(0).text(), "kept\n");
    alice(&["vm", "rm", "--force", "box"]).expect(0);
}

/// The same, with what every host has.
pub fn by_busctl() {
    const MANAGER: [&str; 3] = ["org.banger.Manager", "/org/banger/Manager", "org.banger.Manager"];
    let call = |words: &[&str]| {
        let begin = ["/usr/bin/busctl", "--system", "--timeout=120", "call"];
        at_the_host(&[&begin[..], words].concat()).expect(0).text()
    };
    let wait = |told: &str| {
        let job = told.split('"').rfind(|word| word.starts_with("/org/banger/Job/")).unwrap().to_owned();
        call(&["org.banger.Manager", &job, "org.banger.Job", "Wait", "a{sv}", "0"]);
    };
    let pull = ["PullImage", "sa{sv}", &published().0, "1", "name", "s", IMAGE];
    wait(&call(&[&MANAGER[..], &pull].concat()));
    let create = ["CreateVM", "sa{sv}", "called", "2", "image", "s", IMAGE, "memory", "t", "201326592"];
    let told = call(&[&MANAGER[..], &create].concat());
    wait(&told);
    let vm = told.split('"').find(|word| word.starts_with("/org/banger/VM/")).unwrap().to_owned();
    let state = call(&[
        "org.banger.Manager",
        &vm,
        "org.freedesktop.DBus.Properties",
        "Get",
        "ss",
        "org.banger.VM",
        "State",
    ]);
    assert!(state.contains("running"), "{state}");
    wait(&call(&["org.banger.Manager", &vm, "org.banger.VM", "Delete", "a{sv}", "1", "force", "b", "true"]));
}

/// This host has device-mapper and KVM: both are used.
pub fn uses_the_host() {
    start("one", &[]);
    start("two", &[]);
    for vm in ["one", "two"] {
        let shown = shown(vm);
        assert_eq!(
            (&shown["disk-backend"], &shown["accel"]),
            (&"device-mapper".into(), &"kvm".into()),
            "{shown}"
        );
    }
    let pid = shown("one")["pid"].to_string();
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(words.contains("vhost-vsock"), "its guest is reached by vsock: {words}");
    let mapped = run("/usr/sbin/dmsetup", &["table", "--target", "snapshot"]).expect(0).text();
    assert_eq!(mapped.lines().filter(|line| line.starts_with("banger")).count(), 2, "{mapped}");
    // One loop device for the image, however many VMs; one for what each has written.
    let loops = fs::read_dir("/sys/block").unwrap().flatten();
    let open = loops.filter(|entry| entry.path().join("loop/backing_file").exists()).count();
    assert_eq!(open, 3);
    let doctor = alice(&["doctor"]).text();
    assert!(doctor.contains("device-mapper"), "{doctor}");
    for vm in ["one", "two"] {
        alice(&["vm", "rm", "--force", vm]).expect(0);
    }
}

/// Its process is in a unit that has its limits and is counted by itself.
pub fn has_a_unit() {
    start("unit", &[]);
    let shown = shown("unit");
    let unit = format!("banger-vm-{}.scope", shown["id"].as_str().unwrap());
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", shown["pid"])).unwrap();
    assert!(cgroup.trim().ends_with(&format!("/banger.slice/{unit}")), "{cgroup}");
    let properties = systemctl(&["show", "--property=MemoryMax,TasksMax,DevicePolicy", &unit]).text();
    assert!(
        properties.contains("DevicePolicy=closed") && properties.contains("TasksMax=512"),
        "{properties}"
    );
    assert!(!properties.contains("MemoryMax=infinity"), "{properties}");
    answers("unit");
    alice(&["vm", "rm", "--force", "unit"]).expect(0);
}

/// By the system's own resolver, for every program.
pub fn has_a_name() {
    start("named", &[]);
    let address = shown("named")["addresses"][0].as_str().unwrap().to_owned();
    eventually("resolved knows the name", || {
        run("/usr/bin/resolvectl", &["query", "named.vm"]).text().contains(&address)
    });
    assert!(at_the_host(&["/usr/bin/getent", "ahostsv4", "named.vm"]).expect(0).text().contains(&address));
    at_the_host(&["/usr/bin/ping", "-c", "1", "-W", "5", "named.vm"]).expect(0);
    alice(&["vm", "rm", "--force", "named"]).expect(0);
    assert_ne!(run("/usr/bin/resolvectl", &["query", "named.vm"]).code, 0, "it has gone");

    // Once more after resolved has forgotten everything.
    start("again", &[]);
    systemctl(&["restart", "systemd-resolved.service"]).expect(0);
    eventually("resolved knows the name again", || {
        run("/usr/bin/resolvectl", &["query", "again.vm"]).code == 0
    });
    alice(&["vm", "rm", "--force", "again"]).expect(0);
}
