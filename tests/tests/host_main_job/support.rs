//! Images that the scenarios run, and small words for what they all do.

use banger_harness::{
    images::Tree,
    inside::{self, Ran, banger},
};
use serde_json::{Value, json};
use std::{fs, sync::OnceLock};

/// Who does it unless a scenario says otherwise.
pub const ALICE: &str = "alice";

/// The local name of [`busybox`].
pub const IMAGE: &str = "busybox-1";

/// The applets that the images have.
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "dd",
    "echo",
    "env",
    "false",
    "head",
    "hostname",
    "id",
    "ls",
    "mkdir",
    "printf",
    "pwd",
    "rm",
    "sh",
    "sha256sum",
    "sleep",
    "stty",
    "sync",
    "touch",
    "true",
    "tty",
    "uname",
    "wc",
    "who",
];

/// The bytes of a static program that is many programs.
pub fn static_binary() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox-static is installed")
}

/// The layer of a small but complete system.
pub fn system() -> Vec<u8> {
    let mut tree =
        Tree::default().dir("bin/").dir("etc/").dir("root/").dir("tmp/").dir("proc/").dir("sys/").dir("dev/");
    tree = tree.file("bin/busybox", 0o755, &static_binary());
    for applet in APPLETS {
        tree = tree.symlink(&format!("bin/{applet}"), "busybox");
    }
    tree.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nworker:x:1000:\n")
        .file("etc/motd", 0o644, b"made for a test\n")
        .finish()
        .expect("an archive")
}

/// Reference and manifest digest of a small image with a shell, published once.
pub fn busybox() -> &'static (String, String) {
    static PUBLISHED: OnceLock<(String, String)> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        let config =
            json!({"Cmd": ["/bin/sh", "-c", "echo the default"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"]});
        inside::publish("busybox:1", &[system()], &config).expect("the image is published")
    })
}

/// Pulls [`busybox`] as [`IMAGE`] when it is not here.
#[track_caller]
pub fn image() -> &'static str {
    if !image_names().iter().any(|name| name == IMAGE) {
        banger(ALICE, &["image", "pull", &busybox().0]).expect(0);
    }
    IMAGE
}

/// The names of all images.
#[track_caller]
pub fn image_names() -> Vec<String> {
    names(&banger(ALICE, &["image", "ls", "--format", "json"]).expect(0).json())
}

/// What a user sees of the VMs.
#[track_caller]
pub fn vms(user: &str) -> Vec<Value> {
    banger(user, &["vm", "ls", "--format", "json"])
        .expect(0)
        .json()
        .as_array()
        .expect("a list of VMs")
        .clone()
}

/// The state of a VM of alice's; none when there is no such VM.
#[track_caller]
pub fn state(vm: &str) -> Option<String> {
    vms(ALICE)
        .iter()
        .find(|entry| entry["name"] == vm)
        .map(|entry| entry["state"].as_str().unwrap_or("?").to_owned())
}

fn names(list: &Value) -> Vec<String> {
    let all = list.as_array().expect("a list").iter();
    all.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
}

/// A VM of alice's that runs, removed when the scenario ends, however it ends.
pub struct Vm(pub &'static str);

impl Vm {
    /// Makes and starts it.
    #[track_caller]
    pub fn start(name: &'static str) -> Vm {
        let vm = Vm(name);
        banger(ALICE, &["vm", "create", "--image", image(), "--name", name]).expect(0);
        vm
    }

    /// Runs a command in it.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> Ran {
        banger(ALICE, &[&["exec", self.0, "--"], command].concat())
    }

    /// Removes it and asserts that nothing of it is left.
    #[track_caller]
    pub fn remove(self) {
        banger(ALICE, &["vm", "rm", "--force", self.0]).expect(0);
        assert_eq!(state(self.0), None, "a removed VM is still listed");
        std::mem::forget(self);
        inside::assert_no_residue();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // After a failure, so that the next scenario starts clean; it may never have come to be.
        banger("root", &["vm", "rm", "--force", self.0]);
    }
}

/// Runs the client as `user` and asserts that it fails as banger's own failures do: code 125, a sentence, and
/// this D-Bus error.
#[track_caller]
pub fn refused(user: &str, args: &[&str], error: &str) -> Ran {
    let ran = banger(user, &[&["--verbose"], args].concat()).expect(125);
    let told = ran.errors();
    assert!(told.contains(&format!("(org.banger.Error.{error})")), "{error} was expected: {ran}");
    let sentence = told.lines().find_map(|line| line.strip_prefix("Error: ")).unwrap_or_default();
    assert!(sentence.split_whitespace().count() >= 3, "that is no sentence: {ran}");
    ran
}
