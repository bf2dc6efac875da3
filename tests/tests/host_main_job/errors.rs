//! Bad input: a sentence, a D-Bus error by its name, code 125, and nothing left behind.

use crate::support::{ALICE, busybox, image, image_names, refused, system, vms};
use banger_harness::{
    REGISTRY,
    images::Tree,
    inside::{self, assert_no_residue, banger},
};
use serde_json::json;
use std::{collections::HashMap, fs};
use zbus::Variant;

/// Asserts that a pull is refused and changes nothing.
#[track_caller]
fn pull_refused(args: &[&str], error: &str) -> inside::Ran {
    let before = image_names();
    let ran = refused(ALICE, &[&["image", "pull"], args].concat(), error);
    assert_eq!(image_names(), before, "a refused pull changed the images");
    assert_no_residue();
    ran
}

#[test]
fn references_that_are_none() {
    for reference in
        ["UPPER/case", "a b", "x:", "@sha256:0", "image@sha256:zz", "https://x/y", "", ":tag", "a//b"]
    {
        pull_refused(&["--", reference], "InvalidReference");
    }
}

#[test]
fn names_that_are_no_dns_labels() {
    for name in ["Upper", "under_score", "dot.ted", "-edge", "edge-", "", "../up", &"x".repeat(64)] {
        let flag = format!("--name={name}");
        if !name.is_empty() {
            // Nobody can ask for an empty image name: it means the default one.
            pull_refused(&[&flag, &busybox().0], "InvalidName");
            refused(ALICE, &["vm", "create", "--image", image(), &flag], "InvalidName");
        }
    }
    assert!(vms(ALICE).is_empty());
}

#[test]
fn what_is_not_there() {
    refused(ALICE, &["image", "show", "no-such-image"], "NotFound");
    refused(ALICE, &["image", "rm", "no-such-image"], "NotFound");
    refused(ALICE, &["vm", "create", "--image", "no-such-image"], "NotFound");
    refused(ALICE, &["vm", "start", "no-such-vm"], "NotFound");
    refused(ALICE, &["exec", "no-such-vm", "--", "true"], "NotFound");
    refused(ALICE, &["vm", "create", "--image", image(), "--kernel", "no-such-kernel"], "NotFound");
    refused(ALICE, &["kernel", "rm", "no-such-kernel"], "NotFound");
    pull_refused(&[&format!("{REGISTRY}/no-such/image:1")], "NotFound");
    pull_refused(&[&format!("{REGISTRY}/busybox:no-such-tag")], "NotFound");
    assert!(vms(ALICE).is_empty());
}

