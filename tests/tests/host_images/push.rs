//! Puts into the registry what no tool would: manifests and blobs as they are, however wrong.

use banger_harness::{REGISTRY, images::digest};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image to be. Each part is what a test makes of it.
pub struct Image {
    /// The blobs, gzip of the archives.
    pub blobs: Vec<Vec<u8>>,
    /// What the manifest says.
    pub manifest: Value,
    config: String,
}

impl Image {
    pub fn new(archives: &[Vec<u8>]) -> Self {
        let blobs = archives.iter().map(|archive| gzip(archive)).collect();
        Self::of_blobs(archives, blobs)
    }

    /// An image whose blobs need not be what the archives say.
    pub fn of_blobs(archives: &[Vec<u8>], blobs: Vec<Vec<u8>>) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diff_ids: Vec<String> = archives.iter().map(|archive| digest(archive)).collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let layer = |blob: &Vec<u8>| {
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config.as_bytes()), "size": config.len(),
            },
            "layers": blobs.iter().map(layer).collect::<Vec<_>>(),
        });
        Self { blobs, manifest, config }
    }

    /// Puts it into the host's registry; its reference.
    #[track_caller]
    pub fn push(&self, repository: &str) -> String {
        for blob in self.blobs.iter().map(Vec::as_slice).chain([self.config.as_bytes()]) {
            let (status, headers) = send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
            assert_eq!(status, 202, "{headers}");
            let location = headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
            let (_, path) = location.split_once(REGISTRY).unwrap_or(("", location));
            let path = format!("{path}&digest={}", digest(blob));
            let (status, headers) = send("PUT", &path, "application/octet-stream", blob);
            assert_eq!(status, 201, "{headers}");
        }
        let text = self.manifest.to_string();
        let (status, headers) =
            send("PUT", &format!("/v2/{repository}/manifests/1"), MANIFEST, text.as_bytes());
        assert_eq!(status, 201, "{headers}");
        format!("{REGISTRY}/{repository}:1")
    }
}

pub fn gzip(archive: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(archive).unwrap();
    encoder.finish().unwrap()
}

/// One request: the status and everything that came.
fn send(method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(REGISTRY).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}
