//! OCI images for tests and demonstrations: layers from archives, written as an image layout, copied to a registry.
//!
//! The layout is the one of the OCI image specification (image-layout.md, manifest.md, config.md). Written
//! here, and not by a tool, so that a test says exactly what is in an image, also when it is wrong.

use crate::{
    error::{Doing, Result},
    supervise::output,
};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

const SKOPEO: &str = "/usr/bin/skopeo";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The tag that every image has in its layout.
const TAG: &str = "latest";

/// An image layout that is being written.
#[derive(Debug)]
pub struct Layout {
    folder: PathBuf,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
}

impl Layout {
    /// An empty layout in `folder`, which is made.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when it cannot be made.
    pub fn new(folder: &Path) -> Result<Self> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).doing(format!("make {}", blobs.display()))?;
        Ok(Self { folder: folder.to_owned(), layers: Vec::new(), diff_ids: Vec::new() })
    }

    /// Adds a layer from an uncompressed tar archive.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when it cannot be read or written.
    pub fn layer(&mut self, mut archive: impl Read) -> Result<&mut Self> {
        let part = self.folder.join("layer.part");
        let file = File::create(&part).doing(format!("make {}", part.display()))?;
        let compressed = GzEncoder::new(Hashing::new(BufWriter::new(file)), Compression::fast());
        let mut plain = Hashing::new(compressed);
        io::copy(&mut archive, &mut plain).doing("compress a layer")?;
        self.diff_ids.push(plain.digest());
        let mut compressed = plain.inner.finish().doing("compress a layer")?;
        compressed.flush().doing("write a layer")?;
        let (digest, size) = (compressed.digest(), compressed.written);
        fs::rename(&part, self.blob(&digest)).doing("name a layer by its digest")?;
        self.layers.push(json!({"mediaType": LAYER, "digest": digest, "size": size}));
        Ok(self)
    }

    /// Finishes the image; `config` is the `config` object of its configuration (`Cmd`, `Entrypoint`, `Env` …).
    /// Its digest.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when it cannot be written.
    pub fn finish(&self, config: &Value) -> Result<String> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = self.write(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }))?;
        let manifest = self.write(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config.0, "size": config.1},
            "layers": self.layers,
        }))?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": manifest.0,
                "size": manifest.1,
                "annotations": {"org.opencontainers.image.ref.name": TAG},
            }],
        });
        fs::write(self.folder.join("index.json"), index.to_string()).doing("write an image's index")?;
        let version = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        fs::write(self.folder.join("oci-layout"), version).doing("write an image's layout")?;
        Ok(manifest.0)
    }

    fn write(&self, value: &Value) -> Result<(String, usize)> {
        let text = value.to_string();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&text)));
        fs::write(self.blob(&digest), &text).doing("write a part of an image")?;
        Ok((digest, text.len()))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }
}

/// Copies a finished layout to a registry that speaks plain HTTP. `target` is `HOST:PORT/REPOSITORY:TAG`.
///
/// # Errors
/// [`crate::HarnessError::Program`] with what skopeo says.
pub fn push(layout: &Path, target: &str) -> Result<()> {
    let (source, target) = (format!("oci:{}:{TAG}", layout.display()), format!("docker://{target}"));
    let quiet = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
    output(Command::new(SKOPEO).args(quiet).args([source, target])).map(drop)
}

/// A tar archive in memory, made entry by entry.
pub struct Tree(tar::Builder<Vec<u8>>);

impl Default for Tree {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Tree {
    /// Adds a folder.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, 0o755, "", &[])
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, "", content)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, target, &[])
    }

    /// Adds a file whose path may be longer than a header holds.
    ///
    /// # Errors
    /// When the path is one that no archive holds.
    pub fn long_file(mut self, path: &str, content: &[u8]) -> Result<Self> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).doing(format!("add {path:?} to an archive"))?;
        Ok(self)
    }

    /// Adds an entry of any kind, its path taken as it is, however wrong.
    ///
    /// # Panics
    /// When `path` is longer than 100 bytes or `target` is: what a test writes down is not.
    #[must_use]
    pub fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        target: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        // Not through `set_path`, which refuses what the tests want to see refused elsewhere.
        let names = header.as_old_mut();
        names.name[..path.len()].copy_from_slice(path.as_bytes());
        names.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        // Writing to memory does not fail.
        let _ = self.0.append(&header, content);
        self
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// Those of the archive's writer; writing to memory has none.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().doing("finish an archive")
    }
}

/// Passes bytes on, and hashes and counts them.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), written: 0 }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hash.clone().finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest of a blob, `sha256:` and hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_names_every_part_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Tree::default().dir("etc/").file("etc/motd", 0o644, b"hello\n").finish().unwrap();
        let mut layout = Layout::new(folder.path()).unwrap();
        let digest = layout.layer(&archive[..]).unwrap().finish(&json!({"Cmd": ["/bin/sh"]})).unwrap();

        let blobs: Vec<_> = fs::read_dir(folder.path().join("blobs/sha256")).unwrap().flatten().collect();
        assert_eq!(blobs.len(), 3, "layer, configuration, manifest");
        for blob in blobs {
            let content = fs::read(blob.path()).unwrap();
            assert_eq!(hex(&Sha256::digest(content)), blob.file_name().to_str().unwrap());
        }
        let manifest: Value = serde_json::from_slice(&fs::read(layout.blob(&digest)).unwrap()).unwrap();
        let layer = fs::read(layout.blob(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap();
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&layer[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, archive);
        assert_eq!(layout.diff_ids, [format!("sha256:{}", hex(&Sha256::digest(&archive)))]);
    }

    #[test]
    fn an_archive_keeps_a_wrong_path_as_it_is() {
        let archive = Tree::default().file("../../etc/passwd", 0o644, b"x").finish().unwrap();
        let mut reader = tar::Archive::new(&archive[..]);
        let paths: Vec<_> =
            reader.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
        assert_eq!(paths, [b"../../etc/passwd"]);
    }
}
