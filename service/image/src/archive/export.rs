//! An image as the archive of an OCI image layout (OCI image specification, image-layout.md).

use super::{
    document,
    members::blob_name,
    tar_writer::{Kind, TarWriter},
    tree::{Layer as Tree, filesystem},
};
use crate::{Digest, ImageError, Layer, Limits, Platform, Progress, RunConfig, digest::Hasher, unfinished};
use banger_ext4::{Metadata, reader::Reader};
use banger_model::Bytes;
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::Path,
};
use tokio_util::sync::CancellationToken;

/// How hard zstd tries: its own default.
const LEVEL: i32 = 3;

/// An image to export.
#[derive(Debug)]
pub struct Export<'a> {
    /// Its filesystem.
    pub rootfs: &'a File,
    /// How to run it.
    pub config: &'a RunConfig,
    /// What it is made for.
    pub platform: &'a Platform,
    /// What the archive calls it.
    pub name: &'a str,
    /// A folder for the layer, until its digest is known.
    pub scratch: &'a Path,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Digest of its manifest.
    pub manifest_digest: Digest,
    /// Bytes of the archive.
    pub size: Bytes,
}

/// Writes an image as an archive with one layer. The same filesystem and configuration give the same bytes.
///
/// # Errors
/// [`ImageError::Unsupported`] and [`ImageError::Unsafe`] for a filesystem that cannot be read, or told in a layer; what
/// the files say; [`ImageError::Cancelled`].
pub fn export(
    image: &Export<'_>,
    to: &mut dyn Write,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Exported, ImageError> {
    let (layer, mut blob) = layer(image, limits, progress, cancel)?;
    let config = document::config(image.config, image.platform, std::slice::from_ref(&layer.diff_id));
    let manifest = document::manifest(&config, &[(&layer, document::ZSTD)]);
    let index = document::index(&manifest, image.platform, image.name);
    let manifest_digest = Digest::of(&manifest);

    let failed = |e: io::Error| e.downcast().unwrap_or_else(|e| ImageError::io("write", "the archive", e));
    let mut tar = TarWriter::new(Hashing::new(to, &manifest_digest));
    let folder = Metadata::default();
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    tar.file("index.json", &index).map_err(failed)?;
    tar.header(b"blobs", Kind::Directory, &folder).map_err(failed)?;
    tar.header(b"blobs/sha256", Kind::Directory, &folder).map_err(failed)?;
    for small in [&manifest, &config] {
        tar.file(&blob_name(&Digest::of(small)), small).map_err(failed)?;
    }
    let size = layer.compressed.0;
    let plain = Metadata { mode: 0o644, ..Metadata::default() };
    tar.header(blob_name(&layer.digest).as_bytes(), Kind::File(size), &plain).map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    let mut rest = size;
    while rest > 0 {
        if cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let piece = rest.min(buffer.len() as u64) as usize;
        blob.read_exact(&mut buffer[..piece]).map_err(|e| ImageError::io("read", image.scratch, e))?;
        tar.body(&buffer[..piece]).map_err(failed)?;
        rest -= piece as u64;
    }
    tar.end_body(size).map_err(failed)?;
    let written = tar.finish().map_err(failed)?;
    Ok(Exported { manifest_digest, size: Bytes(written.count) })
}

/// The filesystem as a compressed layer, in a file without a name.
fn layer(
    image: &Export<'_>,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<(Layer, File), ImageError> {
    let failed = |e: io::Error| ImageError::io("write", image.scratch, e);
    let reader = Reader::open(image.rootfs).map_err(filesystem)?;
    progress.total(reader.superblock().used());
    let file = unfinished::nameless(image.scratch)?;
    let any = Digest::of(b"");
    let packed = Hashing::new(io::BufWriter::with_capacity(1 << 20, file), &any);
    let encoder = zstd::Encoder::new(packed, LEVEL).map_err(failed)?;
    let tree = Tree {
        reader: &reader,
        tar: TarWriter::new(Hashing::new(encoder, &any)),
        limits,
        cancel,
        on: image.scratch,
        wrote: &|done| progress.advance(done),
        done: 0,
    };
    let plain = tree.write()?;
    let diff_id = plain.hasher.finish();
    let packed = plain.to.finish().map_err(failed)?;
    let (digest, compressed) = (packed.hasher.finish(), Bytes(packed.count));
    let mut file = packed.to.into_inner().map_err(|e| failed(e.into_error()))?;
    file.rewind().map_err(failed)?;
    Ok((Layer { digest, diff_id, compressed }, file))
}

/// Passes bytes on, and hashes and counts them.
struct Hashing<W> {
    to: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> Hashing<W> {
    /// With the algorithm of `like`.
    fn new(to: W, like: &Digest) -> Self {
        Self { to, hasher: like.hasher(), count: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
