//! Descriptors handed to a service manager that this test plays.

use banger_systemd::fdstore;
use std::{
    os::{fd::AsFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

const PLAYED: &str = "the_service";

/// What the test below runs in a process with an environment of its own.
#[test]
fn the_service() {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    fdstore::keep("image-0001", file.as_fd());
    fdstore::forget("image-0001");
}

#[test]
fn the_manager_hears_what_to_keep_and_what_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", PLAYED])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    listener.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(length) = listener.recv(&mut buffer) {
        heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    assert_eq!(heard, ["FDSTORE=1\nFDNAME=image-0001\n", "FDSTOREREMOVE=1\nFDNAME=image-0001\n"]);
}

#[test]
fn the_unit_asks_for_a_store() {
    let unit = include_str!("../units/bangerd.service");
    let store = unit.lines().find_map(|line| line.strip_prefix("FileDescriptorStoreMax="));
    assert!(store.and_then(|most| most.parse::<u32>().ok()).is_some_and(|most| most > 0), "{store:?}");
}
