//! The archive that a VM boots from, as other programs read it.

use crate::tree::{self, Packing};
use banger_kernel::{ModuleFolder, Modules, build_initramfs, join_archives, settings_archive};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

const GUEST: &[u8] = b"\x7fELF the guest's program";

fn modules() -> Modules {
    let dir = tempfile::tempdir().unwrap();
    Modules::select(&ModuleFolder::open(&tree::write(dir.path(), Packing::Xz)).unwrap()).unwrap()
}

/// What cpio(1) says with `arguments` about an archive; it runs in `folder`.
fn cpio(arguments: &[&str], folder: &Path, archive: &[u8]) -> String {
    let mut child = Command::new("/usr/bin/cpio")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the package cpio is installed");
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cpio_lists_what_was_packed() {
    let archive = build_initramfs(&modules(), GUEST).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let listing = cpio(&["-tv", "--numeric-uid-gid", "--quiet"], dir.path(), &archive);
    let lines: Vec<(String, &str)> = listing
        .lines()
        .map(|line| {
            let (mode, name) = (&line[..10], line.rsplit(' ').next().unwrap());
            assert!(line.contains(" 0        0 "), "{line}");
            assert!(line.contains(" 1970 "), "{line}");
            (mode.to_owned(), name)
        })
        .collect();
    let mut expected = vec![];
    for folder in ["dev", "proc", "sys", "run", "newroot", "modules"] {
        expected.push(("drwxr-xr-x".to_owned(), folder.to_owned()));
    }
    expected.push(("crw-------".into(), "dev/console".into()));
    expected.push(("-rwxr-xr-x".into(), "init".into()));
    for (number, name) in tree::ORDER.iter().enumerate() {
        expected.push(("-rw-r--r--".into(), format!("modules/{number:02}-{name}.ko")));
    }
    expected.push(("-rw-r--r--".into(), "modules/order".into()));
    assert_eq!(lines.into_iter().map(|(mode, name)| (mode, name.to_owned())).collect::<Vec<_>>(), expected);
}

#[test]
fn cpio_extracts_the_very_bytes() {
    let archive = build_initramfs(&modules(), GUEST).unwrap();
    let dir = tempfile::tempdir().unwrap();
    cpio(&["-idm", "--quiet", "--no-preserve-owner", "init", "modules/*"], dir.path(), &archive);
    assert_eq!(fs::read(dir.path().join("init")).unwrap(), GUEST);
    let order = fs::read_to_string(dir.path().join("modules/order")).unwrap();
    let files: Vec<String> =
        tree::ORDER.iter().enumerate().map(|(number, name)| format!("{number:02}-{name}.ko")).collect();
    assert_eq!(order.lines().collect::<Vec<_>>(), files);
    for (file, name) in files.iter().zip(tree::ORDER) {
        assert_eq!(fs::read(dir.path().join("modules").join(file)).unwrap(), tree::module(name));
    }
}

#[test]
fn settings_are_an_archive_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    for settings in [&b"{}"[..], b"{\"a\":1}", b""] {
        let archive = settings_archive(settings);
        assert_eq!(archive.len() % 512, 0);
        cpio(&["-idu", "--quiet", "--no-preserve-owner"], dir.path(), &archive);
        assert_eq!(fs::read(dir.path().join("settings.json")).unwrap(), settings);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let archive = build_initramfs(&modules(), GUEST).unwrap();
    assert!(archive == build_initramfs(&modules(), GUEST).unwrap());
    assert_eq!(archive.len() % 512, 0);
    let none = build_initramfs(&Modules::none(), GUEST).unwrap();
    assert!(none.len() <= 2048, "{}", none.len());
}

#[test]
fn a_guest_that_is_no_program_is_refused() {
    for guest in [&b""[..], b"#!/bin/sh\n"] {
        let error = build_initramfs(&Modules::none(), guest).unwrap_err().to_string();
        assert!(error.contains("not an ELF file"), "{error}");
    }
}

#[test]
fn an_initrd_goes_in_front_at_a_boundary() {
    let ours = build_initramfs(&Modules::none(), GUEST).unwrap();
    for initrd in [&b"070701 and more"[..], b"\x1f\x8b\x08 packed", b"\x28\xb5\x2f\xfd"] {
        let joined = join_archives(initrd.to_vec(), &ours).unwrap();
        let start = joined.len() - ours.len();
        assert_eq!(start % 4, 0);
        assert!(joined.starts_with(initrd) && joined.ends_with(&ours));
        assert!(joined[initrd.len()..start].iter().all(|b| *b == 0));
        assert!(start - initrd.len() >= 4);
    }
    for other in [&b""[..], b"text", b"\x7fELF"] {
        let error = join_archives(other.to_vec(), &ours).unwrap_err().to_string();
        assert!(error.starts_with("not an initrd"), "{error}");
    }
}
