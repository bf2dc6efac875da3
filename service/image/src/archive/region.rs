//! A part of a file: a blob in an archive, or a whole archive.

use super::{ImportRequest, build::Plan, document, open::Input, refused};
use crate::{
    Digest, ImageError, Layer, Limits, Progress, Unsafe,
    digest::Hasher,
    unfinished,
    unpack::{Bytes as LayerBytes, Source},
};
use banger_model::Bytes;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// Bytes of a file, and what they have to be.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    file: Arc<File>,
    offset: u64,
    size: u64,
    digest: Option<Digest>,
}

impl Region {
    pub(super) fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, offset, size, digest: None }
    }

    /// All of a file.
    pub(super) fn whole(file: Arc<File>) -> Result<Self, ImageError> {
        let size = file.metadata().map_err(|e| refused(format!("it cannot be read: {e}")))?.len();
        Ok(Self::new(file, 0, size))
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The same bytes, which have to have this digest.
    #[must_use]
    pub(super) fn expecting(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }

    pub(super) fn plain_reader(&self) -> impl Read + Send + use<> {
        self.reader(&CancellationToken::new(), &Arc::default())
    }

    /// All bytes of a small one.
    pub(super) fn read(&self, what: &'static str, limit: Bytes) -> Result<Vec<u8>, ImageError> {
        if self.size > limit.0 {
            return Err(Unsafe::Limit { what, value: self.size, limit: limit.0 }.into());
        }
        let mut bytes = Vec::new();
        self.plain_reader()
            .read_to_end(&mut bytes)
            .map_err(|e| e.downcast().unwrap_or_else(|e| refused(format!("{what} cannot be read: {e}"))))?;
        Ok(bytes)
    }

    /// Reads it all, only to check it.
    pub(super) fn check(&self, cancel: &CancellationToken) -> Result<(), ImageError> {
        let mut reader = self.reader(cancel, &Arc::default());
        io::copy(&mut reader, &mut io::sink())
            .map(drop)
            .map_err(|e| e.downcast().unwrap_or_else(|e| refused(format!("it cannot be read: {e}"))))
    }
}

impl LayerBytes for Region {
    fn reader(
        &self,
        cancel: &CancellationToken,
        read: &Arc<AtomicU64>,
    ) -> impl Read + Send + 'static + use<> {
        Reader {
            file: Arc::clone(&self.file),
            at: self.offset,
            end: self.offset + self.size,
            check: self.digest.clone().map(|digest| (digest.hasher(), digest)),
            cancel: cancel.clone(),
            read: Arc::clone(read),
        }
    }
}

struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
    check: Option<(Hasher, Digest)>,
    cancel: CancellationToken,
    read: Arc<AtomicU64>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(ImageError::Cancelled));
        }
        let length = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            if self.at == self.end
                && let Some((hasher, expected)) = self.check.take()
            {
                compare(hasher.finish(), expected).map_err(io::Error::other)?;
            }
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        if count == 0 {
            return Err(io::Error::other(refused("it became shorter while it was read")));
        }
        if let Some((hasher, _)) = &mut self.check {
            hasher.update(&buffer[..count]);
        }
        self.at += count as u64;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn compare(actual: Digest, expected: Digest) -> Result<(), ImageError> {
    match actual == expected {
        true => Ok(()),
        false => {
            let what = format!("blob {} of the archive", expected.short());
            Err(ImageError::DigestMismatch { what, expected, actual: actual.to_string() })
        }
    }
}

/// The archive of a root filesystem as an image of one layer.
pub(super) fn rootfs(
    input: Input,
    request: &ImportRequest,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Plan, ImageError> {
    let (region, digest) = match input {
        Input::File(file) => {
            let region = Region::whole(file)?;
            progress.total(region.size);
            let mut reader = region.reader(cancel, &Arc::default());
            let digest = hash(&mut reader, progress, |_, _| Ok(()))?;
            (region, digest)
        }
        Input::Stream(mut stream) => {
            let mut staged = Staging::new(&request.scratch, limits.unpacked)?;
            let digest = hash(&mut stream, progress, |bytes, _| staged.append(bytes, cancel))?;
            (staged.since(0), digest)
        }
    };
    let layer = Layer { digest: digest.clone(), diff_id: digest.clone(), compressed: Bytes(region.size) };
    let config = document::config(&request.config, &request.platform, &[digest]);
    let manifest = document::manifest(&config, &[(&layer, document::PLAIN)]);
    Ok(Plan {
        reference: None,
        manifest_digest: Digest::of(&manifest),
        platform: request.platform.clone(),
        config: request.config.clone(),
        sources: vec![Source { layer, blob: region }],
    })
}

/// Reads to the end; `each` piece is told with the bytes before it.
fn hash(
    from: &mut dyn Read,
    progress: &dyn Progress,
    mut each: impl FnMut(&[u8], u64) -> Result<(), ImageError>,
) -> Result<Digest, ImageError> {
    let mut hasher = Digest::of(b"").hasher();
    let (mut buffer, mut at) = (vec![0; 256 << 10], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error.downcast().unwrap_or_else(|e| refused(format!("it cannot be read: {e}"))));
            }
        };
        hasher.update(&buffer[..count]);
        each(&buffer[..count], at)?;
        at += count as u64;
        progress.advance(at);
    }
}

/// A file without a name, in which what came through a pipe is kept. It goes with the last who uses it.
pub(super) struct Staging {
    file: Arc<File>,
    folder: std::path::PathBuf,
    at: u64,
    limit: Bytes,
}

impl Staging {
    pub(super) fn new(folder: &Path, limit: Bytes) -> Result<Self, ImageError> {
        let file = Arc::new(unfinished::nameless(folder)?);
        Ok(Self { file, folder: folder.to_owned(), at: 0, limit })
    }

    /// How much there is.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn append(&mut self, bytes: &[u8], cancel: &CancellationToken) -> Result<(), ImageError> {
        if cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let (value, limit) = (self.at + bytes.len() as u64, self.limit.0);
        if value > limit {
            return Err(Unsafe::Limit { what: "the size of the archive", value, limit }.into());
        }
        self.file.write_all_at(bytes, self.at).map_err(|e| ImageError::io("write", &self.folder, e))?;
        self.at = value;
        Ok(())
    }

    /// What was appended since `from`.
    pub(super) fn since(&self, from: u64) -> Region {
        Region::new(Arc::clone(&self.file), from, self.at - from)
    }
}
