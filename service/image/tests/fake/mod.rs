//! A registry that misbehaves on demand, and images for it.
//!
//! One thread for each connection, one request for each connection: nothing that a test has to wait for.

#![allow(dead_code)]

pub mod archive;

use banger_image::{
    Digest, ImageError, Limits, Login, Platform, Progress, PullRequest, Pulled, Puller, Reference,
    RegistriesFolder,
};
use banger_model::{Bytes, Credentials, Phase, Uid};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
    pub headers: HashMap<String, String>,
    /// How often this path was asked for before.
    pub earlier: usize,
}

impl Request {
    pub fn range(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What the registry answers.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body that are sent before the end, when it is not all.
    pub cut: Option<usize>,
    /// Whether the connection stays open and silent then.
    pub stall: bool,
    /// Whether the length stays a secret.
    pub chunked: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, stall: false, chunked: false }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Change = dyn Fn(&Request, Reply) -> Reply + Send + Sync;

/// A registry on a port of its own.
pub struct Registry {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    requests: Mutex<Vec<Request>>,
    change: Mutex<Arc<Change>>,
    /// Stalled connections wait here until the registry goes.
    gone: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let change: Arc<Change> = Arc::new(|_, reply| reply);
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            requests: Mutex::default(),
            change: Mutex::new(change),
            gone: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Has every answer pass through `change`.
    pub fn change(&self, change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) {
        *self.shared.change.lock().unwrap() = Arc::new(change);
    }

    pub fn put(&self, path: &str, content_type: &str, body: &[u8]) {
        let path = format!("/v2/app/{path}");
        self.shared.content.lock().unwrap().insert(path, (content_type.into(), body.into()));
    }

    pub fn put_blob(&self, body: &[u8]) -> Digest {
        let digest = Digest::of(body);
        self.put(&format!("blobs/{digest}"), "application/octet-stream", body);
        digest
    }

    /// Puts an image under a tag, and tells the digest of its manifest.
    pub fn put_image(&self, tag: &str, image: &Image) -> Digest {
        for layer in &image.layers {
            self.put_blob(&layer.blob);
        }
        self.put_blob(image.config().as_bytes());
        let manifest = image.manifest();
        for name in [tag.to_owned(), Digest::of(manifest.as_bytes()).to_string()] {
            self.put(&format!("manifests/{name}"), MANIFEST, manifest.as_bytes());
        }
        Digest::of(manifest.as_bytes())
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/app{rest}", self.address).parse().unwrap()
    }

    /// The requests whose path has `part`.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        let all = self.shared.requests.lock().unwrap();
        all.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let (method, path) = (line.split(' ').next()?.to_owned(), line.split(' ').nth(1)?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let length = headers.get("content-length").and_then(|length: &String| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let request = {
            let mut requests = self.requests.lock().unwrap();
            let earlier = requests.iter().filter(|request| request.path == path).count();
            let request = Request { method, path, body, headers, earlier };
            requests.push(request.clone());
            request
        };
        let found = self.content.lock().unwrap().get(&request.path).cloned();
        let reply = match (found, request.range()) {
            (None, _) => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            (Some((_, body)), Some(start)) if start > 0 && start <= body.len() => {
                Reply::new(206, &body[start..])
                    .header("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len()))
            }
            (Some((content_type, body)), _) => Reply::new(200, body).header("Content-Type", content_type),
        };
        let change = Arc::clone(&*self.change.lock().unwrap());
        let reply = change(&request, reply);
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !reply.chunked {
            head += &format!("Content-Length: {}\r\n", reply.body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        stream.write_all(&reply.body[..sent]).ok()?;
        stream.flush().ok()?;
        if reply.stall {
            // Until the client gives up.
            let mut rest = String::new();
            let _ = reader.read_line(&mut rest);
        }
        Some(())
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One layer: the archive and its blob.
#[derive(Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub media_type: String,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Self {
        Self { blob: tar.clone(), tar, media_type: "application/vnd.oci.image.layer.v1.tar".into() }
    }

    pub fn gzip(tar: Vec<u8>) -> Self {
        // Two members, as some builders write.
        let (first, second) = tar.split_at(tar.len() / 2);
        let mut blob = Vec::new();
        for part in [first, second] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            blob.extend(encoder.finish().unwrap());
        }
        Self { tar, blob, media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip".into() }
    }

    pub fn zstd(tar: Vec<u8>) -> Self {
        let blob = zstd::encode_all(tar.as_slice(), 1).unwrap();
        Self { tar, blob, media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into() }
    }
}

/// An archive of files: a name that ends in `/` is a directory.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, body) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *body).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// An image to be.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Value,
    pub manifest: Value,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(&l.tar).to_string()).collect();
        let platform = Platform::host();
        let config = json!({
            "os": platform.os, "architecture": platform.architecture,
            "config": { "Cmd": ["/bin/sh"], "Env": ["A=b"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut image = Self { layers, config, manifest: Value::Null };
        image.describe();
        image
    }

    /// Makes the manifest fit layers and configuration.
    pub fn describe(&mut self) {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|l| json!({ "mediaType": l.media_type, "digest": Digest::of(&l.blob).to_string(), "size": l.blob.len() }))
            .collect();
        let config = self.config();
        let config = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()).to_string(), "size": config.len(),
        });
        self.manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    }

    pub fn config(&self) -> String {
        self.config.to_string()
    }

    pub fn manifest(&self) -> String {
        self.manifest.to_string()
    }
}

/// Somebody who pulls.
pub struct Client {
    pub folder: TempDir,
    pub puller: Puller,
}

/// Limits that do not make a test wait.
pub fn quick() -> Limits {
    Limits { backoff: Duration::from_millis(1), retries: 3, ..Limits::default() }
}

impl Client {
    pub fn new(limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let puller = Puller::new(folder.path().join("blobs"), limits).unwrap();
        Self { folder, puller }
    }

