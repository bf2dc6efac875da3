//! Finds out what an input is, by its first bytes and names.

use super::{Format, ImportRequest, build::Plan, docker, members::Members, oci, outer, refused, region};
use crate::{
    Digest, ImageError, Limits, Progress, Unsafe, Unsupported, entry::Entries, tar::Archive, unpack::decoder,
};
use banger_ext4::reader::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use flate2::bufread::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// How gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// How much is looked at to tell formats apart.
const LOOK: usize = 256 << 10;

/// Where the bytes come from.
pub enum Input {
    /// A regular file, from its start.
    File(Arc<File>),
    /// A pipe, or anything else that can be read once.
    Stream(Box<dyn Read + Send>),
}

/// An input of which it is known what it is.
pub struct Opened {
    format: Format,
    input: Input,
}

impl Opened {
    /// Looks at the first bytes of `input`, unpacks it when it is compressed, and decides what it is unless `format`
    /// says so. An archive of images that nobody said more of is [`Format::Auto`] still: whether
    /// it is OCI's or Docker's is known when all of it was read.
    ///
    /// # Errors
    /// [`Unsupported::Archive`] for what is nothing of the kind.
    pub fn new(input: Input, format: Format, limits: &Limits) -> Result<Self, ImageError> {
        let (start, input) = peek(input)?;
        let (start, input) = match is_plain(&start) {
            true => (start, input),
            false => peek(unpacked(input, start.starts_with(GZIP), limits)?)?,
        };
        let format = if format == Format::Auto { detect(&start, limits)? } else { format };
        Ok(Self { format, input })
    }

    /// What it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The input from its start, unpacked when it was compressed.
    pub fn into_input(self) -> Input {
        self.input
    }

