//! Broken and hostile images: refused as unsafe, and nothing is left (`Client::pull` looks at staging and blobs).

use crate::{
    fake::{
        Client, Image, Layer, Registry, Reply,
        archive::{Archive, header, sealed},
        noise, quick,
    },
    support::{pull_one, pull_with},
};
use banger_image::{Digest, ImageError, Limits, Unsafe};
use banger_model::Bytes;
use serde_json::json;

/// Why layers are refused as unsafe.
async fn refused_with(layers: Vec<Layer>, limits: Limits) -> Unsafe {
    match pull_with(layers, limits).await {
        Err(ImageError::Unsafe(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(tree) => panic!("it is taken: {}", tree.show()),
    }
}

/// Asserts that the archives are refused, each for the reason beside it.
async fn refused(archives: Vec<(Archive, &str)>) {
    for (archive, why) in archives {
        let error = refused_with(vec![Layer::gzip(archive.end())], quick()).await.to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn dot_dot_is_refused_wherever_it_stands() {
    let new = Archive::new;
    refused(vec![
        (new().file("../x", "x"), "\"..\""),
        (new().file("a/../../etc/passwd", "x"), "\"..\""),
        (new().file("a/..", "x"), "\"..\""),
        (new().dir(".."), "\"..\""),
        (new().file("/../x", "x"), "\"..\""),
        (new().pax("path", "../x").file("y", "x"), "\"..\""),
        (new().gnu_long(b'L', "../x").file("y", "x"), "\"..\""),
        (new().file("a", "x").hard_link("b", "../a"), "\"..\""),
        (new().file("a", "x").hard_link("b", "d/../a"), "\"..\""),
        (new().file("a/../.wh.b", "x"), "\"..\""),
        (new().file(".wh...", ""), "whiteout of nothing"),
        (new().file(".wh..", ""), "whiteout of nothing"),
        (new().file(".wh.", ""), "whiteout of nothing"),
    ])
    .await;
}

#[tokio::test]
async fn absolute_names_and_links_stay_inside_the_image() {
    let archive = Archive::new()
        .file("/etc/passwd", "image's")
        .symlink("out", "/../../../etc")
        .file("out/shadow", "image's too")
        .hard_link("hard", "/etc/passwd");
    let tree = pull_one(archive.end()).await;
    let expected = "etc/ etc/passwd=image's etc/shadow=image's too hard==etc/passwd out->/../../../etc";
    assert_eq!(tree.show(), expected);
    // What exists on the host only is not there to be linked to.
    refused(vec![(Archive::new().hard_link("hard", "/etc/passwd"), "not there")]).await;
}

#[tokio::test]
async fn root_tricks_are_refused() {
    for name in [".", "./", "/", "//", "/.", "./."] {
        for kind in [b'0', b'2', b'3', b'4', b'6'] {
            let error =
                refused_with(vec![Layer::plain(Archive::new().entry(kind, name, "x", "").end())], quick());
            let error = error.await.to_string();
            assert!(error.contains("the root must be a directory"), "{name:?} of type {kind}: {error}");
        }
        let archive = Archive::new().file("a", "a").hard_link(name, "a");
        refused(vec![(archive, "the root must be a directory")]).await;
        let archive = Archive::new().file("a", "a").hard_link("b", name);
        refused(vec![(archive, "hard link")]).await;
        // As a directory it is the root, however often it comes.
        let archive = Archive::new().dir(name).file("a", "a").mode(0o711).dir(name);
        let tree = pull_one(archive.end()).await;
        assert_eq!((tree.show().as_str(), tree.get("").mode), ("a=a", 0o040_711));
    }
    for kind in [b'0', b'1', b'2', b'5'] {
        refused(vec![(Archive::new().file("a", "a").entry(kind, "", "a", ""), "it has no name")]).await;
    }
}

#[tokio::test]
async fn parents_that_are_no_directories_are_refused() {
    let new = Archive::new;
    refused(vec![
        (new().file("a", "x").file("a/b", "x"), "something else than a folder"),
        (new().entry(b'6', "a", "", "").dir("a/b"), "something else than a folder"),
        (new().entry(b'3', "a", "", "").symlink("a/b", "c"), "something else than a folder"),
        (new().file("f", "x").hard_link("a", "f").file("a/b", "x"), "something else than a folder"),
        (new().file("f", "x").symlink("a", "f").file("a/b", "x"), "something else than a folder"),
        (new().symlink("a", "b").symlink("b", "a").file("a/x", "x"), "circle"),
        (new().symlink("a", "a").dir("a/x"), "circle"),
        (new().symlink("a", "a/a").file("a/x", "x"), "circle"),
        (new().file("a/b", "x").file("a", "x"), "replaces a directory"),
        (new().file(".wh.a/b", "x"), "below a whiteout"),
    ])
    .await;
}

#[tokio::test]
async fn hard_links_to_nothing_and_to_directories_are_refused() {
    let new = Archive::new;
    refused(vec![
        (new().hard_link("a", "b"), "not there"),
        (new().hard_link("a", "a"), "itself"),
        (new().dir("d").hard_link("a", "d"), "directory"),
        (new().hard_link("a", "b").hard_link("b", "a"), "not there"),
    ])
    .await;
    for (lower, upper) in
        [(new().dir("d"), new().hard_link("a", "d")), (new().file("c", "x"), new().hard_link("a", "c/d"))]
    {
        let layers = vec![Layer::plain(lower.end()), Layer::plain(upper.end())];
        assert!(matches!(refused_with(layers, quick()).await, Unsafe::Entry { .. }));
    }
}

#[tokio::test]
async fn sizes_that_lie_are_refused() {
    let new = Archive::new;
    let sparse = |real: &str, map: &str| new().pax("GNU.sparse.size", real).pax("GNU.sparse.map", map);
    refused(vec![
        (new().says_size(5000).file("a", "short"), "ends early"),
        (new().says_size(1 << 40).file("a", "short"), "ends early"),
        (new().says_size(1 << 62).file("a", "short"), "ends early"),
        (new().says_size(3).file("a", vec![b'x'; 2000]), "is damaged"),
        (new().says_size(0).file("a", "not a header"), "is damaged"),
        (new().pax("size", "9999").file("a", "short"), "ends early"),
        (new().pax("size", "18446744073709551615").file("a", "short"), "ends early"),
        (new().pax("size", "99999999999999999999").file("a", "short"), "not a number"),
        (new().pax("size", "-1").file("a", "short"), "not a number"),
        (sparse("4", "0,5").file("a", "12345"), "beyond its file"),
        (sparse("100", "0,4").file("a", "12345"), "does not fit its data"),
        (sparse("100", "0,6").file("a", "12345"), "does not fit its data"),
        (sparse("100", "3,3,5,2").file("a", "12345"), "overlap"),
        (sparse("100", "18446744073709551615,5").file("a", "12345"), "out of range"),
        (new().pax("GNU.sparse.map", "0,5").file("a", "12345"), "has no size"),
    ])
    .await;
    let mut negative = header(b'0', b"a", b"", 0o644, 0);
    negative[124..136].fill(0xff);
    refused(vec![(new().bytes(&sealed(negative)), "negative")]).await;
}

#[tokio::test]
async fn a_sparse_file_larger_than_ext4_holds_is_refused() {
    let archive =
        Archive::new().pax("GNU.sparse.size", (1u64 << 60).to_string()).pax("GNU.sparse.map", "0,1");
    let error = pull_with(vec![Layer::gzip(archive.file("a", "x").end())], quick()).await.map(|t| t.show());
    assert!(matches!(error, Err(ImageError::Unsupported(_))), "{error:?}");
}

#[tokio::test]
async fn compression_bombs_by_ratio_are_refused() {
    let limits = Limits { ratio: 50, ratio_from: Bytes::mib(1), ..quick() };
    let bomb = Archive::new().file("bomb", vec![0; 4 << 20]).end();
    for layer in [Layer::gzip(bomb.clone()), Layer::zstd(bomb.clone())] {
        let error = refused_with(vec![layer], limits).await;
        let is_it =
            matches!(error, Unsafe::Limit { what: "the compression ratio of a layer", limit: 50, .. });
        assert!(is_it, "{error}");
    }
    // Zeros behind the end of the archive count too.
    let behind = [Archive::new().end(), vec![0; 4 << 20]].concat();
    assert!(matches!(refused_with(vec![Layer::gzip(behind)], limits).await, Unsafe::Limit { .. }));
    let allowed = Limits { ratio: 100_000, ..limits };
    assert!(pull_with(vec![Layer::zstd(bomb)], allowed).await.is_ok());
}

#[tokio::test]
async fn more_unpacked_bytes_than_the_limit_are_refused_over_all_layers() {
    let limits = Limits { unpacked: Bytes::mib(3), ..quick() };
    let layer = |name| Layer::gzip(Archive::new().file(name, noise(1, 1 << 20)).end());
    assert!(pull_with(vec![layer("a"), layer("b")], limits).await.is_ok());
    let error = refused_with(vec![layer("a"), layer("b"), layer("c")], limits).await;
    assert!(matches!(error, Unsafe::Limit { what: "the unpacked size of all layers", .. }), "{error}");
}

#[tokio::test]
async fn more_compressed_bytes_than_the_limit_are_refused_before_they_are_fetched() {
    let registry = Registry::start();
    registry
        .put_image("1", &Image::new(vec![Layer::plain(noise(1, 20_000)), Layer::plain(noise(2, 20_000))]));
    let client = Client::new(Limits { compressed: Bytes(39_999), ..quick() });
    let error = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { value: 40_000, .. })), "{error}");
    assert_eq!(registry.requests("/blobs/").len(), 0);
}

#[tokio::test]
async fn too_many_entries_are_refused_over_all_layers() {
    let limits = Limits { entries: 4, ..quick() };
    let layer = |names: &[&str]| {
        let archive = names.iter().fold(Archive::new(), |archive, name| archive.file(name, ""));
        Layer::gzip(archive.end())
    };
    assert!(pull_with(vec![layer(&["a", "b"]), layer(&["c", "d"])], limits).await.is_ok());
    // Whiteouts and what they hide are entries too.
    let error = refused_with(vec![layer(&["a", "b", "c"]), layer(&["d", ".wh.a"])], limits).await;
    assert!(matches!(error, Unsafe::Limit { value: 5, limit: 4, .. }), "{error}");
}

#[tokio::test]
async fn too_many_layers_are_refused() {
    let layers: Vec<Layer> = (0..4).map(|_| Layer::plain(vec![])).collect();
    let error = refused_with(layers, Limits { layers: 3, ..quick() }).await;
    assert!(matches!(error, Unsafe::Limit { what: "the number of layers", value: 4, .. }), "{error}");
}

#[tokio::test]
async fn extended_headers_above_the_limit_are_refused() {
    let limits = Limits { extension: Bytes::kib(4), xattrs: Bytes::kib(2), ..quick() };
    for archive in [
        Archive::new().pax("comment", vec![b'x'; 5000]).file("a", ""),
        Archive::new().gnu_long(b'L', vec![b'x'; 5000]).file("a", ""),
        Archive::new().xattr("user.a", vec![b'x'; 3000]).file("a", ""),
        // A length that would take all memory before a byte of it is read.
        Archive::new().bytes(&header(b'x', b"", b"", 0, 1 << 60)),
    ] {
        let error = refused_with(vec![Layer::plain(archive.end())], limits).await;
        assert!(matches!(error, Unsafe::Limit { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_archive_that_ends_early_is_refused() {
    let whole = Archive::new().dir("d").pax("comment", "x").file("d/a", vec![b'x'; 1500]).cut();
    let ends: Vec<usize> = (1..whole.len()).step_by(100).chain([513, 1024, 1536, 2047, 2048]).collect();
    for end in ends.into_iter().filter(|end| *end != 512) {
        let error = refused_with(vec![Layer::gzip(whole[..end].to_vec())], quick()).await.to_string();
        assert!(error.contains("ends early"), "{end}: {error}");
    }
    // What GNU tar and Go take: the end mark alone is missing.
    assert_eq!(pull_one(whole).await.get("/d/a").size, 1500);
}

#[tokio::test]
async fn compressed_data_that_ends_early_is_refused() {
    let archive = Archive::new().file("a", noise(3, 5000)).end();
    for mut layer in [Layer::gzip(archive.clone()), Layer::zstd(archive)] {
        for cut in [1, 10, layer.blob.len() / 2] {
            layer.blob.truncate(layer.blob.len() - cut);
            let error = refused_with(vec![layer.clone()], quick()).await;
            assert!(matches!(error, Unsafe::Archive { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_blob_longer_or_shorter_than_declared_is_refused() {
    let image = Image::new(vec![Layer::plain(Archive::new().file("a", noise(4, 5000)).end())]);
    let digest = Digest::of(&image.layers[0].blob);
    let size = image.layers[0].blob.len() as u64;
    for declared in [size - 1, size + 1, 1, size * 2] {
        let registry = Registry::start();
        let mut lying = image.clone();
        lying.manifest["layers"][0]["size"] = json!(declared);
        registry.put_image("1", &lying);
        let client = Client::new(quick());
        match client.pull(registry.reference(":1")).await.unwrap_err() {
            ImageError::Unsafe(Unsafe::Length { blob, declared: told, actual }) => {
                assert_eq!((blob, told, actual), (digest.clone(), declared, size));
            }
            other => panic!("{other}"),
        }
        assert!(!client.blob(&digest).exists(), "the blob is kept");
        // A good blob that is in the cache stays when another manifest lies about it.
        registry.put_image("good", &image);
        client.pull(registry.reference(":good")).await.unwrap();
        let error = client.pull(registry.reference(":1")).await.unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Length { .. })), "{error}");
        assert!(client.blob(&digest).exists());
    }
}

#[tokio::test]
async fn a_manifest_above_its_limit_is_refused() {
    let registry = Registry::start();
    let mut image = Image::new(vec![]);
    image.manifest["annotations"] = json!({ "padding": "x".repeat(5000) });
    registry.put_image("1", &image);
    let limits = Limits { manifest: Bytes::kib(4), ..quick() };
    for chunked in [false, true] {
        registry.change(move |_, reply| Reply { chunked, ..reply });
        let error = Client::new(limits).pull(registry.reference(":1")).await.unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { limit: 4096, .. })), "{error}");
    }
    Client::new(quick()).pull(registry.reference(":1")).await.unwrap();
    // And a configuration above its own, which is known before it is fetched.
    let limits = Limits { config: Bytes(10), ..quick() };
    let error = Client::new(limits).pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { limit: 10, .. })), "{error}");
}
