//! Mirrors and proxies.

use crate::servers::{CLOSED, PASSWORD, USER, closed, folder, image, proxy, registry, say, say_closed};
use banger_harness::{
    REGISTRY,
    inside::{banger, eventually},
};
use std::{fs, path::PathBuf};

const MIRROR: &str = "127.0.0.1:5082";

fn mirrored(storage: &std::path::Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

#[test]
fn a_pull_through_mirror_is_asked_first_and_missed_by_nobody() {
    let (name, layer) = image("mirrored");
    let storage = folder().join("mirror");
    let through = format!("proxy:\n  remoteurl: http://{REGISTRY}\n");
    let mirror = registry("mirror", MIRROR, &storage, "", &through);
    let _said =
        say(&format!("[[registry]]\nprefix = \"{REGISTRY}\"\nmirrors = [\"127.0.0.1:9\", \"{MIRROR}\"]\n"));
    let reference = format!("{REGISTRY}/{name}");
    banger("alice", &["image", "pull", "--name", "mirrored", &reference]).expect(0);
    // It keeps what it passed on, a moment later.
    eventually("the mirror has the layer", || mirrored(&storage, &layer).exists());
    banger("alice", &["image", "rm", "mirrored"]).expect(0);
    banger("alice", &["image", "prune", "--yes"]).expect(0);

    // A mirror whose copy is damaged: found out at the end, and pulled from the registry.
    let file = mirrored(&storage, &layer);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    banger("alice", &["image", "pull", "--name", "mirrored", &reference]).expect(0);
    banger("alice", &["image", "rm", "mirrored"]).expect(0);
    banger("alice", &["image", "prune", "--yes"]).expect(0);

    // None that answers.
    drop(mirror);
    banger("alice", &["image", "pull", "--name", "mirrored", &reference]).expect(0);
    banger("alice", &["image", "rm", "mirrored"]).expect(0);
}

#[test]
fn a_proxy_leads_to_the_registry_and_sees_nothing() {
    let (name, _) = image("proxied");
    let _closed = closed();
    let (address, seen) = proxy();
    let _said = say_closed(&format!("proxy = \"http://{address}\""));
    let given = format!("{USER}:{PASSWORD}");
    let reference = format!("{CLOSED}/{name}");
    banger("alice", &["image", "pull", "--creds", &given, "--name", "proxied", &reference]).expect(0);
    let seen = seen.lock().unwrap().clone();
    assert!(
        !seen.is_empty() && seen.iter().all(|head| head.starts_with(&format!("CONNECT {CLOSED} "))),
        "{seen:?}"
    );
    assert!(!seen.concat().to_lowercase().contains("authorization"), "{seen:?}");
    banger("alice", &["image", "rm", "proxied"]).expect(0);
}