#[test]
fn names_that_are_taken() {
    // The same reference would be the same image again; another one is not.
    pull_refused(&["--name", image(), &format!("{REGISTRY}/busybox:other")], "AlreadyExists");
    banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", "taken"]).expect(0);
    refused(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", "taken"], "AlreadyExists");
    banger(ALICE, &["vm", "rm", "taken"]).expect(0);
    assert_no_residue();
}

#[test]
fn sizes_that_make_no_sense() {
    for size in [
        ["--cpus", "0"],
        ["--cpus", "4294967295"],
        ["--memory", "0"],
        ["--memory", "1K"],
        ["--memory", "4096T"],
        ["--disk", "0"],
        ["--disk", "1M"],
        ["--disk", "1000000T"],
    ] {
        let create = ["vm", "create", "--image", image(), "--name", "odd"];
        refused(ALICE, &[&create[..], &size].concat(), "InvalidSpec");
    }
    assert!(vms(ALICE).is_empty());
    pull_refused(&["--name", "odd", "--size", "1", &busybox().0], "InvalidSpec");
    pull_refused(&["--name", "odd", "--size", "1000000T", &busybox().0], "InvalidSpec");
}

#[test]
fn a_registry_that_is_down() {
    // Nothing listens on the discard port of this host.
    let ran = pull_refused(&["127.0.0.1:9/some/image:1"], "RegistryUnavailable");
    assert!(ran.errors().contains("127.0.0.1:9"), "the error does not say which registry: {ran}");
}

/// Publishes an image of one layer of its own, and gives its reference and the file that holds its layer.
fn damaged(name: &str) -> (String, std::path::PathBuf) {
    let marker = format!("only in {name}");
    let layer = Tree::default().dir("bin/").file("bin/busybox", 0o755, &crate::support::static_binary());
    let layer = layer.file("marker", 0o644, marker.as_bytes()).finish().unwrap();
    let (reference, digest) = inside::publish(name, &[layer], &json!({"Cmd": ["/bin/busybox"]})).unwrap();
    let manifest = fs::read(inside::registry_blob(&digest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    (reference, inside::registry_blob(layer))
}

#[test]
fn a_layer_whose_bytes_have_changed() {
    let (reference, file) = damaged("changed:1");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    pull_refused(&[&reference], "DigestMismatch");
}

#[test]
fn a_layer_that_ends_early() {
    let (reference, file) = damaged("short:1");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    pull_refused(&[&reference], "UnsafeImage");
}

#[test]
fn a_layer_that_has_gone_from_the_registry() {
    let (reference, file) = damaged("lost:1");
    fs::remove_file(file).unwrap();
    pull_refused(&[&reference], "NotFound");
}

/// Publishes an image of this layer and asserts how its pull is refused.
#[track_caller]
fn layer_refused(name: &str, layer: Vec<u8>, error: &str) {
    let (reference, _) = inside::publish(name, &[system(), layer], &json!({"Cmd": ["/bin/sh"]})).unwrap();
    pull_refused(&[&reference], error);
}

#[test]
fn layers_that_are_hostile_or_broken() {
    let up = Tree::default().file("../../etc/passwd", 0o644, b"x").finish().unwrap();
    layer_refused("up:1", up, "UnsafeImage");
    layer_refused("noise:1", b"this is no archive, however long it goes on. ".repeat(100), "UnsafeImage");
    let long = format!("etc/{}", "n".repeat(256));
    layer_refused(
        "long:1",
        Tree::default().long_file(&long, b"x").unwrap().finish().unwrap(),
        "UnsupportedImage",
    );
}

/// Calls a method with a body that the client would never send; the name of the error.
fn call(method: &str, body: &(impl serde::Serialize + zbus::zvariant::DynamicType)) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let bus = zbus::Connection::system().await.unwrap();
        let interface = Some("org.banger.Manager");
        bus.call_method(interface, "/org/banger/Manager", interface, method, body).await
    });
    match answer {
        // The bus's own errors come as an enumeration.
        Err(zbus::Error::FDO(error)) => zbus::DBusError::name(&*error).to_string(),
        Err(zbus::Error::MethodError(name, text, _)) => {
            assert!(text.is_some_and(|text| text.contains(' ')), "{name} comes without a sentence");
            name.to_string()
        }
        other => panic!("{method} was not refused: {other:?}"),
    }
}

#[test]
fn options_that_are_unknown_or_of_a_wrong_type() {
    type Options = HashMap<&'static str, Variant<'static>>;
    let unknown: Options = HashMap::from([("colour", Variant::from("red"))]);
    let wrong: Options = HashMap::from([("size", Variant::from("2G"))]);
    let reference = busybox().0.as_str();
    assert_eq!(call("PullImage", &(reference, &unknown)), "org.banger.Error.UnknownOption");
    assert_eq!(call("PullImage", &(reference, &wrong)), "org.freedesktop.DBus.Error.InvalidArgs");
    let wrong: Options = HashMap::from([("image", Variant::from(image())), ("cpus", Variant::from("two"))]);
    assert_eq!(call("CreateVM", &("odd", &wrong)), "org.freedesktop.DBus.Error.InvalidArgs");
    let unknown: Options =
        HashMap::from([("image", Variant::from(image())), ("colour", Variant::from("red"))]);
    assert_eq!(call("CreateVM", &("odd", &unknown)), "org.banger.Error.UnknownOption");
    assert_eq!(call("ListVMs", &(unknown,)), "org.banger.Error.UnknownOption");
    // A body of another shape altogether.
    assert_eq!(call("PullImage", &(7_u32,)), "org.freedesktop.DBus.Error.InvalidArgs");
    assert!(vms(ALICE).is_empty());
    assert_no_residue();
}

#[test]
fn words_that_the_client_does_not_know() {
    for args in [&["frobnicate"][..], &["vm", "create"], &["image", "pull"], &["run", "--no-such-flag", "x"]]
    {
        let ran = banger(ALICE, args).expect(125);
        assert!(ran.errors().contains("Usage"), "{ran}");
    }
}
