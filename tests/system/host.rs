//! The host that a scenario runs on: its users, its services, its registry.

use banger_harness::{
    REGISTRY,
    images::Tree,
    inside::{self, Ran, eventually},
};
use serde_json::{Value, json};
use std::{fs, net::TcpStream, path::Path, process::Command, sync::OnceLock};

/// What came with the boot: the package and this program.
pub const TEST: &str = "/test";

/// What the image is called.
pub const IMAGE: &str = "busybox";

/// A program by somebody who sits at the host: in a session of theirs on its first terminal.
#[track_caller]
pub fn at_the_host(words: &[&str]) -> Ran {
    let mut command = Command::new("/usr/bin/systemd-run");
    command.args(["--quiet", "--wait", "--collect", "--pipe", "--service-type=exec"]);
    for property in ["User=alice", "PAMName=login", "TTYPath=/dev/tty1", "WorkingDirectory=/"] {
        command.arg("--property").arg(property);
    }
    for variable in ["XDG_SEAT=seat0", "XDG_VTNR=1", "HOME=/home/alice"] {
        command.arg("--setenv").arg(variable);
    }
    inside::run(one_by_one(command, words), b"")
}

fn one_by_one(mut command: Command, words: &[&str]) -> Command {
    command.arg("--").args(words);
    command
}

/// The client, by alice, who sits at the host.
#[track_caller]
pub fn alice(args: &[&str]) -> Ran {
    at_the_host(&[&["/usr/bin/banger"], args].concat())
}

/// The client, by bob, who has no session: as a service of his, or somebody from elsewhere.
#[track_caller]
pub fn bob(args: &[&str]) -> Ran {
    inside::banger("bob", args)
}

/// The client, by root.
#[track_caller]
pub fn root(args: &[&str]) -> Ran {
    inside::banger("root", args)
}

/// A program of the host's, by root.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    inside::run(command, b"")
}

/// systemctl(1).
#[track_caller]
pub fn systemctl(args: &[&str]) -> Ran {
    run("/usr/bin/systemctl", args)
}

/// A VM of alice's, as it is shown.
#[track_caller]
pub fn shown(vm: &str) -> Value {
    alice(&["vm", "show", "--format", "json", vm]).expect(0).json()[0].clone()
}

/// The state of a VM; empty while the service cannot be asked.
pub fn state(vm: &str) -> String {
    let ran = root(&["vm", "show", "--format", "json", vm]);
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    shown[0]["state"].as_str().unwrap_or_default().to_owned()
}

/// Makes a VM of alice's that runs.
#[track_caller]
pub fn start(vm: &str, more: &[&str]) {
    image();
    let create = ["vm", "create", "--image", IMAGE, "--memory", "192M", "--name", vm];
    alice(&[&create[..], more].concat()).expect(0);
}

/// Asserts that a VM answers.
#[track_caller]
pub fn answers(vm: &str) {
    at_the_host(&["/usr/bin/timeout", "60", "/usr/bin/banger", "exec", vm, "--", "true"]).expect(0);
}

/// Has the image here.
#[track_caller]
pub fn image() {
    if alice(&["image", "show", IMAGE]).code != 0 {
        alice(&["image", "pull", "--name", IMAGE, &published().0]).expect(0);
    }
}

/// Reference and digest of an image in the host's own registry, which is started for it.
pub fn published() -> &'static (String, String) {
    static PUBLISHED: OnceLock<(String, String)> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        registry();
        let mut tree = Tree::default();
        for folder in ["bin/", "dev/", "etc/", "proc/", "root/", "sys/", "tmp/"] {
            tree = tree.dir(folder);
        }
        tree = tree.file("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
        for applet in ["cat", "df", "echo", "hostname", "nc", "sh", "sleep", "sync", "touch", "true", "uname"]
        {
            tree = tree.symlink(&format!("bin/{applet}"), "busybox");
        }
        let tree = tree.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n");
        let layer = tree.file("etc/motd", 0o644, b"made for a test\n").finish().unwrap();
        inside::publish("busybox:1", &[layer], &json!({"Env": ["PATH=/bin"]})).unwrap()
    })
}

fn registry() {
    let unit = "system-test-registry.service";
    if systemctl(&["--quiet", "is-active", unit]).code == 0 {
        return;
    }
    let config = "/run/system-test-registry.yml";
    let folder = "/var/lib/system-test-registry";
    fs::write(
        config,
        format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {folder}\nhttp:\n  addr: {REGISTRY}\n"
        ),
    )
    .unwrap();
    let unit_name = format!("--unit={unit}");
    run("/usr/bin/systemd-run", &["--quiet", &unit_name, "/usr/bin/docker-registry", "serve", config])
        .expect(0);
    eventually("the registry answers", || TcpStream::connect(REGISTRY).is_ok());
}

/// Asserts that nothing is left of a scenario's VMs: no VM, device, process, unit or file.
pub fn assert_clean() {
    if !Path::new("/usr/bin/banger").exists() {
        return;
    }
    let listed = root(&["vm", "ls", "--format", "json"]).expect(0).json();
    assert_eq!(listed, json!([]), "VMs are left");
    inside::assert_no_residue();
    let no_unit = || systemctl(&["list-units", "--all", "--plain", "--no-legend", "banger-vm-*"]).text();
    eventually("no VM's unit is left", || no_unit().is_empty());
    assert!(inside::vm_pids().is_empty(), "processes of VMs are left");
}

/// Removes what a scenario that failed has left, for the next one's sake.
pub fn tidy_up() {
    let names = root(&["vm", "ls", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&names.stdout).unwrap_or_default();
    for vm in listed.as_array().into_iter().flatten() {
        root(&["vm", "rm", "--force", vm["id"].as_str().unwrap_or_default()]);
    }
}

/// Has the host boot again: in order, or (`cut`) as when somebody pulls its plug (sysrq, Documentation/admin-guide/sysrq.rst).
pub fn end(cut: bool) {
    match cut {
        true => fs::write("/proc/sysrq-trigger", "b").unwrap(),
        false => drop(systemctl(&["reboot"]).expect(0)),
    }
}

/// What the services and the kernel said last.
pub fn journal() -> String {
    let mut journal = Command::new("/usr/bin/journalctl");
    journal.args(["--no-pager", "--lines=60", "--output=short-monotonic"]);
    inside::run(journal, b"").text()
}
