//! The files of disks: durable, and counted.

use crate::error::Error;
use banger_model::Bytes;
use std::{fs::File, os::unix::fs::MetadataExt, path::Path};

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
