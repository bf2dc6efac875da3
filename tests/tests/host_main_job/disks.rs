//! Disks and volumes: how large a disk is, what stays when a VM goes, and a host that has no room left.

use crate::support::{ALICE, Vm, image, refused, state, static_binary};
use banger_harness::{
    images::Tree,
    inside::{self, assert_no_residue, banger, eventually, kill_9},
};
use nix::{fcntl::FallocateFlags, sys::statvfs::statvfs};
use serde_json::{Value, json};
use std::{fs, sync::OnceLock};

const CONFIG: &str = "/etc/banger/config.toml";
const STATE: &str = "/var/lib/banger";

/// An image that has something at `/srv/data`, and a link to it.
fn seeded() -> &'static str {
    static PULLED: OnceLock<()> = OnceLock::new();
    PULLED.get_or_init(|| {
        let mut tree =
            Tree::default().dir("bin/").dir("root/").dir("srv/").dir("srv/data/").dir("srv/data/sub/");
        tree = tree.file("bin/busybox", 0o755, &static_binary());
        for applet in ["cat", "sh", "ls", "stat", "df", "sync", "mount"] {
            tree = tree.symlink(&format!("bin/{applet}"), "busybox");
        }
        let layer = tree
            .file("srv/data/sub/hello", 0o640, b"from the image\n")
            .file("root/.profile", 0o644, b"own\n")
            .symlink("link", "/srv/data")
            .finish()
            .unwrap();
        let reference = inside::publish("seeded:1", &[layer], &json!({"Cmd": ["/bin/sh"]})).unwrap().0;
        banger(ALICE, &["image", "pull", &reference]).expect(0);
    });
    "seeded-1"
}

fn volumes(user: &str) -> Vec<Value> {
    banger(user, &["volume", "ls", "--format", "json"]).expect(0).json().as_array().unwrap().clone()
}

#[test]
fn a_disk_is_as_large_as_it_was_asked_to_be() {
    let ran =
        banger(ALICE, &["run", "--rm", "--disk", "20G", image(), "--", "/bin/busybox", "df", "-k", "/"]);
    let table = ran.expect(0).text();
    let size: u64 = table.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    // ext4 keeps a little of it for its own structures.
    assert!((20 * 1024 * 1024 * 95 / 100..=20 * 1024 * 1024).contains(&size), "{table}");
    assert_no_residue();
}

#[test]
fn a_volume_is_seeded_once_and_stays_when_its_vm_goes() {
    let image = seeded();
    let run = |mount: &str, script: &str| {
        banger(ALICE, &["run", "--rm", "-v", mount, image, "--", "sh", "-c", script]).expect(0).text()
    };
    assert_eq!(
        run("kept:/srv/data", "cat /srv/data/sub/hello; echo mine > /srv/data/own"),
        "from the image\n"
    );
    assert_eq!(run("kept:/srv/data", "cat /srv/data/own /srv/data/sub/hello"), "mine\nfrom the image\n");
    assert_eq!(
        run("kept:/elsewhere:ro", "cat /elsewhere/own; echo x 2>&- > /elsewhere/no || echo kept"),
        "mine\nkept\n"
    );
    // Where the image has a link, the volume is behind it, and holds what is there.
    assert_eq!(
        run("linked:/link", "cat /srv/data/sub/hello; stat -c %a /srv/data/sub/hello"),
        "from the image\n640\n"
    );
    assert_eq!(run("fresh:/not/there", "ls -A /not/there"), "lost+found\n");

    let listed = volumes(ALICE);
    let names: Vec<&str> = listed.iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fresh", "kept", "linked"]);
    assert_eq!(listed[1]["size"], 10u64 << 30);
    assert!(listed[1]["used"].as_u64().unwrap() < 256 << 20, "{}", listed[1]);

    // Others neither see it nor may touch it, and may have one of the same name.
    assert!(volumes("bob").is_empty());
    refused("bob", &["volume", "show", "kept"], "NotFound");
    refused("bob", &["volume", "rm", listed[1]["id"].as_str().unwrap()], "NotFound");

    banger(ALICE, &["volume", "rm", "fresh"]).expect(0);
    let would = banger(ALICE, &["volume", "prune"]).expect(0).text();
    assert_eq!(would, "kept\nlinked\n");
    banger(ALICE, &["volume", "prune", "--force"]).expect(0);
    assert!(volumes(ALICE).is_empty());
    assert_eq!(fs::read_dir(format!("{STATE}/volumes")).unwrap().count(), 0);
    assert_no_residue();
}