    /// One who obeys what `text` says about registries.
    pub fn saying(text: &str) -> Self {
        let Self { folder, puller } = Self::new(quick());
        let said = folder.path().join("registries.d");
        std::fs::create_dir(&said).unwrap();
        std::fs::write(said.join("10-test.toml"), text).unwrap();
        Self { folder, puller: puller.with_registries(RegistriesFolder::new(said)) }
    }

    /// A pull with credentials.
    pub async fn pull_as(
        &self,
        reference: Reference,
        owner: u32,
        credentials: Credentials,
    ) -> Result<Pulled, ImageError> {
        let login = Some(Login { owner: Uid(owner), credentials });
        let request = PullRequest { size: Some(Bytes::mib(64)), login, ..self.request(reference) };
        self.puller.pull(&request, &banger_image::Silent, &CancellationToken::new()).await
    }

    /// A new staging folder.
    pub fn staging(&self) -> PathBuf {
        let mut number = 0;
        loop {
            let path = self.folder.path().join(format!("staging-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return path,
                Err(_) => number += 1,
            }
        }
    }

    pub fn request(&self, reference: Reference) -> PullRequest {
        let platform = Platform::host();
        PullRequest { reference, platform, size: None, staging: self.staging(), resolved: None, login: None }
    }

    pub async fn pull(&self, reference: Reference) -> Result<(Pulled, PathBuf), ImageError> {
        // Small, so that a test can read it all.
        let request = PullRequest { size: Some(Bytes::mib(64)), ..self.request(reference) };
        let pulled =
            self.puller.pull(&request, &banger_image::Silent, &CancellationToken::new()).await.inspect_err(
                |_| {
                    self.assert_clean(&request.staging);
                },
            )?;
        Ok((pulled, request.staging.join("rootfs.ext4")))
    }

    /// Nothing in staging, and no blob that is not whole.
    pub fn assert_clean(&self, staging: &Path) {
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "staging is not empty");
        for name in self.blobs() {
            assert!(!name.ends_with(".partial"), "{name} is left");
        }
    }

    pub fn blobs(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.folder.path().join("blobs/sha256")).unwrap();
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join("blobs/sha256").join(digest.hex())
    }
}

/// Writes down what it hears.
#[derive(Default)]
pub struct Heard {
    pub phases: Mutex<Vec<Phase>>,
    pub total: Mutex<u64>,
    pub done: Mutex<Vec<u64>>,
}

impl Progress for Heard {
    fn phase(&self, phase: Phase) {
        self.phases.lock().unwrap().push(phase);
    }

    fn total(&self, bytes: u64) {
        *self.total.lock().unwrap() = bytes;
    }

    fn advance(&self, done: u64) {
        self.done.lock().unwrap().push(done);
    }
}

/// What e2fsck says about the filesystem.
pub fn check(rootfs: &Path) {
    let output = std::process::Command::new("/usr/sbin/e2fsck").arg("-fn").arg(rootfs).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A file's content, read by debugfs.
pub fn cat(rootfs: &Path, path: &str) -> Vec<u8> {
    debugfs(rootfs, &format!("cat {path}"))
}

pub fn debugfs(rootfs: &Path, command: &str) -> Vec<u8> {
    let output =
        std::process::Command::new("/usr/sbin/debugfs").args(["-R", command]).arg(rootfs).output().unwrap();
    output.stdout
}
