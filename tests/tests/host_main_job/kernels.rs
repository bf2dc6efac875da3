//! Kernels as distributions publish them: imported, pulled, booted, made the default, and not deleted while in use.

use crate::{
    catalogue::{Listed, entry, serve},
    support::{ALICE, Vm, image, refused, state, vms},
};
use banger_harness::inside::{assert_no_residue, banger};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The packages of a real kernel: one of Debian's, two of Ubuntu's.
fn packages() -> Vec<PathBuf> {
    let folder = fs::read_dir("/usr/lib/banger").unwrap().map(|entry| entry.unwrap().path());
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let mut packages: Vec<PathBuf> = folder.filter(is_package).collect();
    packages.sort();
    assert!(!packages.is_empty(), "xtask brings a kernel's packages");
    packages
}

#[track_caller]
fn show(kernel: &str) -> Value {
    banger(ALICE, &["kernel", "show", kernel, "--format", "json"]).expect(0).json()[0].clone()
}

/// Imports the packages under this name.
#[track_caller]
fn import(name: &str) {
    let packages: Vec<String> = packages().iter().map(|path| path.display().to_string()).collect();
    let words: Vec<&str> = packages.iter().flat_map(|path| ["--package", path]).collect();
    banger(ALICE, &[&["kernel", "import"], &words[..], &[name]].concat()).expect(0);
}

#[track_caller]
fn boots(vm: Vm, kernel: &str) {
    banger(ALICE, &["vm", "create", "--image", image(), "--kernel", kernel, "--name", vm.0]).expect(0);
    let release = vm.exec(&["uname", "-r"]).expect(0).text();
    assert_eq!(show(kernel)["release"], release.trim());
    assert_eq!(show(kernel)["used-by"], json!([vm.0]));
    let told = refused(ALICE, &["kernel", "rm", kernel], "InUse");
    assert!(told.errors().contains(vm.0), "it does not say which VM: {told}");
    vm.remove();
    banger(ALICE, &["kernel", "rm", kernel]).expect(0);
    assert_no_residue();
}

#[test]
fn a_distributions_package_boots() {
    import("From-A_Package");
    let shown = show("From-A_Package");
    assert_eq!((&shown["has-modules"], &shown["default"]), (&json!(true), &json!(false)), "{shown}");
    boots(Vm("packaged"), "From-A_Package");
}

#[test]
fn a_kernel_is_pulled_by_its_name_in_the_catalogue_and_boots() {
    // Where a distribution splits it, no one package is a kernel: then that is what is said.
    let file = fs::read(&packages()[0]).unwrap();
    let mut changed = file.clone();
    let last = changed.len() - 100;
    changed[last] ^= 1;
    let address =
        serve(BTreeMap::from([("/k.deb".to_owned(), file.clone()), ("/changed.deb".to_owned(), changed)]));
    let _listed = Listed::new(
        "/etc/banger/kernels.d/test.json",
        &[
            entry("kernel", "Published", &address, "/k.deb", &file),
            entry("kernel", "Changed", &address, "/changed.deb", &file),
        ],
    );
    let table = banger(ALICE, &["kernel", "catalogue"]).expect(0).text();
    assert!(table.contains("Published") && table.contains("Changed"), "{table}");
    refused(ALICE, &["kernel", "pull", "Changed"], "DigestMismatch");
    refused(ALICE, &["kernel", "pull", "nowhere"], "NotFound");
    refused(ALICE, &["kernel", "show", "Changed"], "NotFound");
    assert_no_residue();
    match packages().len() {
        1 => {
            banger(ALICE, &["kernel", "pull", "Published", "--name", "pulled"]).expect(0);
            boots(Vm("published"), "pulled");
        }
        _ => drop(refused(ALICE, &["kernel", "pull", "Published"], "InvalidSpec")),
    }
}

#[test]
fn the_default_is_the_administrators_to_set() {
    import("chosen");
    let before = banger(ALICE, &["kernel", "default"]).expect(0).text();
    let ran = banger(ALICE, &["--verbose", "kernel", "default", "chosen"]).expect(125);
    assert!(!ran.errors().contains("org.banger.Error"), "an administrator is asked for: {ran}");
    assert_eq!(banger(ALICE, &["kernel", "default"]).expect(0).text(), before);
    assert_eq!(banger("root", &["kernel", "default", "chosen"]).expect(0).text(), "chosen\n");
    assert_eq!(show("chosen")["default"], json!(true));

    let create = ["vm", "create", "--no-start", "--image", image(), "--name"];
    let kernel_of = |vm: &str| {
        let found = vms(ALICE).into_iter().find(|entry| entry["name"] == vm).unwrap();
        found["kernel"].as_str().unwrap().to_owned()
    };
    banger(ALICE, &[&create[..], &["by-default"]].concat()).expect(0);
    banger(ALICE, &[&create[..], &["by-flag", "--kernel", "host"]].concat()).expect(0);
    assert_eq!((kernel_of("by-default").as_str(), kernel_of("by-flag").as_str()), ("chosen", "host"));
    let told = refused(ALICE, &["kernel", "rm", "chosen"], "InUse").errors();
    assert!(told.contains("by-default") && told.contains("banger kernel default"), "{told}");
    for vm in ["by-default", "by-flag"] {
        banger(ALICE, &["vm", "rm", vm]).expect(0);
        assert_eq!(state(vm), None);
    }
    refused(ALICE, &["kernel", "rm", "chosen"], "InUse");
    assert_eq!(banger("root", &["kernel", "default", "--unset"]).expect(0).text(), before);
    banger(ALICE, &["kernel", "rm", "chosen"]).expect(0);
    assert_no_residue();
}

#[test]
fn what_is_no_kernel_package_is_refused() {
    for (name, bytes) in [("text.deb", &b"no package at all"[..]), ("empty.rpm", b"")] {
        let path = format!("/run/home/alice/{name}");
        fs::write(&path, bytes).unwrap();
        refused(ALICE, &["kernel", "import", &path, "odd"], "InvalidSpec");
        fs::remove_file(path).unwrap();
    }
    refused(ALICE, &["kernel", "show", "odd"], "NotFound");
    assert_no_residue();
}
