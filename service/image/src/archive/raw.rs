//! Filesystems that are taken as they are: looked at from outside, by their superblock, and never mounted here.

use super::tree::filesystem;
use crate::{ImageError, Unsupported};
use banger_ext4::reader::{ReadAt, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use banger_model::Bytes;
use std::fs::File;

/// An ext4 filesystem that a guest can mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// Its size.
    pub size: Bytes,
    /// What of it is in use.
    pub used: Bytes,
}

impl Filesystem {
    /// Looks at the superblock of the filesystem in `file`.
    ///
    /// # Errors
    /// [`Unsupported::Filesystem`] for what is none, was not unmounted (`run e2fsck first`), has features that a
    /// guest's kernel does not know, or is longer than its file.
    pub fn inspect(file: &File) -> Result<Self, ImageError> {
        let refuse = |why: String| ImageError::from(Unsupported::Filesystem(why));
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let short = |_| refuse("it is not an ext4 filesystem".into());
        ReadAt::read_exact_at(file, &mut bytes, SUPERBLOCK_OFFSET).map_err(short)?;
        let superblock = Superblock::parse(&bytes).map_err(filesystem)?;
        superblock.check_clean().map_err(filesystem)?;
        superblock.check_mountable().map_err(filesystem)?;
        let length = file.metadata().map_err(|e| refuse(format!("it cannot be read: {e}")))?.len();
        match superblock.bytes() <= length {
            true => Ok(Self { size: Bytes(superblock.bytes()), used: Bytes(superblock.used()) }),
            false => Err(refuse(format!(
                "its filesystem has {} bytes, and the file only {length}: it was cut off",
                superblock.bytes()
            ))),
        }
    }
}