    /// What an image of it takes.
    pub(super) fn plan(
        self,
        request: &ImportRequest,
        limits: &Limits,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Plan, ImageError> {
        let Self { format, input } = self;
        match format {
            Format::Rootfs => region::rootfs(input, request, limits, progress, cancel),
            Format::Ext4 => Err(refused("it is a filesystem, which is taken as it is")),
            Format::Oci | Format::Docker | Format::Auto => {
                let members = Members::read(input, &request.scratch, limits, progress, cancel)?;
                let is_oci = members.has("index.json");
                match format {
                    Format::Docker => docker::plan(&members, request, limits),
                    Format::Oci => oci::plan(&members, request, limits),
                    _ if is_oci => oci::plan(&members, request, limits),
                    _ if members.has("manifest.json") => docker::plan(&members, request, limits),
                    _ => Err(refused(
                        "it has neither index.json nor manifest.json: it is no image. If it is a root filesystem, \
                         say so with the format rootfs",
                    )),
                }
            }
        }
    }
}

/// The first bytes, and the whole input all the same.
fn peek(input: Input) -> Result<(Vec<u8>, Input), ImageError> {
    let failed = |e: io::Error| e.downcast().unwrap_or_else(|e| refused(format!("it cannot be read: {e}")));
    Ok(match input {
        Input::File(file) => {
            let mut start = vec![0; LOOK];
            let mut filled = 0;
            while filled < LOOK {
                match file.read_at(&mut start[filled..], filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            start.truncate(filled);
            (start, Input::File(file))
        }
        Input::Stream(mut stream) => {
            let mut start = Vec::new();
            (&mut stream).take(LOOK as u64).read_to_end(&mut start).map_err(failed)?;
            let whole = Cursor::new(start.clone()).chain(stream);
            (start, Input::Stream(Box::new(whole)))
        }
    })
}

/// Whether nothing has to be unpacked first: what [`decoder`] does not know, it passes on.
fn is_plain(start: &[u8]) -> bool {
    let known: [&[u8]; 4] = [GZIP, &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ", b"BZh"];
    !known.iter().any(|magic| start.starts_with(magic))
}

/// The input without its compression. What comes out is held against what went in, so that a bomb ends early.
fn unpacked(input: Input, gzip: bool, limits: &Limits) -> Result<Input, ImageError> {
    let packed: Box<dyn Read + Send> = match input {
        Input::File(file) => Box::new(region::Region::whole(file)?.plain_reader()),
        Input::Stream(stream) => stream,
    };
    let went_in = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: packed, count: Arc::clone(&went_in) };
    let inner: Box<dyn Read + Send> = match gzip {
        // No digest says what is in there: gzip's own checksum does.
        true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(256 << 10, counted))),
        false => decoder(counted, &nobody()).map_err(outer)?,
    };
    Ok(Input::Stream(Box::new(Measured { inner, went_in, came_out: 0, limits: *limits })))
}

/// The name of a layer that is none.
pub(super) fn nobody() -> Digest {
    Digest::of(b"")
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

struct Measured<R> {
    inner: R,
    went_in: Arc<AtomicU64>,
    came_out: u64,
    limits: Limits,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.came_out += count as u64;
        let refuse = |what, value, limit| {
            Err(io::Error::other(ImageError::from(Unsafe::Limit { what, value, limit })))
        };
        let (out, limits) = (self.came_out, &self.limits);
        if out > limits.unpacked.0 {
            return refuse("the unpacked size of the archive", out, limits.unpacked.0);
        }
        let ratio = out / self.went_in.load(Ordering::Relaxed).max(1);
        if out > limits.ratio_from.0 && ratio > limits.ratio {
            return refuse("the compression ratio of the archive", ratio, limits.ratio);
        }
        Ok(count)
    }
}

/// What begins like this.
fn detect(start: &[u8], limits: &Limits) -> Result<Format, ImageError> {
    let mut archive = Archive::new(BufReader::new(start), nobody(), *limits);
    let mut is_archive = false;
    // The first name that says something decides. One that ends early is an archive longer than what is looked at.
    while let Ok(Some(entry)) = archive.next() {
        is_archive = true;
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        if !matches!(name, b"" | b".") {
            return Ok(if is_part_of_an_image(name) { Format::Auto } else { Format::Rootfs });
        }
    }
    if is_archive {
        return Ok(Format::Rootfs);
    }
    let from = SUPERBLOCK_OFFSET as usize;
    let superblock = start.get(from..from + SUPERBLOCK_BYTES).and_then(|bytes| bytes.try_into().ok());
    match superblock.map(Superblock::parse) {
        Some(Ok(_)) => Ok(Format::Ext4),
        _ => Err(Unsupported::Archive.into()),
    }
}

/// Whether a name is one that image archives begin with and no root filesystem has.
fn is_part_of_an_image(name: &[u8]) -> bool {
    let first = name.split(|b| *b == b'/').next().unwrap_or_default();
    let stem = [&b".json"[..], b".tar"].iter().find_map(|end| first.strip_suffix(*end)).unwrap_or(first);
    let id = stem.len() == 64 && stem.iter().all(u8::is_ascii_hexdigit);
    id || matches!(first, b"blobs" | b"index.json" | b"oci-layout" | b"manifest.json" | b"repositories")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_tells_images_from_filesystems() {
        let id = "0a".repeat(32);
        for image in ["blobs/", "index.json", "oci-layout", "manifest.json", &id, &format!("{id}/layer.tar")]
        {
            assert!(is_part_of_an_image(image.as_bytes()), "{image}");
        }
        assert!(is_part_of_an_image(format!("{id}.json").as_bytes()));
        for other in ["bin/", "etc/manifest.json", "", "blob", "0a.json"] {
            assert!(!is_part_of_an_image(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_nothing_is_refused() {
        for nothing in [&b""[..], b"hello", &[0; 4096]] {
            let input = Input::Stream(Box::new(Cursor::new(nothing.to_vec())));
            let error = Opened::new(input, Format::Auto, &Limits::default()).map(drop).unwrap_err();
            assert!(matches!(error, ImageError::Unsupported(Unsupported::Archive)), "{error}");
        }
        let xz = Input::Stream(Box::new(Cursor::new(b"\xfd7zXZ\0".to_vec())));
        let error = Opened::new(xz, Format::Auto, &Limits::default()).map(drop).unwrap_err();
        assert!(error.to_string().contains("x-xz"), "{error}");
    }
}
