//! The kernel mounts what banger-ext4 writes, and shows entry by entry what went in.
//!
//! Needs root for loop devices and mounts; each test has a mount namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

#[path = "../../service/ext4/tests/support/mounted.rs"]
mod mounted;
#[path = "../../service/ext4/tests/support/mod.rs"]
mod support;
#[path = "../../service/ext4/tests/support/vm.rs"]
mod vm;

use banger_ext4::{Metadata, Options, Size, Timestamp, Writer, Xattr};
use mounted::{Mounted, extents, get, walk};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use support::tools::e2fsck;
use support::trees::{Item, What, compare, items, options, write};

/// The kernel gives user attributes of files and directories only.
fn readable(mut items: Vec<Item>) -> Vec<Item> {
    for item in &mut items {
        if !matches!(item.what, What::File(_) | What::Directory) {
            item.metadata.xattrs.retain(|xattr| !xattr.name.starts_with(b"user."));
        }
    }
    items
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}

fn writer(path: &Path, expected: u64) -> Writer<File> {
    Writer::new(File::create(path).unwrap(), Options { expected, ..options() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_are_what_went_in(items in items(0..80), size in 0u64..2 << 30) {
        let items = readable(items);
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().unwrap();
            let image = folder.path().join("image");
            let (model, _) = support::trees::image(&items, Size::AtLeast(size), &image).unwrap();
            let mounted = Mounted::new(&image, folder.path().join("at"));
            compare(&model, &walk(&mounted.at));
            drop(mounted);
            e2fsck(&image);
        })
        .join()
        .unwrap();
    }
}

#[test]
fn capabilities_and_acls_work() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut writer = writer(&image, 0);
    // cap_net_raw+ep, as setcap writes it: version 2, effective, permitted bit 13.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let none = [0xff; 4];
    let acl = |entries: &[(u8, u8, [u8; 4])]| {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            bytes.extend_from_slice(&[*tag, 0, *permissions, 0]);
            bytes.extend_from_slice(id);
        }
        bytes
    };
    let access = acl(&[
        (0x01, 7, none),
        (0x02, 6, [0xe8, 3, 0, 0]),
        (0x04, 5, none),
        (0x08, 4, [1, 0, 1, 0]),
        (0x10, 7, none),
        (0x20, 1, none),
    ]);
    let default = acl(&[(0x01, 7, none), (0x04, 5, none), (0x20, 0, none)]);
    let metadata = |xattrs| Metadata { mode: 0o771, xattrs, ..Metadata::default() };
    let content = writer.content().finish().unwrap();
    let both = vec![xattr("security.capability", &capability), xattr("system.posix_acl_access", &access)];
    writer.add_file(writer.root(), b"file", metadata(both), content).unwrap();
    let both = vec![xattr("system.posix_acl_default", &default), xattr("system.posix_acl_access", &access)];
    writer.add_dir(writer.root(), b"directory", metadata(both)).unwrap();
    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&image);

    let mounted = Mounted::new(&image, folder.path().join("at"));
    let (file, directory) = (mounted.at.join("file"), mounted.at.join("directory"));
    assert_eq!(get(&file, b"security.capability"), capability);
    assert_eq!(get(&file, b"system.posix_acl_access"), access);
    assert_eq!(get(&directory, b"system.posix_acl_access"), access);
    assert_eq!(get(&directory, b"system.posix_acl_default"), default);
    // The default takes effect: the umask would have left others their permissions.
    File::create(directory.join("new")).unwrap();
    assert_eq!(fs::metadata(directory.join("new")).unwrap().mode() & 0o007, 0);
}

#[test]
fn a_directory_of_200000_names_works() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut writer = writer(&image, 1 << 30);
    let large = writer.add_dir(writer.root(), b"large", Metadata::default()).unwrap();
    // Long names, so that the index has two levels; bytes above 127, so that their sign matters.
    let name = |i: u32| [format!("{i:06}-").as_bytes(), &[0xc3, 0xa9].repeat(20)].concat();
    let content = writer.content().finish().unwrap();
    let first = writer.add_file(large, &name(0), Metadata::default(), content).unwrap();
    for i in 1..200_000 {
        match i % 4 {
            0 => drop(writer.add_dir(large, &name(i), Metadata::default()).unwrap()),
            1 => writer.link(large, &name(i), first).unwrap_or_else(|_| {
                writer.add_fifo(large, &name(i), Metadata::default()).unwrap();
            }),
            _ => drop(writer.add_symlink(large, &name(i), Metadata::default(), b"target").unwrap()),
        }
    }
    writer.finish(Size::AtLeast(1 << 30)).unwrap();
    e2fsck(&image);

    let mounted = Mounted::new(&image, folder.path().join("at"));
    let large = mounted.at.join("large");
    assert_eq!(fs::read_dir(&large).unwrap().count(), 200_000);
    for i in 0..200_000 {
        let metadata = fs::symlink_metadata(large.join(OsStr::from_bytes(&name(i)))).unwrap();
        assert_eq!((metadata.is_dir(), metadata.is_symlink()), (i > 0 && i % 4 == 0, i % 4 > 1), "{i}");
    }
    let is_missing = |name: &str| fs::symlink_metadata(large.join(name)).is_err();
    assert!(is_missing("200000-") && is_missing("x"));
    // The kernel goes on with the index: blocks split, and are found afterwards.
    for i in 200_000..203_000 {
        File::create_new(large.join(OsStr::from_bytes(&name(i)))).unwrap();
    }
    for i in (0..203_000).step_by(3).filter(|i| i % 4 > 1) {
        fs::remove_file(large.join(OsStr::from_bytes(&name(i)))).unwrap();
    }
    drop(mounted);
    e2fsck(&image);
}

