//! Bundles as they should be, and every way in which they should not.

use super::*;
use crate::Limits;
use proptest::prelude::*;
use std::{fs, os::unix::fs::MetadataExt};

/// A megabyte that begins like an ext4 filesystem and has data at three places.
fn filesystem() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let block = &mut bytes[1024..2048];
    block[4..8].copy_from_slice(&256u32.to_le_bytes());
    block[24..28].copy_from_slice(&2u32.to_le_bytes());
    block[56..58].copy_from_slice(&[0x53, 0xef]);
    block[96..100].copy_from_slice(&0x40u32.to_le_bytes());
    bytes[300_000..310_000].fill(7);
    bytes[(1 << 20) - 1] = 1;
    bytes
}

const TEXT: &[u8] = br#"{"format": 1, "size": 1048576, "cmd": ["/bin/sh"], "kernel": "6.1"}"#;

/// One file of an archive. `kind` and `size` may lie.
fn file(name: &str, kind: tar::EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn regular(name: &str, data: &[u8]) -> Vec<u8> {
    file(name, tar::EntryType::Regular, data.len() as u64, data)
}

fn manifest() -> Vec<u8> {
    regular(MANIFEST, TEXT)
}

fn rootfs() -> Vec<u8> {
    regular(ROOTFS, &filesystem())
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

fn pack(parts: &[Vec<u8>]) -> Vec<u8> {
    zstd::encode_all(&parts.concat()[..], 1).unwrap()
}

type Unpacked = (Manifest, Bytes, Bytes);

/// Unpacks, and looks at what is left of it.
fn unpacked(bundle: &[u8], limits: &Limits) -> (Result<Unpacked, ImageError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let made = unpack(&mut &bundle[..], &folder.path().join(ROOTFS), limits, Bytes(bundle.len() as u64));
    (made, folder)
}

#[test]
fn both_orders_are_a_bundle_and_zeros_stay_holes() {
    for parts in [[manifest(), rootfs(), end()], [rootfs(), manifest(), end()]] {
        let (made, folder) = unpacked(&pack(&parts), &Limits::default());
        let (manifest, size, content) = made.unwrap();
        assert_eq!((manifest.config.cmd, size), (vec!["/bin/sh".to_owned()], Bytes::mib(1)));
        // The first block, the 10,000 bytes in three of them, and the last.
        assert_eq!(content, Bytes(5 * 4096));
        let path = folder.path().join(ROOTFS);
        assert!(fs::read(&path).unwrap() == filesystem());
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.mode() & 0o777, 0o600);
        assert!(meta.blocks() * 512 < 256 << 10, "{} blocks", meta.blocks());
    }
    // What archivers add to fill up their record is fine.
    assert!(unpacked(&pack(&[manifest(), rootfs(), end(), vec![0; 9216]]), &Limits::default()).0.is_ok());
}

#[test]
fn everything_else_is_refused() {
    use tar::EntryType as Kind;
    let odd = |kind| file(ROOTFS, kind, 0, b"");
    let packed = pack(&[manifest(), rootfs(), end()]);
    let with = |extra: &[u8]| [&packed[..], extra].concat();
    let mut small = filesystem();
    small[1024 + 4] = 1;
    small[1024 + 5] = 2;
    let mut ext2 = filesystem();
    ext2[1024 + 96] = 2;
    let mut huge = filesystem();
    huge[1024 + 96] = 0xc0;
    huge[1024 + 336] = 255;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "ends early"),
        ("no frame", b"PK\x03\x04 something".to_vec(), "cannot be unpacked"),
        ("no archive", pack(&[vec![7; 4096]]), "octal"),
        ("one file", pack(&[rootfs(), end()]), "lacks one"),
        ("no file", pack(&[end()]), "lacks one"),
        ("twice", pack(&[manifest(), manifest(), end()]), "twice"),
        ("rootfs twice", pack(&[rootfs(), rootfs(), end()]), "twice"),
        ("a third", pack(&[manifest(), rootfs(), regular("x", b"")]), "another file"),
        ("a third, known", pack(&[manifest(), rootfs(), manifest(), end()]), "more than its two"),
        (
            "another path form",
            pack(&[manifest(), regular("./rootfs.ext4", &filesystem()), end()]),
            "another file",
        ),
        ("absolute", pack(&[manifest(), regular("/rootfs.ext4", &filesystem()), end()]), "another file"),
        ("above", pack(&[manifest(), regular("../rootfs.ext4", &filesystem()), end()]), "another file"),
        ("folder", pack(&[file("x", Kind::Directory, 0, b""), manifest(), rootfs(), end()]), "other than"),
        ("symlink", pack(&[manifest(), odd(Kind::Symlink), end()]), "other than"),
        ("hard link", pack(&[manifest(), odd(Kind::Link), end()]), "other than"),
        ("device", pack(&[manifest(), odd(Kind::Block), end()]), "other than"),
        ("sparse", pack(&[manifest(), odd(Kind::GNUSparse), end()]), "other than"),
        ("pax", pack(&[file("x", Kind::XHeader, 0, b""), manifest(), rootfs(), end()]), "other than"),
        (
            "global pax",
            pack(&[file("x", Kind::XGlobalHeader, 0, b""), manifest(), rootfs(), end()]),
            "other than",
        ),
        (
            "long name",
            pack(&[file("x", Kind::GNULongName, 0, b""), manifest(), rootfs(), end()]),
            "other than",
        ),
        ("no end", pack(&[manifest(), rootfs()]), "ends early"),
        ("half an end", pack(&[manifest(), rootfs(), vec![0; 512]]), "ends early"),
        ("an end and more", pack(&[manifest(), rootfs(), vec![0; 512], vec![1; 512]]), "damaged"),
        ("more after the end", pack(&[manifest(), rootfs(), end(), vec![0, 1]]), "after its archive"),
        ("endless", pack(&[manifest(), rootfs(), end(), vec![0; (1 << 20) + 1]]), "no end"),
        ("after the frame", with(b"x"), "after its zstd frame"),
        ("a second frame", with(&pack(&[vec![]])), "after its zstd frame"),
        ("a skippable frame", with(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]), "after its zstd frame"),
        ("cut", packed[..packed.len() - 3].to_vec(), "ends early"),
        (
            "size above",
            pack(&[manifest(), file(ROOTFS, Kind::Regular, 2 << 20, &filesystem()), end()]),
            "ends early",
        ),
        ("size below", pack(&[manifest(), file(ROOTFS, Kind::Regular, 1 << 19, &filesystem()), end()]), ""),
        (
            "another size",
            pack(&[regular(MANIFEST, br#"{"format": 1, "size": 4096}"#), rootfs(), end()]),
            "another size",
        ),
        ("no manifest", pack(&[regular(MANIFEST, b"{}"), rootfs(), end()]), "manifest of the bundle"),
        (
            "long manifest",
            pack(&[file(MANIFEST, Kind::Regular, LONGEST_MANIFEST + 1, b""), end()]),
            "manifest",
        ),
        ("empty rootfs", pack(&[manifest(), regular(ROOTFS, b""), end()]), "empty"),
        ("no filesystem", pack(&[manifest(), regular(ROOTFS, &[1; 8192]), end()]), "no ext4"),
        ("short filesystem", pack(&[manifest(), regular(ROOTFS, &filesystem()[..1500]), end()]), "no ext4"),
        ("ext2", pack(&[manifest(), regular(ROOTFS, &ext2), end()]), "no ext4"),
        ("beyond its file", pack(&[manifest(), regular(ROOTFS, &small), end()]), "larger than its file"),
        ("beyond all files", pack(&[manifest(), regular(ROOTFS, &huge), end()]), "larger than its file"),
        (
            "size of exabytes",
            pack(&[manifest(), file(ROOTFS, Kind::Regular, 1 << 62, b""), end()]),
            "size of the filesystem",
        ),
    ];
    for (what, bundle, word) in cases {
        match unpacked(&bundle, &Limits::default()).0 {
            Err(ImageError::Unsafe(why)) => assert!(why.to_string().contains(word), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_bomb_stops_at_its_bounds() {
    let limits = Limits { ratio: 2, ratio_from: Bytes(4096), ..Limits::default() };
    let noisy: Vec<u8> =
        filesystem().iter().enumerate().map(|(at, b)| if at < 2048 { *b } else { 3 }).collect();
    let bundle = pack(&[manifest(), regular(ROOTFS, &noisy), end()]);
    let error = unpacked(&bundle, &limits).0.unwrap_err().to_string();
    assert!(error.contains("data of the bundle's filesystem"), "{error}");
    let limits = Limits { unpacked: Bytes::kib(512), ..Limits::default() };
    let error = unpacked(&pack(&[manifest(), rootfs(), end()]), &limits).0.unwrap_err().to_string();
    assert!(error.contains("size of the filesystem"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), packed: bool) {
        let bundle = if packed { pack(&[bytes]) } else { bytes };
        prop_assert!(unpacked(&bundle, &Limits::default()).0.is_err());
    }

    /// Whatever byte of the archive is another: it is taken as it is, or refused.
    #[test]
    fn a_changed_archive_never_panics(at in 0usize..4096, byte: u8) {
        let mut archive = [manifest(), rootfs(), end()].concat();
        archive[at] = byte;
        let _ = unpacked(&zstd::encode_all(&archive[..], 1).unwrap(), &Limits::default());
    }
}
