//! Bus lane: our policy file on a real dbus-daemon, seen by those whom it is about.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use banger_harness::{bus, inside};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};
use zbus::connection::Builder;

const NAME: &str = "org.banger.Manager";
const PATH: &str = "/org/banger/Manager";
/// A uid that neither is root nor owns anything.
const NOBODY: u32 = 65_534;

/// A bus of the system kind with our policy on it, ended with the test.
struct Bus {
    daemon: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Bus {
    fn start() -> Bus {
        let folder = tempfile::tempdir().unwrap();
        // Other users connect too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str| folder.path().join(name);
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dbus/org.banger.Manager.conf");
        let listen = format!("unix:path={}", file("bus").display());
        let text = bus::config(&listen, folder.path(), &[&policy.canonicalize().unwrap()]);
        fs::write(file("bus.conf"), text).unwrap();
        let config = format!("--config-file={}", file("bus.conf").display());
        let mut daemon = Command::new(bus::DAEMON)
            .args([&config, "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bus daemon starts");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "the bus daemon ended before it listened");
        Bus { daemon, address: address.trim().to_owned(), _folder: folder }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Something that answers under our name.
struct Answer;

#[zbus::interface(name = "org.banger.Manager")]
impl Answer {
    fn ping(&self) -> &'static str {
        "pong"
    }
}

/// Something that our policy says nothing about.
struct Hidden;

#[zbus::interface(name = "org.example.Hidden")]
impl Hidden {
    fn ping(&self) -> &'static str {
        "pong"
    }
}

/// busctl as somebody who is not root: that is this process, or `nobody` when this process is root.
fn ordinary(bus: &Bus, args: &[&str]) -> inside::Ran {
    let mut command = if is_root() {
        let mut command = Command::new("/usr/bin/setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "/usr/bin/busctl"]);
        command
    } else {
        Command::new("/usr/bin/busctl")
    };
    command.arg(format!("--address={}", bus.address)).args(args).current_dir("/");
    inside::run(command, b"")
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

#[test]
fn an_ordinary_user_cannot_take_the_name() {
    let bus = Bus::start();
    let request = ["org.freedesktop.DBus", "/", "org.freedesktop.DBus", "RequestName", "su", NAME, "0"];
    let ran = ordinary(&bus, &[&["call"], &request[..]].concat()).expect(1);
    assert!(ran.errors().contains("Access denied"), "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_calls_our_interfaces_and_no_others() {
    let bus = Bus::start();
    // Nobody but root and the service's user may own the name; an ordinary user's run ends with being told so.
    if !is_root() {
        let refused = Builder::address(bus.address.as_str()).name(NAME).build().await;
        assert!(refused.is_err(), "an ordinary user owns {NAME}");
        return;
    }
    let service = Builder::address(bus.address.as_str()).name(NAME);
    let service = service.serve_at(PATH, Answer).serve_at(PATH, Hidden);
    let _service = service.build().await.unwrap();

    let call = |interface: &'static str, method: &'static str| {
        let address = &bus;
        tokio::task::block_in_place(move || ordinary(address, &["call", NAME, PATH, interface, method]))
    };
    assert_eq!(call(NAME, "Ping").expect(0).text(), "s \"pong\"\n");
    call("org.freedesktop.DBus.Introspectable", "Introspect").expect(0);
    let refused = call("org.example.Hidden", "Ping").expect(1);
    assert!(refused.errors().contains("Access denied") || refused.errors().contains("Rejected"), "{refused}");
}
