//! The reader: what the writer wrote and what mke2fs wrote read back equal, and no damage makes it panic or loop.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod support;

use banger_ext4::reader::{Data, Extent, Node, ReadAt, ReadError, Reader};
use banger_ext4::{NodeKind, Size, Writer};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use support::reader::Seen;
use support::trees::{compare, image, items, options, write};

/// Every path with its node and content, "" for the root.
fn walk<R: ReadAt>(reader: &Reader<R>) -> Result<BTreeMap<Vec<u8>, (Node, Content)>, ReadError> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(Vec::new(), reader.root()?)];
    while let Some((path, node)) = pending.pop() {
        // As the exporter does it: a directory has one name.
        if path.iter().filter(|b| **b == b'/').count() > 100 {
            return Err(ReadError::Damaged("it is too deep".into()));
        }
        let mut content = Vec::new();
        match node.kind {
            NodeKind::Directory => {
                for entry in reader.entries(&node)? {
                    pending.push(([&path, &b"/"[..], &entry.name].concat(), reader.node(entry.inode)?));
                }
            }
            NodeKind::File => match reader.data(&node)? {
                Data::Inline(data) => content.push((0, data)),
                Data::Extents(extents) => {
                    for Extent { offset, length, place } in extents {
                        // A damaged one can be long; a piece of it shows as much.
                        let mut data = vec![0; length.min(64 << 20) as usize];
                        reader.read(&mut data, place)?;
                        content.push((offset, data));
                    }
                }
            },
            NodeKind::Symlink => content.push((0, reader.target(&node)?)),
            _ => {}
        }
        found.insert(path, (node, content));
    }
    Ok(found)
}

type Content = Vec<(u64, Vec<u8>)>;

/// As the tests' own reader shows it.
fn seen((node, data): (Node, Content)) -> Seen {
    let kind = match node.kind {
        NodeKind::Fifo => 0o010_000,
        NodeKind::CharDevice => 0o020_000,
        NodeKind::Directory => 0o040_000,
        NodeKind::BlockDevice => 0o060_000,
        NodeKind::File => 0o100_000,
        NodeKind::Symlink => 0o120_000,
        NodeKind::Socket => 0o140_000,
    };
    let (major, minor) = node.device;
    let device = match major < 256 && minor < 256 {
        true => (major << 8 | minor, 0),
        false => (0, minor & 0xff | major << 8 | (minor >> 8) << 20),
    };
    let namespaces: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    let xattr = |name: &[u8]| {
        let (number, prefix) = namespaces.into_iter().find(|(_, prefix)| name.starts_with(prefix)).unwrap();
        (number, name[prefix.len()..].to_vec())
    };
    Seen {
        inode: node.inode,
        mode: kind | node.metadata.mode,
        uid: node.metadata.uid,
        gid: node.metadata.gid,
        links: node.links,
        size: node.size,
        seconds: node.metadata.mtime.seconds,
        nanoseconds: node.metadata.mtime.nanoseconds,
        data,
        device: if matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice) {
            device
        } else {
            (0, 0)
        },
        xattrs: node.metadata.xattrs.into_iter().map(|x| (xattr(&x.name), x.value)).collect(),
        indexed: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_reads_back(items in items(0..60), extra in 0u64..300 << 20) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let (model, summary) = image(&items, Size::AtLeast(extra), &path).unwrap();
        let reader = Reader::open(File::open(&path).unwrap()).unwrap();
        prop_assert_eq!(reader.superblock().bytes(), summary.size);
        prop_assert_eq!(reader.superblock().used(), summary.blocks_used * 4096);
        let found = walk(&reader).unwrap().into_iter().map(|(path, node)| (path, seen(node))).collect();
        compare(&model, &found);
    }

    #[test]
    fn damage_neither_panics_nor_loops(
        items in items(1..30),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut memory = Cursor::new(Vec::new());
        let mut writer = Writer::new(&mut memory, options()).unwrap();
        write(&mut writer, &items).unwrap();
        writer.finish(Size::AtLeast(0)).unwrap();
        let mut bytes = memory.into_inner();
        // Where there is nothing, nothing can be damaged.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, byte) in flips {
            bytes[*at.get(&used)] ^= byte;
        }
        if let Ok(reader) = Reader::open(&bytes[..]) {
            let _ = walk(&reader);
        }
    }
}

