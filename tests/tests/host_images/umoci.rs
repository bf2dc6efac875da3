//! The same image by banger and by umoci: GNU tar makes the layers, umoci unpacks them as root, the kernel mounts
//! banger's filesystem, and both trees are compared entry by entry.

use crate::mounted::{Mounted, walk};
use crate::support::reader::Seen;
use banger_harness::{
    REGISTRY,
    images::{self, Tree},
    inside::{banger, run, state},
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, lchown, symlink},
    },
    path::Path,
    process::Command,
};

/// What makes programs behave differently in one folder.
fn tricky(at: &Path) {
    let path = |name: &str| at.join(name);
    for folder in ["files", "links", "deep", "replaced", "opaque", "nodes"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    fs::write(path("files/plain"), "plain").unwrap();
    fs::write(path("files/empty"), "").unwrap();
    fs::write(path("files/new\nline and 'quotes\""), "odd").unwrap();
    fs::write(at.join("files").join(OsStr::from_bytes(b"latin-\xe9\xff")), "latin").unwrap();
    fs::write(path("files").join("n".repeat(255)), "longest").unwrap();
    let deep = (0..40).fold(path("deep"), |path, number| path.join(format!("{number:0>90}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "deep").unwrap();
    let sparse = File::create(path("files/sparse")).unwrap();
    sparse.set_len(48 << 20).unwrap();
    for part in 0..30u64 {
        sparse.write_all_at(&[part as u8 + 1; 3000], part * (1 << 20) + 7).unwrap();
    }
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(path("files/large"), large).unwrap();
    fs::hard_link(path("files/plain"), path("links/hard")).unwrap();
    fs::hard_link(path("files/plain"), path("nodes/hard too")).unwrap();
    symlink("../files/plain", path("links/relative")).unwrap();
    symlink("/etc/absolute", path("links/absolute")).unwrap();
    symlink("t".repeat(1000), path("links/long")).unwrap();
    for gone in ["gone", "kept", "again"] {
        fs::write(path("replaced").join(gone), "old").unwrap();
        fs::write(path("opaque").join(gone), "old").unwrap();
    }
    fs::create_dir(path("replaced/folder")).unwrap();
    fs::write(path("replaced/folder/inside"), "old").unwrap();
    fs::write(path("replaced/file"), "old").unwrap();
    for (name, kind, device) in [
        ("null", SFlag::S_IFCHR, makedev(1, 3)),
        ("loop", SFlag::S_IFBLK, makedev(7, 300)),
        ("pipe", SFlag::S_IFIFO, 0),
    ] {
        mknod(&path("nodes").join(name), kind, Mode::from_bits_truncate(0o640), device).unwrap();
    }

    for (name, mode, ids) in [
        ("files/plain", 0o644, (0, 0)),
        ("files/empty", 0o4755, (1000, 100)),
        ("files/large", 0o2755, (70_000, 65_536)),
        ("files/sparse", 0o000, (4_294_967_294, 3_000_000_000)),
        ("files", 0o1777, (5, 6)),
        ("deep", 0o700, (65_535, 65_534)),
    ] {
        lchown(path(name), Some(ids.0), Some(ids.1)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    lchown(path("links/long"), Some(77), Some(78)).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attribute = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(path(name), key, value, XattrFlags::empty())
            .unwrap_or_else(|e| panic!("{name} {key}: {e}"));
    };
    attribute("files/empty", "security.capability", &capability);
    attribute("files/plain", "user.binary", b"\0\xff\n=");
    attribute("files/plain", "trusted.large", &[7; 2000]);
    attribute("files", "user.folder", b"of a folder");
    // Folders last: what is done in them changes their time.
    for (name, seconds, nanoseconds) in [
        ("files/plain", 1_700_000_000, 123_456_789),
        ("files/empty", -1, 999_999_999),
        ("files/large", 4_294_967_296, 1),
        ("links/long", 2_147_483_648, 5),
        ("nodes/null", -2_000_000_000, 0),
        ("files", 8_000_000_000, 999_999_999),
        ("links", 0, 0),
        ("replaced", 1, 1),
        ("opaque", 1_600_000_000, 42),
    ] {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// What a second layer hides, replaces and links to.
fn above() -> Vec<u8> {
    Tree::default()
        .dir("replaced/")
        .file("replaced/.wh.gone", 0o644, b"")
        .file("replaced/.wh.again", 0o644, b"")
        .file("replaced/again", 0o600, b"new")
        .file("replaced/folder", 0o644, b"now a file")
        .dir("replaced/file/")
        .file("replaced/file/inside", 0o644, b"now a folder")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/again", 0o600, b"new")
        .entry("links/across", tar::EntryType::Link, 0o644, "files/large", b"")
        .finish()
        .unwrap()
}

fn done(program: &str, arguments: &[&OsStr]) {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, b"").expect(0);
}

/// What must be the same of an entry; holes, inode numbers and what a folder weighs are each filesystem's own.
fn compared(path: &[u8], seen: &Seen, first: &[u8]) -> String {
    let is_folder = seen.mode & 0o170_000 == 0o040_000;
    let mut content = vec![0; if is_folder { 0 } else { seen.size as usize }];
    for (offset, bytes) in seen.data.iter().filter(|_| !is_folder) {
        content[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    let links = if is_folder { 0 } else { seen.links };
    let attributes: Vec<String> =
        seen.xattrs.iter().map(|(key, value)| format!("{key:?}={}", images::digest(value))).collect();
    format!(
        "{:?}: mode {:o}, owner {}:{}, time {}.{:09}, links {links}, first name {:?}, device {:?}, {} bytes {}, {attributes:?}",
        String::from_utf8_lossy(path),
        seen.mode,
        seen.uid,
        seen.gid,
        seen.seconds,
        seen.nanoseconds,
        String::from_utf8_lossy(first),
        seen.device,
        content.len(),
        images::digest(&content),
    )
}

fn listing(tree: BTreeMap<Vec<u8>, Seen>) -> Vec<String> {
    let mut first: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for (path, seen) in &tree {
        first.entry(seen.inode).or_insert_with(|| path.clone());
    }
    tree.iter().map(|(path, seen)| compared(path, seen, &first[&seen.inode])).collect()
}

#[test]
fn an_image_is_entry_by_entry_what_umoci_unpacks() {
    let folder = tempfile::tempdir_in(state()).unwrap();
    let at = |name: &str| folder.path().join(name);
    let tree = at("tree");
    fs::create_dir(&tree).unwrap();
    tricky(&tree);
    let layout = at("layout");
    let image = format!("{}:latest", layout.display());
    done("/usr/bin/umoci", &["init".as_ref(), "--layout".as_ref(), layout.as_os_str()]);
    done("/usr/bin/umoci", &["new".as_ref(), "--image".as_ref(), image.as_ref()]);
    let add = |archive: &Path| {
        let words = ["raw".as_ref(), "add-layer".as_ref(), "--image".as_ref(), image.as_ref()];
        done("/usr/bin/umoci", &[&words[..], &[archive.as_os_str()]].concat());
    };
    // The same folder twice: PAX with everything, then some of it as GNU has it.
    for (name, format, what) in [("pax.tar", "pax", "."), ("gnu.tar", "gnu", "deep")] {
        let archive = at(name);
        let format = format!("--format={format}");
        let flags = ["--sparse", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--create", "--file"];
        let flags: Vec<&OsStr> = flags[..if format.ends_with("gnu") { 2 } else { 4 }]
            .iter()
            .chain(&flags[4..])
            .map(OsStr::new)
            .collect();
        let folder = ["--directory".as_ref(), tree.as_os_str(), what.as_ref()];
        done("/usr/bin/tar", &[&[format.as_ref()], &flags[..], &[archive.as_os_str()], &folder].concat());
        add(&archive);
    }
    fs::write(at("above.tar"), above()).unwrap();
    add(&at("above.tar"));

    let bundle = at("bundle");
    let words = ["unpack".as_ref(), "--image".as_ref(), image.as_ref(), bundle.as_os_str()];
    done("/usr/bin/umoci", &words);
    let theirs = listing(walk(&bundle.join("rootfs")));

    let reference = format!("{REGISTRY}/exact/umoci:1");
    images::push(&layout, &reference).unwrap();
    banger("alice", &["image", "pull", &reference, "--name", "exact", "--size", "256M"]).expect(0);
    let exported = "/run/home/alice/exact.ext4";
    banger("alice", &["image", "export", "exact", "--output", exported]).expect(0);
    let jobs = banger("alice", &["job", "ls", "--format", "json"]).expect(0).json();
    banger("alice", &["image", "rm", "exact"]).expect(0);
    let mounted = Mounted::new(Path::new(exported), at("mounted"));
    let mut ours = walk(&mounted.at);
    // mke2fs makes it, so banger does.
    ours.remove(b"/lost+found".as_slice());
    drop(mounted);
    fs::remove_file(exported).unwrap();
    let names = ours.len() as u64 - 1;
    let ours = listing(ours);

    assert!(ours.len() > 60, "{} entries", ours.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    // The job has counted them.
    let all = jobs.as_array().unwrap();
    let pull = all.iter().rfind(|job| job["kind"] == "pull-image" && job["subject"] == "exact").unwrap();
    assert_eq!(pull["entries"], names, "{pull}");
}