#[test]
fn large_and_sparse_files_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut writer = writer(&image, 2 << 30);
    let chunk: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    // Five extents and more in a row.
    let mut content = writer.content();
    for _ in 0..700 {
        content.write_all(&chunk).unwrap();
    }
    let content = content.finish().unwrap();
    writer.add_file(writer.root(), b"large", Metadata::default(), content).unwrap();
    // A piece every 4 MiB, over 6 GiB: a tree of extents.
    let pieces = 1536u64;
    let mut content = writer.content();
    for _ in 0..pieces {
        content.hole((4 << 20) - 5000).unwrap();
        content.write_all(&chunk[..5000]).unwrap();
    }
    let content = content.finish().unwrap();
    assert_eq!(content.size(), 6 << 30);
    writer.add_file(writer.root(), b"sparse", Metadata::default(), content).unwrap();
    // As large as a file can be.
    let most = u64::from(u32::MAX) * 4096;
    let mut content = writer.content();
    content.hole(most - 1).unwrap();
    content.write_all(b"x").unwrap();
    assert!(content.hole(1).is_err() && content.write_all(b"x").is_err());
    let content = content.finish().unwrap();
    writer.add_file(writer.root(), b"most", Metadata::default(), content).unwrap();
    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&image);

    let mounted = Mounted::new(&image, folder.path().join("at"));
    let mut large = File::open(mounted.at.join("large")).unwrap();
    let mut buffer = vec![0; chunk.len()];
    for _ in 0..700 {
        large.read_exact(&mut buffer).unwrap();
        assert!(buffer == chunk);
    }
    assert_eq!(large.read(&mut buffer).unwrap(), 0);
    let sparse = File::open(mounted.at.join("sparse")).unwrap();
    assert_eq!(sparse.metadata().unwrap().len(), 6 << 30);
    let found = extents(&sparse);
    assert_eq!(found.len() as u64, pieces);
    for ((at, bytes), i) in found.iter().zip(1..) {
        let (start, end) = ((i * (4 << 20)) - 5000, i * (4 << 20));
        assert_eq!((*at, *at + bytes.len() as u64), (start / 4096 * 4096, end));
        assert!(bytes[(start - at) as usize..] == chunk[..5000]);
    }
    let found = extents(&File::open(mounted.at.join("most")).unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0 + found[0].1.len() as u64, most);
    assert_eq!(found[0].1.last(), Some(&b'x'));
}

/// Grows a mounted image and writes to it, in a VM: a container's root may lack CAP_SYS_RESOURCE, which
/// growing takes.
fn grow(from: u64, to: u64, items: &[Item]) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut writer = writer(&image, from);
    let model = write(&mut writer, items).unwrap();
    assert_eq!(writer.finish(Size::Exactly(from)).unwrap().size, from);
    File::options().write(true).open(&image).unwrap().set_len(to).unwrap();
    let console = vm::run_with_disk(
        &image,
        "mount -t ext4 /dev/vda /mnt && resize2fs /dev/vda && df -k /mnt \
         && head -c 3000000 /dev/zero > /mnt/lost+found/new && rm /mnt/lost+found/new && umount /mnt && echo grown",
    );
    assert!(console.lines().any(|line| line == "grown"), "{console}");
    e2fsck(&image);

    let mounted = Mounted::new(&image, folder.path().join("at"));
    let stat = rustix::fs::statvfs(&mounted.at).unwrap();
    // Inode tables are 1/64 of it.
    let size = stat.f_blocks * stat.f_frsize;
    assert!(size > to / 100 * 98, "{size} of {to}: {console}");
    compare(&model, &walk(&mounted.at));
}

#[test]
fn a_mounted_image_grows() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = items(30..60).new_tree(&mut runner).unwrap();
    grow(1 << 30, 24 << 30, &readable(tree.current()));
}

#[test]
fn a_mounted_image_grows_to_1024_times_its_size() {
    grow(64 << 20, 64 << 30, &[]);
    grow(1 << 30, 1 << 40, &[]);
}

#[test]
fn the_kernel_keeps_what_it_finds() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut writer = writer(&image, 0);
    let content = writer.content().finish().unwrap();
    let late = Timestamp { seconds: 5_000_000_000, nanoseconds: 123_456_789 };
    let metadata = Metadata { mtime: late, ..Metadata::default() };
    writer.add_file(writer.root(), b"file", metadata, content).unwrap();
    writer.finish(Size::Exactly(64 << 20)).unwrap();
    let mounted = Mounted::new(&image, folder.path().join("at"));
    let file = mounted.at.join("file");
    let change = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::chmod(&file, change).unwrap();
    for i in 0..500 {
        fs::write(mounted.at.join(format!("new{i}")), vec![1; 10_000]).unwrap();
    }
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (5_000_000_000, 123_456_789));
    drop(mounted);
    e2fsck(&image);
}
