//! What the administrator says about registries, and how mistakes in it are told.

use crate::servers::{CLOSED, PASSWORD, SAID, USER, certificates, closed, failed_with, image, say};
use banger_harness::{REGISTRY, inside::banger};
use std::{fs, path::Path};

#[test]
fn a_mistake_is_told_with_file_and_line_until_it_is_repaired() {
    let (name, _) = image("typing");
    let pull = ["--verbose", "image", "pull", "--name", "typing", &format!("{REGISTRY}/{name}")];
    let wrong = say(&format!("[[registry]]\nprefix = \"{REGISTRY}\"\nmirror = []\n"));
    let told = failed_with(banger("alice", &pull), "HostNotReady");
    assert!(told.contains(&format!("{SAID}, line 3: unknown field `mirror`")), "{told}");
    drop(wrong);
    banger("alice", &pull).expect(0);
    banger("alice", &["image", "rm", "typing"]).expect(0);
}

#[test]
fn short_names_come_from_where_it_says() {
    let (name, _) = image("short");
    let _said = say(&format!("short-name-default = \"{REGISTRY}\"\n"));
    banger("alice", &["image", "pull", &name]).expect(0);
    let shown = banger("alice", &["image", "show", "short-1", "--format", "json"]).expect(0).json();
    assert_eq!(shown[0]["reference"], format!("{REGISTRY}/{name}"));
    banger("alice", &["image", "rm", "short-1"]).expect(0);
}

#[test]
fn certificates_in_certs_d_count_and_without_them_there_is_no_trust() {
    let (name, _) = image("trusted");
    let _closed = closed();
    let given = format!("{USER}:{PASSWORD}");
    let reference = format!("{CLOSED}/{name}");
    let pull = ["--verbose", "image", "pull", "--creds", &given, "--name", "trusted", &reference];
    let told = failed_with(banger("alice", &pull), "RegistryUnavailable");
    assert!(!told.contains(PASSWORD), "{told}");
    let folder = Path::new("/etc/banger/certs.d").join(CLOSED);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&certificates().0, folder.join("ca.crt")).unwrap();
    banger("alice", &pull).expect(0);
    fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    banger("alice", &["image", "rm", "trusted"]).expect(0);
}
