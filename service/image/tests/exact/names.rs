//! Names: PAX and GNU, long, deep, and of any bytes.

use crate::{
    fake::{Layer, archive::Archive, quick},
    support::{pull_one, pull_with},
};
use banger_image::{ImageError, Unsafe, Unsupported};

#[tokio::test]
async fn pax_names_and_targets() {
    let (name, target) = ("n".repeat(250), "t".repeat(3000));
    let archive = Archive::new().symlink(&name, &target).hard_link("hard", &name);
    // In the header's own prefix and name.
    let mut block = crate::fake::archive::header(b'0', b"name", b"", 0o644, 0);
    block[345..352].copy_from_slice(b"pre/fix");
    let tree = pull_one(archive.bytes(&crate::fake::archive::sealed(block)).end()).await;
    assert_eq!(tree.content(format!("/{name}")), target.as_bytes());
    assert_eq!(tree.get("/hard").inode, tree.get(format!("/{name}")).inode);
    assert!(tree.has("/pre/fix/name"));
}

#[tokio::test]
async fn gnu_long_names_and_targets() {
    let (name, target) = (format!("{}/{}", "d".repeat(200), "n".repeat(200)), "t".repeat(4000));
    let archive = Archive::new().gnu_long(b'K', &target).gnu_long(b'L', &name).symlink("short", "short");
    let tree = pull_one(archive.file("next", "x").end()).await;
    assert_eq!(tree.content(format!("/{name}")), target.as_bytes());
    assert_eq!(tree.content("/next"), b"x", "a long name is for one entry");
    assert!(!tree.has("/short"));
}

#[tokio::test]
async fn names_that_are_not_utf_8() {
    let latin: &[u8] = b"caf\xe9";
    let every: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    let archive = Archive::new()
        .file(latin, "header")
        .pax("path", [latin, b"-pax"].concat())
        .file("x", "pax")
        .gnu_long(b'L', [latin, b"-gnu"].concat())
        .file("x", "gnu")
        .file(&every, "all")
        .symlink("link", b"\xff\xfe");
    let tree = pull_one(archive.end()).await;
    assert_eq!(tree.content(b"/caf\xe9"), b"header");
    assert_eq!(tree.content(b"/caf\xe9-pax"), b"pax");
    assert_eq!(tree.content(b"/caf\xe9-gnu"), b"gnu");
    assert_eq!(tree.content([b"/", every.as_slice()].concat()), b"all");
    assert_eq!(tree.content("/link"), b"\xff\xfe");
}

#[tokio::test]
async fn names_of_255_bytes_and_no_longer_ones() {
    let longest = "n".repeat(255);
    let archive = Archive::new().dir(&longest).file(format!("{longest}/{longest}"), "x").end();
    assert_eq!(pull_one(archive).await.content(format!("/{longest}/{longest}")), b"x");
    let archive = Archive::new().file("n".repeat(256), "x").end();
    match pull_with(vec![Layer::plain(archive)], quick()).await.map(|tree| tree.show()) {
        Err(ImageError::Unsupported(Unsupported::Entry { why, .. })) => {
            assert_eq!(why, "a file name has at most 255 bytes, not 256");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn paths_as_deep_as_path_max() {
    // 4095 bytes, PATH_MAX without its NUL: 2047 directories and a file.
    let deepest = format!("{}f", "d/".repeat(2047));
    let archive = Archive::new().file(&deepest, "deep").hard_link("link", &deepest).end();
    let tree = pull_one(archive).await;
    assert_eq!(tree.content(format!("/{deepest}")), b"deep");
    assert_eq!(tree.get("/link").inode, tree.get(format!("/{deepest}")).inode);
    for archive in [
        Archive::new().file(format!("d{deepest}"), "x"),
        Archive::new().file("f", "x").hard_link("link", format!("d{deepest}")),
        // Short in the archive, long in the image.
        Archive::new()
            .dir("d/".repeat(1500))
            .symlink("s", "d/".repeat(1500))
            .dir(format!("s/{}", "d/".repeat(1500))),
    ] {
        match pull_with(vec![Layer::gzip(archive.end())], quick()).await.map(|tree| tree.show()) {
            Err(ImageError::Unsafe(Unsafe::Limit { what, limit: 4095, .. })) => {
                assert_eq!(what, "the length of a path");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn targets_of_symbolic_links_up_to_a_block() {
    let longest = "t".repeat(4095);
    let tree = pull_one(Archive::new().symlink("s", &longest).symlink("abs", "/etc/x").end()).await;
    assert_eq!((tree.content("/s"), tree.content("/abs")), (longest.into_bytes(), b"/etc/x".to_vec()));
    for bad in ["t".repeat(4096), String::new()] {
        let archive = Archive::new().symlink("s", &bad).end();
        let error =
            pull_with(vec![Layer::plain(archive)], quick()).await.map(|tree| tree.show()).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(Unsupported::Entry { .. })), "{error}");
    }
}
