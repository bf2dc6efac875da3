//! The filesystem in the staging folder, until it is whole.

use crate::{
    Digest, ImageError,
    output::{self, Output},
    rootfs::{self, Entries, Rootfs},
    space,
};
use banger_ext4::{Ext4Error, Options, Size, Summary, Timestamp, Writer};
use banger_model::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The same manifest gives the same filesystem: nothing here depends on the host or the time.
pub(crate) fn options(size: Option<Bytes>, manifest: &Digest, compressed: Bytes) -> Options {
    let mut uuid = [0; 16];
    for (byte, digits) in uuid.iter_mut().zip(manifest.hex().as_bytes().as_chunks::<2>().0) {
        let digit = |d: u8| char::from(d).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    Options {
        uuid,
        label: Vec::new(),
        expected: size.unwrap_or_else(|| space::expected(compressed)).0,
        epoch: Timestamp::default(),
    }
}

/// A file without a name in `folder`, that goes with the last who has it open.
pub(crate) fn nameless(folder: &Path) -> Result<File, ImageError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).mode(0o600);
    let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
    options.custom_flags(flags).open(folder).map_err(|e| ImageError::io("make a file in", folder, e))
}

/// A filesystem that has all its files, and is gone when nobody finishes it.
pub(crate) struct Unfinished {
    rootfs: Rootfs<Output>,
    file: Arc<File>,
    guard: Guard,
}

/// Removes the file unless told to keep it.
struct Guard {
    path: PathBuf,
    keep: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an unfinished image");
        }
    }
}

impl Unfinished {
    /// Makes the file, which must not be there; `entries` counts what is put in.
    pub(crate) fn create(path: PathBuf, options: Options, entries: Entries) -> Result<Self, ImageError> {
        let mut create = OpenOptions::new();
        let create = create.read(true).write(true).create_new(true).mode(0o600);
        let file = Arc::new(create.open(&path).map_err(|e| ImageError::io("create", &path, e))?);
        let guard = Guard { path, keep: false };
        let writer = Writer::new(Output::new(Arc::clone(&file)), options);
        let writer = writer.map_err(|e| failed(e, &guard.path))?;
        Ok(Self { rootfs: Rootfs::new(writer, &guard.path, entries), file, guard })
    }

    /// Puts the files in.
    pub(crate) fn fill(
        self,
        with: impl FnOnce(Rootfs<Output>) -> Result<Rootfs<Output>, ImageError>,
    ) -> Result<Self, ImageError> {
        let Self { rootfs, file, guard } = self;
        Ok(Self { rootfs: with(rootfs)?, file, guard })
    }

    /// Writes what is not content, and has it all on disk.
    pub(crate) fn finish(self, size: Option<Bytes>) -> Result<Summary, ImageError> {
        let Self { rootfs, file, mut guard } = self;
        let size = match size {
            Some(size) => Size::Exactly(size.0),
            None => Size::AtLeast(space::filesystem(Bytes(rootfs.writer.content_bytes())).0),
        };
        let io_failed = |error| ImageError::io("write", &guard.path, error);
        // What follows is little, and in small pieces.
        output::set_direct(&file, false).map_err(io_failed)?;
        let summary = rootfs.writer.finish(size).map_err(|e| failed(e, &guard.path))?;
        file.set_len(summary.size).map_err(io_failed)?;
        file.sync_all().map_err(io_failed)?;
        guard.keep = true;
        Ok(summary)
    }
}

fn failed(error: Ext4Error, path: &Path) -> ImageError {
    rootfs::failed(error, path, String::new())
}
