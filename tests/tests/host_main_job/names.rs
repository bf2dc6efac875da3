//! An image's names, what a second pull does, and what the disk holds.

use crate::support::{ALICE, busybox, image_names, refused, system};
use banger_harness::{
    REGISTRY,
    images::Tree,
    inside::{self, assert_no_residue, banger, run},
};
use serde_json::{Value, json};
use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

fn show(image: &str) -> Value {
    banger(ALICE, &["image", "show", image, "--format", "json"]).expect(0).json()[0].clone()
}

fn pull(name: &str, reference: &str) -> Value {
    banger(ALICE, &["image", "pull", "--name", name, reference]).expect(0);
    show(name)
}

fn rootfs(id: &Value) -> std::fs::Metadata {
    let path = Path::new("/var/lib/banger/images").join(id.as_str().unwrap()).join("rootfs.ext4");
    std::fs::metadata(path).unwrap()
}

fn usage() -> Value {
    banger(ALICE, &["system", "df", "--format", "json"]).expect(0).json()[0].clone()
}

#[test]
fn a_second_pull_changes_nothing_and_a_newer_image_takes_the_name() {
    let publish = |text: &str| {
        let layers = [system(), Tree::default().file("version", 0o644, text.as_bytes()).finish().unwrap()];
        inside::publish("moving:1", &layers, &json!({"Cmd": ["/bin/cat", "/version"]})).unwrap().0
    };
    let reference = publish("one");
    let first = pull("moving", &reference);
    assert_eq!(pull("moving", &reference)["id"], first["id"], "nothing has changed");
    // Somebody else's pull must not take alice's name.
    refused("root", &["image", "pull", "--name", "moving", &reference], "AlreadyExists");

    publish("two");
    let second = pull("moving", &reference);
    assert_ne!(second["id"], first["id"]);
    let old = show(first["id"].as_str().unwrap());
    assert_eq!((&old["name"], &old["names"]), (&json!(""), &json!([])), "it has lost its name");
    let text = banger(ALICE, &["run", "--rm", "moving"]).expect(0).text();
    assert_eq!(text, "two");
    let table = banger(ALICE, &["image", "ls"]).expect(0).text();
    assert!(table.contains("<none>"), "{table}");

    // Only the one without a name goes.
    let pruned = banger(ALICE, &["image", "prune", "--dangling", "--yes"]).expect(0).text();
    assert!(pruned.contains(old["id"].as_str().unwrap()), "{pruned}");
    refused(ALICE, &["image", "show", old["id"].as_str().unwrap()], "NotFound");
    assert_eq!(show("moving")["id"], second["id"]);
    banger(ALICE, &["image", "rm", "moving"]).expect(0);
    assert_no_residue();
}

#[test]
fn images_of_one_manifest_share_one_file() {
    let (one, two) = (pull("shared-one", &busybox().0), pull("shared-two", &busybox().0));
    assert_ne!(one["id"], two["id"]);
    assert_eq!(rootfs(&one["id"]).ino(), rootfs(&two["id"]).ino());
    // Another size is another filesystem.
    banger(ALICE, &["image", "pull", "--name", "larger", "--size", "2G", &busybox().0]).expect(0);
    assert_ne!(rootfs(&show("larger")["id"]).ino(), rootfs(&one["id"]).ino());

    banger(ALICE, &["image", "rm", "shared-one"]).expect(0);
    let text = banger(ALICE, &["run", "--rm", "shared-two", "--", "cat", "/etc/motd"]).expect(0).text();
    assert_eq!(text, "made for a test\n", "what is left of the two is whole");
    banger(ALICE, &["image", "rm", "shared-two", "larger"]).expect(0);
    assert_no_residue();
}

#[test]
fn an_image_has_as_many_names_as_its_owner_gives_it() {
    let image = pull("named", &busybox().0);
    banger(ALICE, &["image", "tag", "named", "also"]).expect(0);
    banger(ALICE, &["image", "tag", "named", "also"]).expect(0);
    assert_eq!(show("also")["names"], json!(["named", "also"]));
    refused(ALICE, &["image", "tag", "named", "not/a/name"], "InvalidName");
    pull("other", &busybox().0);
    refused(ALICE, &["image", "tag", "other", "also"], "AlreadyExists");
    let ran = banger("bob", &["image", "tag", "named", "bobs"]);
    assert_ne!(ran.code, 0, "it is alice's: {ran}");

    refused(ALICE, &["image", "untag", "named", "other"], "NotFound");
    banger(ALICE, &["image", "untag", "named", "named"]).expect(0);
    assert_eq!(show("also")["id"], image["id"]);
    refused(ALICE, &["image", "show", "named"], "NotFound");
    // By its id, by the beginning of its id, and with no name at all.
    let id = image["id"].as_str().unwrap();
    banger(ALICE, &["image", "untag", id]).expect(0);
    assert_eq!(show(&id[..10])["id"], image["id"]);
    banger(ALICE, &["image", "rm", id, "other"]).expect(0);
    assert!(!image_names().contains(&"also".to_owned()));
    assert_no_residue();
}

#[test]
fn disk_usage_is_what_du_says_and_prune_frees_what_it_announced() {
    pull("du-one", &busybox().0);
    pull("du-two", &busybox().0);
    let du = || {
        let mut command = Command::new("/usr/bin/du");
        command.args(["-s", "-B1", "/var/lib/banger"]);
        let text = run(command, b"").expect(0).text();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let told = usage();
    assert_eq!(told["total"], du());
    let kinds = ["images", "blobs", "kernels", "vms", "volumes", "other"];
    let sum: u64 = kinds.iter().map(|kind| told[kind].as_u64().unwrap()).sum();
    assert_eq!(told["total"], sum, "{told}");
    assert!(told["blobs"].as_u64().unwrap() > 0 && told["images-unused"].as_u64().unwrap() > 0, "{told}");

    let filtered = banger(ALICE, &["image", "prune", "--all", "--older-than", "1w", "--dry-run"]).expect(0);
    assert!(filtered.text().starts_with("would remove 0 things"), "{filtered}");
    let filtered = banger(ALICE, &["image", "prune", "--all", "--larger-than", "1T", "--dry-run"]).expect(0);
    assert!(filtered.text().starts_with("would remove 0 things"), "{filtered}");
    refused(ALICE, &["image", "show", "du"], "NotFound");

    let options = ["--system", "call", "org.banger.Manager", "/org/banger/Manager", "org.banger.Manager"];
    let mut command = Command::new("/usr/bin/busctl");
    command.args(options).args(["PruneImages", "a{sv}", "1", "all", "b", "true"]);
    run(command, b"").expect(0);
    banger("root", &["image", "prune", "--all", "--yes"]).expect(0);
    let after = usage();
    assert_eq!((&after["blobs-count"], &after["images"]), (&Value::Null, &json!(0)), "{after}");
    assert_eq!(after["total"], du());
    assert_no_residue();
}

#[test]
fn a_tag_of_another_repository_is_not_the_same_image() {
    pull("held", &busybox().0);
    refused(ALICE, &["image", "pull", "--name", "held", &format!("{REGISTRY}/elsewhere:1")], "AlreadyExists");
    banger(ALICE, &["image", "rm", "held"]).expect(0);
}
