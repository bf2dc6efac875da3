//! A VM's disk: a copy of its image that shares blocks where the filesystem can, and keeps holes everywhere.

use crate::{error::Error, transfer::copy_sparse};
use banger_model::Bytes;
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};
use tokio_util::sync::CancellationToken;

/// Copies the image `from` to a new file `disk` of `size` bytes, which is at least the image's size. `copied` is told
/// the offset reached. The disk is in the page cache then: [`sync`] makes it durable.
///
/// # Errors
/// [`Error::Cancelled`], [`Error::NoSpace`], or what failed. The unfinished file is the caller's to remove.
pub fn make(
    from: &File,
    disk: &Path,
    size: Bytes,
    cancel: &CancellationToken,
    copied: impl Fn(u64),
) -> Result<(), Error> {
    let failed = |error| Error::disk(disk, error);
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(disk).map_err(failed)?;
    let length = from.metadata().map_err(failed)?.len();
    copy_sparse(from, &to, length, cancel, copied).map_err(failed)?;
    to.set_len(size.0.max(length)).map_err(failed)
}

/// Makes a disk at least `size` bytes long; what is added is a hole.
///
/// # Errors
/// What failed.
pub fn grow(disk: &Path, size: Bytes) -> Result<(), Error> {
    let failed = |error| Error::disk(disk, error);
    let file = OpenOptions::new().write(true).open(disk).map_err(failed)?;
    match file.metadata().map_err(failed)?.len() < size.0 {
        true => file.set_len(size.0).map_err(failed),
        false => Ok(()),
    }
}

/// Makes a disk durable. This takes as long as the host's disk needs for all of it, so it goes on beside the boot.
///
/// # Errors
/// What failed.
pub fn sync(disk: &Path) -> Result<(), Error> {
    File::open(disk).and_then(|file| file.sync_all()).map_err(|error| Error::disk(disk, error))
}

/// Bytes that a file really takes on its filesystem.
pub fn used(path: &Path) -> Bytes {
    // st_blocks counts 512-byte units whatever the filesystem's block size (stat(2)).
    Bytes(std::fs::metadata(path).map(|m| m.blocks() * 512).unwrap_or(0))
}

/// Bytes that removing this name of a file would free: none while it has another name.
pub fn freed(path: &Path) -> Bytes {
    let metadata = std::fs::metadata(path);
    Bytes(metadata.map(|m| if m.nlink() > 1 { 0 } else { m.blocks() * 512 }).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, os::unix::fs::FileExt};

    #[test]
    fn data_is_copied_and_holes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
        let file = File::create(&image).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"middle", 40 << 20).unwrap();
        file.set_len(100 << 20).unwrap();
        let reached = Cell::new(0);
        make(&File::open(&image).unwrap(), &disk, Bytes::mib(200), &CancellationToken::new(), |n| {
            reached.set(n)
        })
        .unwrap();

        let copy = File::open(&disk).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 200 << 20);
        assert_eq!(reached.get(), 100 << 20);
        let mut text = [0; 6];
        copy.read_exact_at(&mut text, 40 << 20).unwrap();
        assert_eq!(&text, b"middle");
        copy.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"first\0");
        assert!(used(&disk) < Bytes::mib(1), "{}", used(&disk));
    }

    #[test]
    fn an_existing_disk_is_never_overwritten_and_a_cancelled_copy_stops() {
        let folder = tempfile::tempdir().unwrap();
        let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
        std::fs::write(&image, b"data").unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let cancelled = make(&File::open(&image).unwrap(), &disk, Bytes::mib(1), &cancel, |_| {});
        assert!(matches!(cancelled, Err(Error::Cancelled)));
        assert!(
            make(&File::open(&image).unwrap(), &disk, Bytes::mib(1), &CancellationToken::new(), |_| {})
                .is_err()
        );
    }
}
