//! Image bundles: a root filesystem that somebody has made already. docs/catalogue.md has the format.
//!
//! One pass, nothing kept in between: the file is hashed as it arrives, unpacked, and written with its holes. Whatever
//! is not exactly as it should be is refused, and what was written is removed.

mod manifest;
mod write;

use crate::{
    Artifact, Digest, Download, ImageError, Progress, Puller, ROOTFS, RunConfig, Unsafe,
    bundle::{manifest::Manifest, write::SparseFile},
    space,
    tar::{BLOCK, Header},
};
use banger_model::{Bytes, KernelName, Phase};
use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// The other file of a bundle.
const MANIFEST: &str = "manifest.json";
/// The longest manifest, in bytes.
const LONGEST_MANIFEST: u64 = 256 << 10;
/// The most zeros after the last file; archivers fill up to their record.
const LONGEST_END: u64 = 1 << 20;
/// The largest window of a zstd frame, as a power of two: the memory that unpacking takes.
const WINDOW_LOG: u32 = 27;

/// What to pull.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    /// The bundle.
    pub artifact: Artifact,
    /// An existing empty folder, in which `rootfs.ext4` is made. It is empty again after a failure.
    pub staging: PathBuf,
}

/// A bundle that has become a filesystem: `rootfs.ext4` in the staging folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The digest of the bundle.
    pub digest: Digest,
    /// How to run it.
    pub config: RunConfig,
    /// The kernel that it wants, if it wants one.
    pub kernel: Option<KernelName>,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes of it that are not holes.
    pub content: Bytes,
    /// Size of the bundle.
    pub compressed: Bytes,
}