/// A filesystem that mke2fs fills from `folder`.
fn mke2fs(folder: &Path, image: &Path, arguments: &[&str]) {
    let made = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-d"])
        .arg(folder)
        .args(arguments)
        .arg(image)
        .arg("64M")
        .output()
        .expect("mke2fs (package e2fsprogs)");
    assert!(made.status.success(), "mke2fs {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A folder with one of each thing that an ordinary user can make.
fn sample(folder: &Path) {
    let at = |path: &str| folder.join(path);
    fs::create_dir_all(at("deep/er")).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("tiny"), b"inside the inode").unwrap();
    fs::write(at("small"), vec![b'x'; 150]).unwrap();
    fs::write(at("large"), (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    for piece in 0..40u64 {
        sparse.write_all_at(format!("piece {piece}").as_bytes(), piece * 300_000).unwrap();
    }
    // Not a hole: mke2fs forgets those at the end of a file.
    sparse.write_all_at(b"end", 20_000_000).unwrap();
    fs::hard_link(at("tiny"), at("deep/same")).unwrap();
    symlink("tiny", at("short-link")).unwrap();
    symlink("x/".repeat(300), at("long-link")).unwrap();
    fs::set_permissions(at("small"), fs::Permissions::from_mode(0o4711)).unwrap();
    for name in 0..2_000 {
        File::create(at("deep/er").join(format!("a name that is rather long, of number {name}"))).unwrap();
    }
}

/// Compares a folder of the host with what was read.
fn compare_folder(folder: &Path, path: &Path, found: &BTreeMap<Vec<u8>, (Node, Content)>) -> usize {
    let key = path.strip_prefix(folder).unwrap().as_os_str().as_bytes();
    let key = if key.is_empty() { Vec::new() } else { [b"/", key].concat() };
    let (node, content) = &found[&key];
    let host = fs::symlink_metadata(path).unwrap();
    let name = path.display();
    assert_eq!(u32::from(node.metadata.mode), host.mode() & 0o7777, "{name}");
    assert_eq!((node.metadata.uid, node.metadata.gid), (host.uid(), host.gid()), "{name}");
    if !host.is_dir() {
        assert_eq!((node.size, u64::from(node.links)), (host.len(), host.nlink()), "{name}");
    }
    if host.is_symlink() {
        assert_eq!(content[0].1, fs::read_link(path).unwrap().as_os_str().as_bytes(), "{name}");
    } else if host.is_file() {
        let mut whole = vec![0; host.len() as usize];
        for (offset, bytes) in content {
            whole[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
        }
        assert!(whole == fs::read(path).unwrap(), "{name}");
    } else if host.is_dir() {
        let below = fs::read_dir(path).unwrap();
        return 1 + below.map(|e| compare_folder(folder, &e.unwrap().path(), found)).sum::<usize>();
    }
    1
}

#[test]
fn what_mke2fs_made_reads_equal() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, image) = (folder.path().join("tree"), folder.path().join("image"));
    fs::create_dir(&tree).unwrap();
    sample(&tree);
    for arguments in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024", "-I", "128", "-O", "^64bit,^metadata_csum"],
        &["-t", "ext4", "-b", "2048", "-O", "inline_data"],
        &["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"],
        &["-t", "ext4", "-O", "bigalloc,^has_journal"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext2", "-b", "1024", "-I", "128", "-O", "^dir_index,^sparse_super,^resize_inode"],
    ] {
        mke2fs(&tree, &image, arguments);
        let reader = Reader::open(File::open(&image).unwrap()).unwrap();
        let found = walk(&reader).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let (here, _) = (compare_folder(&tree, &tree, &found), &found);
        // lost+found is in the image alone.
        assert_eq!(found.len(), here + 1, "{arguments:?}");
        let same = |path: &[u8]| found[path].0.inode;
        assert_eq!(same(b"/tiny"), same(b"/deep/same"), "{arguments:?}");
        fs::remove_file(&image).unwrap();
    }
}

#[test]
fn access_lists_and_attributes_of_others_read_as_the_kernel_gives_them() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::create_dir(folder.path().join("tree")).unwrap();
    fs::write(folder.path().join("tree/file"), b"x").unwrap();
    mke2fs(&folder.path().join("tree"), &image, &["-t", "ext4"]);
    let long = folder.path().join("long");
    fs::write(&long, [7; 900]).unwrap();
    for request in [
        "ea_set file user.short value".to_owned(),
        format!("ea_set -f {} file user.long", long.display()),
        "ea_set file security.capability capability".to_owned(),
    ] {
        let set =
            Command::new("/usr/sbin/debugfs").args(["-w", "-R", &request]).arg(&image).output().unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }
    let found = walk(&Reader::open(File::open(&image).unwrap()).unwrap()).unwrap();
    let mut xattrs = found[&b"/file"[..]].0.metadata.xattrs.clone();
    xattrs.sort();
    let read: Vec<_> = xattrs.iter().map(|x| (&x.name[..], &x.value[..])).collect();
    let expected: [(&[u8], &[u8]); 3] =
        [(b"security.capability", b"capability"), (b"user.long", &[7; 900]), (b"user.short", b"value")];
    assert_eq!(read, expected);
}

#[test]
fn what_a_guest_could_not_mount_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let refusal = |change: &[(u64, u8)]| {
        let writer = Writer::new(File::create(&image).unwrap(), options()).unwrap();
        writer.finish(Size::AtLeast(0)).unwrap();
        let file = File::options().read(true).write(true).open(&image).unwrap();
        for (at, byte) in change {
            file.write_all_at(&[*byte], 1024 + at).unwrap();
        }
        Reader::open(file).map(drop)
    };
    assert!(refusal(&[]).is_ok());
    assert!(matches!(refusal(&[(56, 0)]), Err(ReadError::NotExt4)));
    for unclean in [&[(58, 0)][..], &[(58, 3)], &[(96, 0xc6)], &[(102, 1)]] {
        let error = refusal(unclean).unwrap_err();
        assert!(matches!(error, ReadError::Unclean { .. }), "{unclean:?}: {error}");
        assert!(error.to_string().ends_with("run e2fsck first"), "{error}");
    }
    for unknown in [(96, 0xc3), (97, 0x12), (98, 2), (101, 0x14), (101, 0x44), (24, 6)] {
        let error = refusal(&[unknown]).unwrap_err();
        assert!(matches!(error, ReadError::Unsupported(_)), "{unknown:?}: {error}");
    }
    for impossible in [(24, 200), (88, 3), (40, 0), (4, 0)] {
        // Some need the whole field to be zero.
        let (at, byte) = impossible;
        let field: Vec<_> = (at..at + 4).map(|at| (at, byte)).collect();
        let error = refusal(&field).unwrap_err();
        assert!(matches!(error, ReadError::Damaged(_)), "{impossible:?}: {error}");
    }
}
