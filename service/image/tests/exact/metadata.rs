//! Owners, permissions, times and attributes.

use crate::{
    fake::{Layer, archive::Archive, quick},
    support::{pull_one, pull_with},
};
use banger_image::{ImageError, Unsupported};

/// Numbers of the namespaces, as ext4 stores them (kernel: fs/ext4/xattr.h).
const USER: u8 = 1;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

/// Why ext4 cannot hold an archive.
async fn unsupported(archive: Archive) -> String {
    match pull_with(vec![Layer::gzip(archive.end())], quick()).await.map(|tree| tree.show()) {
        Err(ImageError::Unsupported(error @ Unsupported::Entry { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn xattrs_up_to_the_limit_of_the_filesystem() {
    // A block has room for 4060 bytes, of which this attribute's entry takes 20; the inode has 88.
    let (in_block, in_inode) = (vec![7; 4040], vec![8; 68]);
    let archive = Archive::new().xattr("user.a", &in_block).xattr("user.b", &in_inode).file("file", "x");
    let archive = archive.xattr("trusted.overlay.opaque", "y").xattr("user.empty", "").dir("dir");
    let tree = pull_one(archive.end()).await;
    assert_eq!(tree.xattr("/file", USER, "a"), Some(&in_block[..]));
    assert_eq!(tree.xattr("/file", USER, "b"), Some(&in_inode[..]));
    assert_eq!(tree.xattr("/dir", TRUSTED, "overlay.opaque"), Some(&b"y"[..]));
    assert_eq!(tree.xattr("/dir", USER, "empty"), Some(&b""[..]));
}

#[tokio::test]
async fn xattrs_one_byte_above_the_limit_are_unsupported_with_a_sentence() {
    for (a, b) in [(4041, 68), (4040, 69)] {
        let archive = Archive::new().xattr("user.a", vec![7; a]).xattr("user.b", vec![8; b]);
        let sentence = unsupported(archive.file("etc/file", "x")).await;
        assert!(sentence.contains("file\" cannot be stored: extended attributes of "), "{sentence}");
        assert!(sentence.contains("do not fit one node: there is room for about 4148"), "{sentence}");
    }
    let name = format!("user.{}", "n".repeat(256));
    let sentence = unsupported(Archive::new().xattr(&name, "x").file("file", "x")).await;
    assert!(sentence.contains("cannot be stored: extended attribute"), "{sentence}");
}

#[tokio::test]
async fn file_capabilities_of_both_versions() {
    // cap_net_raw+ep of version 2, and of version 3 with the root user id 100000 (capabilities(7)).
    let second = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let third = [1, 0, 0, 3, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x86, 1, 0];
    let archive = Archive::new().xattr("security.capability", second).mode(0o755).file("ping", "x");
    let archive = archive.xattr("security.capability", third).mode(0o755).file("ping6", "x");
    let tree = pull_one(archive.end()).await;
    assert_eq!(tree.xattr("/ping", SECURITY, "capability"), Some(&second[..]));
    assert_eq!(tree.xattr("/ping6", SECURITY, "capability"), Some(&third[..]));
}

#[tokio::test]
async fn ids_above_65535_and_up_to_the_largest() {
    const LARGEST: u32 = u32::MAX - 1;
    let ids = [0, 65_534, 65_535, 65_536, 1 << 31, LARGEST];
    let mut archive = Archive::new();
    for id in ids {
        let text = id.to_string();
        archive = archive.pax("uid", &text).pax("gid", &text).file(format!("pax-{id}"), "x");
        // GNU has no extended header for it: eight bytes of base 256.
        let mut block = crate::fake::archive::header(b'0', format!("gnu-{id}").as_bytes(), b"", 0o644, 0);
        block[108..116].copy_from_slice(&(u64::from(id) | 1 << 63).to_be_bytes());
        block[116..124].copy_from_slice(&(u64::from(LARGEST - id) | 1 << 63).to_be_bytes());
        archive = archive.bytes(&crate::fake::archive::sealed(block));
    }
    let tree = pull_one(archive.end()).await;
    for id in ids {
        let (pax, gnu) = (tree.get(format!("/pax-{id}")), tree.get(format!("/gnu-{id}")));
        assert_eq!((pax.uid, pax.gid), (id, id));
        assert_eq!((gnu.uid, gnu.gid), (id, LARGEST - id));
    }
    for beyond in ["4294967295", "4294967296", "-1"] {
        let sentence = unsupported(Archive::new().pax("uid", beyond).file("file", "x")).await;
        assert!(sentence.contains("out of range"), "{sentence}");
    }
}

#[tokio::test]
async fn permissions_with_setuid_setgid_and_sticky() {
    let mut archive = Archive::new();
    for mode in [0o0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777] {
        archive = archive.mode(mode).file(format!("{mode:o}"), "x").mode(mode).dir(format!("d{mode:o}"));
    }
    let tree = pull_one(archive.end()).await;
    for mode in [0o0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777] {
        assert_eq!(tree.get(format!("/{mode:o}")).mode, 0o100_000 | mode);
        assert_eq!(tree.get(format!("/d{mode:o}")).mode, 0o040_000 | mode);
    }
}

#[tokio::test]
async fn times_before_1970_and_past_2038_with_nanoseconds() {
    let times = [
        ("0", 0, 0),
        ("-1", -1, 0),
        ("-0.000000001", -1, 999_999_999),
        ("-2147483648", -(1 << 31), 0),
        ("-2147483647.5", -(1 << 31), 500_000_000),
        ("2147483647.999999999", (1 << 31) - 1, 999_999_999),
        ("2147483648.000000001", 1 << 31, 1),
        ("4294967296.123456789", 1 << 32, 123_456_789),
        ("8000000000.123456789", 8_000_000_000, 123_456_789),
        // The last one that ext4 and e2fsck agree on.
        ("10737418239.999999999", 10_737_418_239, 999_999_999),
    ];
    let mut archive = Archive::new();
    for (text, ..) in times {
        archive = archive.pax("mtime", text).file(format!("f{text}"), "x");
        archive = archive.pax("mtime", text).dir(format!("d{text}"));
        archive = archive.pax("mtime", text).symlink(format!("s{text}"), "x");
    }
    let tree = pull_one(archive.end()).await;
    for (text, seconds, nanoseconds) in times {
        for kind in ["f", "d", "s"] {
            let seen = tree.get(format!("/{kind}{text}"));
            assert_eq!((seen.seconds, seen.nanoseconds), (seconds, nanoseconds), "{kind}{text}");
        }
    }
}

#[tokio::test]
async fn devices_and_fifos() {
    let node = |kind, name: &[u8], major: u64, minor: u64| {
        let mut block = crate::fake::archive::header(kind, name, b"", 0o600, 0);
        crate::fake::archive::number(&mut block[329..337], major);
        crate::fake::archive::number(&mut block[337..345], minor);
        crate::fake::archive::sealed(block)
    };
    let archive = Archive::new()
        .bytes(&node(b'3', b"null", 1, 3))
        .bytes(&node(b'4', b"sda", 8, 0))
        .bytes(&node(b'3', b"large", 4095, 1_048_575))
        .entry(b'6', "pipe", "", "");
    let tree = pull_one(archive.end()).await;
    assert_eq!((tree.get("/null").mode, tree.get("/null").device), (0o020_600, (0x103, 0)));
    assert_eq!((tree.get("/sda").mode, tree.get("/sda").device), (0o060_600, (0x800, 0)));
    // The kernel's new encoding: 12 bits of major between 8 low and 12 high bits of minor.
    assert_eq!(tree.get("/large").device, (0, 0xffff_ffff));
    assert_eq!(tree.get("/pipe").mode, 0o010_644);
    let sentence = unsupported(Archive::new().bytes(&node(b'3', b"beyond", 4096, 0))).await;
    assert!(sentence.contains("4096:0"), "{sentence}");
}