#[test]
fn a_volume_that_is_in_use_is_kept() {
    let vm = Vm("holder");
    banger(ALICE, &["volume", "create", "--size", "64M", "shared"]).expect(0);
    banger(ALICE, &["vm", "create", "--image", image(), "--name", vm.0, "-v", "shared:/data"]).expect(0);
    vm.exec(&["sh", "-c", "echo here > /data/file; sync"]).expect(0);
    let shown = banger(ALICE, &["vm", "show", vm.0, "--format", "json"]).expect(0).json();
    assert_eq!(shown[0]["volumes"], json!(["shared:/data"]));
    assert_eq!(shown[0]["disk-backend"], "copy");

    let told = refused(ALICE, &["volume", "rm", "shared"], "InUse");
    assert!(told.errors().contains("holder"), "{told}");
    let other = Vm("other");
    let create = ["vm", "create", "--image", image(), "--name", other.0, "-v", "shared:/data:ro"];
    let told = refused(ALICE, &create, "InUse");
    assert!(told.errors().contains("holder"), "{told}");
    drop(other);
    vm.exec(&["cat", "/data/file"]).expect(0);

    banger(ALICE, &["vm", "stop", vm.0]).expect(0);
    refused(ALICE, &["volume", "rm", "shared"], "InUse");
    let ran =
        banger(ALICE, &["run", "--rm", "-v", "shared:/data", image(), "--", "cat", "/data/file"]).expect(0);
    assert_eq!(ran.text(), "here\n");
    vm.remove();
    banger(ALICE, &["volume", "rm", "shared"]).expect(0);
}

#[test]
fn the_work_disk_is_at_root_and_outlives_its_vm() {
    let image = seeded();
    let with = |script: &str| {
        let flags = ["run", "--rm", "--name", "worker", "--work-disk", image, "--", "sh", "-c", script];
        banger(ALICE, &flags).expect(0).text()
    };
    assert_eq!(with("cat /root/.profile; echo more > /root/more"), "own\n");
    assert_eq!(with("cat /root/.profile /root/more"), "own\nmore\n");
    banger(ALICE, &["volume", "rm", "worker-work"]).expect(0);
    assert_no_residue();
}

#[test]
fn where_a_volume_cannot_be_is_said_before_anything_is_made() {
    for (mount, error) in [
        ("a:/proc/x", "InvalidSpec"),
        ("a:/", "InvalidSpec"),
        ("a:/x/../y", "InvalidSpec"),
        ("-a:/x", "InvalidName"),
    ] {
        refused(ALICE, &["vm", "create", "--image", image(), "-v", mount], error);
    }
    let flags = ["vm", "create", "--image", image(), "-v", "a:/x", "-v", "a:/y"];
    refused(ALICE, &flags, "InvalidSpec");
    assert!(volumes(ALICE).is_empty());
    assert_no_residue();
}

/// The configuration with more in it, until dropped. The service starts anew with it.
struct Configured(String);

impl Configured {
    fn with(more: &str) -> Self {
        let before = fs::read_to_string(CONFIG).unwrap_or_default();
        fs::write(CONFIG, format!("{before}\n{more}\n")).unwrap();
        kill_9("bangerd");
        Self(before)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = fs::write(CONFIG, &self.0);
        kill_9("bangerd");
    }
}

#[test]
fn vms_are_paused_before_the_host_is_full_and_go_on_when_there_is_room() {
    let vm = Vm::start("thirsty");
    let paused_by_hand = Vm::start("resting");
    banger(ALICE, &["vm", "pause", paused_by_hand.0]).expect(0);
    let room = statvfs(STATE).unwrap();
    let free = room.blocks_available() * room.fragment_size();
    let reserve = format!("[disks]\nreserve = {}\nreserve-percent = 0", free / 100 * 45);
    let _configured = Configured::with(&reserve);
    vm.exec(&["true"]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("running"));

    // More than half of the room is taken at once, and given back.
    let path = format!("{STATE}/ballast-of-a-test");
    let ballast = fs::File::create(&path).unwrap();
    nix::fcntl::fallocate(&ballast, FallocateFlags::empty(), 0, (free / 100 * 62) as i64).unwrap();
    eventually("the VM is paused", || state(vm.0).as_deref() == Some("paused"));
    let shown = banger(ALICE, &["vm", "show", vm.0]).expect(0).text();
    assert!(shown.contains("disk is almost full") && shown.contains("goes on when"), "{shown}");
    // Also a service that starts anew meanwhile knows why.
    kill_9("bangerd");
    assert_eq!(state(vm.0).as_deref(), Some("paused"));

    drop(ballast);
    fs::remove_file(&path).unwrap();
    eventually("the VM runs", || state(vm.0).as_deref() == Some("running"));
    vm.exec(&["true"]).expect(0);
    assert_eq!(state(paused_by_hand.0).as_deref(), Some("paused"), "who was paused by hand stays so");
    drop(vm);
    drop(paused_by_hand);
}
