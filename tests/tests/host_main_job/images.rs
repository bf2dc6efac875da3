//! Images: pulled, listed, shown, exported, removed, pruned.

use crate::support::{ALICE, IMAGE, Vm, busybox, image, image_names, refused};
use banger_harness::{
    images::Tree,
    inside::{self, assert_no_residue, banger, run},
};
use serde_json::json;
use std::{fs, process::Command, thread};

#[test]
fn a_pulled_image_has_a_friendly_name_and_says_where_it_is_from() {
    let (reference, digest) = busybox();
    if image_names().iter().any(|name| name == IMAGE) {
        banger(ALICE, &["image", "rm", IMAGE]).expect(0);
    }
    let pulled = banger(ALICE, &["image", "pull", reference]).expect(0);
    assert_eq!(pulled.text().trim(), IMAGE, "{pulled}");
    assert!(!pulled.errors().contains('\r'), "a pipe gets plain lines: {pulled}");

    let shown = banger(ALICE, &["image", "show", IMAGE, "--format", "json"]).expect(0).json();
    assert_eq!(shown[0]["name"], IMAGE);
    assert_eq!(shown[0]["digest"], digest.as_str());
    assert!(shown[0]["reference"].as_str().unwrap().contains("busybox"), "{shown}");
    assert!(image_names().contains(&IMAGE.to_owned()));
    let table = banger(ALICE, &["image", "ls"]).expect(0).text();
    assert!(table.starts_with("NAME") && table.contains(IMAGE), "{table}");

    banger(ALICE, &["image", "rm", IMAGE]).expect(0);
    assert!(!image_names().contains(&IMAGE.to_owned()));
    assert_no_residue();
}

#[test]
fn an_exported_image_is_a_sound_filesystem_with_what_the_author_shipped() {
    let file = "/run/home/alice/exported.ext4";
    banger(ALICE, &["image", "export", image(), "--output", file]).expect(0);
    let mut check = Command::new("/sbin/e2fsck");
    check.args(["-fn", file]);
    run(check, b"").expect(0);
    let debugfs = |request: &str| {
        let mut command = Command::new("/sbin/debugfs");
        command.args(["-R", request, file]);
        run(command, b"").expect(0).text()
    };
    assert_eq!(debugfs("cat /etc/motd"), "made for a test\n");
    assert!(debugfs("stat /bin/sh").contains("Fast link dest: \"busybox\""), "{}", debugfs("stat /bin/sh"));
    assert!(fs::metadata(file).unwrap().len() >= 1 << 30, "at least 1 GiB");
    fs::remove_file(file).unwrap();
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let digest = |name: &str| {
        banger(ALICE, &["image", "pull", "--name", name, &busybox().0]).expect(0);
        let exported = banger(ALICE, &["image", "export", name, "--output", "/run/home/alice/same.ext4"]);
        exported.expect(0);
        banger(ALICE, &["image", "rm", name]).expect(0);
        let mut sum = Command::new("/usr/bin/sha256sum");
        sum.arg("/run/home/alice/same.ext4");
        let sum = run(sum, b"").expect(0).text();
        fs::remove_file("/run/home/alice/same.ext4").unwrap();
        sum
    };
    assert_eq!(digest("same-one"), digest("same-two"));
}

#[test]
fn layers_hide_what_is_below_them() {
    let below = Tree::default()
        .dir("etc/")
        .file("etc/gone", 0o644, b"below")
        .file("etc/changed", 0o644, b"below")
        .dir("opaque/")
        .file("opaque/hidden", 0o644, b"below");
    let above = Tree::default()
        .dir("etc/")
        .file("etc/.wh.gone", 0o644, b"")
        .file("etc/changed", 0o644, b"above")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/shown", 0o644, b"above");
    let layers = [below.finish().unwrap(), above.finish().unwrap()];
    let (reference, _) = inside::publish("layers:1", &layers, &json!({"Cmd": ["/x"]})).unwrap();
    banger(ALICE, &["image", "pull", &reference]).expect(0);
    let file = "/run/home/alice/layers.ext4";
    banger(ALICE, &["image", "export", "layers-1", "--output", file]).expect(0);
    let debugfs = |request: &str| {
        let mut command = Command::new("/sbin/debugfs");
        command.args(["-R", request, file]);
        run(command, b"")
    };
    assert_eq!(debugfs("cat /etc/changed").text(), "above");
    let names = [debugfs("ls /etc").text(), debugfs("ls /opaque").text()].concat();
    assert!(names.contains("changed") && names.contains("shown"), "{names}");
    for absent in ["gone", "hidden", ".wh."] {
        assert!(!names.contains(absent), "{absent} in {names}");
    }
    fs::remove_file(file).unwrap();
    banger(ALICE, &["image", "rm", "layers-1"]).expect(0);
}

#[test]
fn two_pulls_at_once_both_succeed() {
    let pull = |name: &'static str| {
        thread::spawn(move || banger(ALICE, &["image", "pull", "--name", name, &busybox().0]))
    };
    let (one, two) = (pull("twin-one"), pull("twin-two"));
    one.join().unwrap().expect(0);
    two.join().unwrap().expect(0);
    let names = image_names();
    assert!(names.contains(&"twin-one".into()) && names.contains(&"twin-two".into()), "{names:?}");
    banger(ALICE, &["image", "rm", "twin-one", "twin-two"]).expect(0);
    assert_no_residue();
}

#[test]
fn prune_removes_what_nothing_uses_and_only_that() {
    let vm = Vm::start("keeper");
    banger(ALICE, &["image", "pull", "--name", "unused", &busybox().0]).expect(0);
    banger(ALICE, &["image", "prune", "--all", "--dry-run"]).expect(0);
    assert!(image_names().contains(&"unused".to_owned()), "a dry run removes nothing");
    banger(ALICE, &["image", "prune", "--all", "--yes"]).expect(0);
    assert_eq!(image_names(), [IMAGE], "the image of a VM stays");
    refused(ALICE, &["image", "rm", IMAGE], "InUse");
    vm.remove();
}

#[test]
fn an_image_that_is_pulled_says_so_in_its_job() {
    banger(ALICE, &["image", "pull", "--name", "job", &busybox().0]).expect(0);
    let jobs = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
    let pulls = jobs.as_array().unwrap().iter().filter(|job| job["kind"] == "pull-image");
    assert!(pulls.clone().any(|job| job["state"] == "done"), "{jobs}");
    banger(ALICE, &["image", "rm", "job"]).expect(0);
}
