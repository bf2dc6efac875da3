//! Many files, and large ones.

use crate::{
    fake::{Client, Image, Layer, Registry, archive, archive::Archive, quick},
    support::Tree,
};
use banger_image::{Limits, PullRequest, ROOTFS, Silent};
use banger_model::Bytes;
use serde_json::json;
use std::{fmt::Write as _, io::Write as _};
use tokio_util::sync::CancellationToken;

/// Pulls what may be too large for the small filesystem of other tests.
async fn pull(client: &Client, request: PullRequest) -> Tree {
    client.puller.pull(&request, &Silent, &CancellationToken::new()).await.unwrap();
    Tree::read(&request.staging.join(ROOTFS))
}

#[tokio::test]
async fn a_directory_of_200000_files() {
    let mut archive = Archive::new();
    let mut name = String::new();
    for number in 0..200_000 {
        name.clear();
        write!(name, "d/file-{number}").unwrap();
        archive = archive.file(&name, "");
    }
    let registry = Registry::start();
    registry.put_image("1", &Image::new(vec![Layer::gzip(archive.end())]));
    let client = Client::new(quick());
    let tree = pull(&client, client.request(registry.reference(":1"))).await;
    assert_eq!(tree.len(), 200_002, "the root, the directory and its files");
    assert!(tree.get("/d").indexed, "a directory this large has an index");
    assert!(tree.has("/d/file-0") && tree.has("/d/file-199999"));
}

/// 4 GiB of zeros that the archive holds as such, and one byte: only that byte takes space.
#[tokio::test]
async fn a_file_above_4_gib_of_zeros_that_are_no_holes() {
    const MIB: usize = 1 << 20;
    const SIZE: u64 = (4 << 30) + 1;
    // Digest of the archive below; computing it here would take as long as everything else.
    const DIFF_ID: &str = "sha256:8f7fbfaa74a7166c74a6fed945855b8a9cffa2758b76982d35e77d410b020bbd";
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut tail = b"x".to_vec();
    tail.resize(3 * 512, 0);
    let mut blob = member(&archive::header(b'0', b"zeros", b"", 0o644, SIZE));
    let mebibyte = member(&vec![0; MIB]);
    for _ in 0..SIZE / MIB as u64 {
        blob.extend_from_slice(&mebibyte);
    }
    blob.extend_from_slice(&member(&tail));
    let mut image = Image::new(vec![Layer { blob, ..Layer::gzip(vec![]) }]);
    image.config["rootfs"]["diff_ids"] = json!([DIFF_ID]);
    image.describe();

    let registry = Registry::start();
    registry.put_image("1", &image);
    // Zeros shrink to a thousandth, which is a bomb unless the administrator says otherwise.
    let client = Client::new(Limits { ratio: 1100, ..quick() });
    let mut request = client.request(registry.reference(":1"));
    // The byte takes one block of it.
    request.size = Some(Bytes::mib(64));
    let tree = pull(&client, request).await;
    let zeros = tree.get("/zeros");
    assert_eq!((zeros.size, zeros.data.clone()), (SIZE, vec![(SIZE - 1, b"x".to_vec())]));
}
