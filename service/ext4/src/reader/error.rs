//! Why a filesystem cannot be read.

use std::io;

/// A filesystem that is none, is damaged, or uses what this reader does not know.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The image could not be read.
    #[error("reading the filesystem failed: {0}")]
    Io(#[from] io::Error),
    /// There is no superblock where one has to be.
    #[error("it is not an ext4 filesystem")]
    NotExt4,
    /// It was not unmounted, or has known errors.
    #[error("its filesystem {why}: run e2fsck first")]
    Unclean {
        /// What the superblock says.
        why: &'static str,
    },
    /// A structure contradicts itself or the rest.
    #[error("its filesystem is damaged: {0}. Run e2fsck first")]
    Damaged(String),
    /// A feature that is not known, or that a guest's kernel cannot mount.
    #[error("its filesystem {0}")]
    Unsupported(String),
}

/// Short for the error that most checks end with.
pub(super) fn damaged<T>(why: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Damaged(why.into()))
}