impl Puller {
    /// Begins to fetch a file of a catalogue.
    pub fn download(
        &self,
        artifact: &Artifact,
        progress: Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Download {
        Download::begin(self.http(), self.limits(), artifact, progress, cancel)
    }

    /// Pulls an image bundle.
    ///
    /// # Errors
    /// [`ImageError::Unsafe`] for anything but a sound bundle, [`ImageError::DigestMismatch`] for another one than the
    /// pinned one, and those of a download. Nothing is left then.
    pub async fn pull_bundle(
        &self,
        request: &BundleRequest,
        progress: Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Result<Bundle, ImageError> {
        let limits = self.limits();
        let size = request.artifact.size;
        if size > limits.compressed {
            return Err(over("the size of the bundle", size.0, limits.compressed.0));
        }
        space::check(&request.staging, Bytes(0), &request.staging, size)?;
        progress.phase(Phase::Pulling);
        let mut download = self.download(&request.artifact, progress, cancel);
        let (path, digest) = (request.staging.join(ROOTFS), request.artifact.digest.clone());
        let work = spawn_blocking(move || {
            let made = unpack(&mut download, &path, &limits, size);
            let made = download.settle(made, |error| matches!(error, ImageError::Unsafe(_)));
            if made.is_err() {
                // It may not be there yet.
                let _ = std::fs::remove_file(&path);
            }
            made
        });
        let (manifest, size, content) = work.await.unwrap_or(Err(ImageError::Cancelled))?;
        Ok(Bundle {
            digest,
            config: manifest.config,
            kernel: manifest.kernel,
            size,
            content,
            compressed: request.artifact.size,
        })
    }
}

/// Writes the filesystem of the bundle `from`, of `packed` bytes, to the new file `path`: its manifest, its size, and
/// how much of it is data.
fn unpack(
    from: &mut impl Read,
    path: &Path,
    limits: &crate::Limits,
    packed: Bytes,
) -> Result<(Manifest, Bytes, Bytes), ImageError> {
    let buffered = BufReader::with_capacity(256 << 10, from);
    let mut frame = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed)?.single_frame();
    frame.window_log_max(WINDOW_LOG).map_err(failed)?;
    let mut input = BufReader::with_capacity(256 << 10, frame);
    let mut found: Option<Manifest> = None;
    let mut written: Option<(Bytes, Bytes)> = None;
    for _ in 0..2 {
        let (name, size) = entry(&mut input)?.ok_or_else(|| refused("it lacks one of its two files"))?;
        match name.as_str() {
            MANIFEST if found.is_none() => {
                if size > LONGEST_MANIFEST {
                    return Err(over("the size of a bundle's manifest", size, LONGEST_MANIFEST));
                }
                let mut text = vec![0; size as usize];
                input.read_exact(&mut text).map_err(failed)?;
                found = Some(Manifest::parse(&text)?);
            }
            ROOTFS if written.is_none() => {
                let mut file = SparseFile::create(path, Bytes(size), limits, packed)?;
                file.fill(&mut input)?;
                written = Some((Bytes(size), file.finish()?));
            }
            _ => return Err(refused("it holds a file twice")),
        }
        zeros(&mut input, size.next_multiple_of(BLOCK as u64) - size)?;
    }
    // The archive ends with two empty blocks at least, then the frame, then the file.
    if entry(&mut input)?.is_some() {
        return Err(refused("it holds more than its two files"));
    }
    let mut rest = vec![0; 64 << 10];
    let mut ending = 0;
    loop {
        match input.read(&mut rest).map_err(failed)? {
            0 => break,
            count if rest[..count].iter().any(|byte| *byte != 0) => {
                return Err(refused("there is something after its archive"));
            }
            count => ending += count as u64,
        }
        if ending > LONGEST_END {
            return Err(refused("its archive has no end"));
        }
    }
    let mut packed = input.into_inner().finish();
    if !packed.fill_buf().map_err(failed)?.is_empty() {
        return Err(refused("there is something after its zstd frame"));
    }
    let (Some(manifest), Some((size, content))) = (found, written) else {
        return Err(refused("it lacks one of its two files"));
    };
    match manifest.size == size {
        true => Ok((manifest, size, content)),
        false => Err(refused("its manifest says another size than its filesystem has")),
    }
}

/// The next file of the archive, name and size, or none at its end: two empty blocks.
fn entry(input: &mut impl Read) -> Result<Option<(String, u64)>, ImageError> {
    let mut block = [0; BLOCK];
    input.read_exact(&mut block).map_err(failed)?;
    if block.iter().all(|byte| *byte == 0) {
        zeros(input, BLOCK as u64)?;
        return Ok(None);
    }
    let header = Header::new(&block).map_err(refused)?;
    // Regular files alone, in the two spellings that these have, and no extended headers.
    if !matches!(header.kind(), b'0' | 0) {
        return Err(refused("it holds something other than its two regular files"));
    }
    let name = match header.path().as_slice() {
        path if path == ROOTFS.as_bytes() => ROOTFS,
        path if path == MANIFEST.as_bytes() => MANIFEST,
        _ => return Err(refused("it holds another file than rootfs.ext4 and manifest.json")),
    };
    Ok(Some((name.to_owned(), header.size().map_err(refused)?)))
}

/// Reads `count` zeros.
fn zeros(input: &mut impl Read, count: u64) -> Result<(), ImageError> {
    // At most a block: padding, or the second half of the archive's end.
    let mut block = [0; BLOCK];
    let block = &mut block[..count.min(BLOCK as u64) as usize];
    input.read_exact(block).map_err(failed)?;
    match block.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(refused("its archive is damaged")),
    }
}

/// A bundle that is not what a bundle should be.
fn refused(why: &str) -> ImageError {
    Unsafe::Document { what: "the bundle", why: why.to_owned() }.into()
}

fn over(what: &'static str, value: u64, limit: u64) -> ImageError {
    Unsafe::Limit { what, value, limit }.into()
}

/// An error of reading: the download's own, or that the bundle cannot be unpacked.
fn failed(error: std::io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(error) => error,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => refused("it ends early"),
        Err(error) => refused(&format!("it cannot be unpacked: {error}")),
    }
}

#[cfg(test)]
mod tests;
