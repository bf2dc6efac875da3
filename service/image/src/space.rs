//! Room on the host's disk, and how large the image's filesystem becomes.

use crate::ImageError;
use banger_model::Bytes;
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The least size that a filesystem gets by itself.
const LEAST: Bytes = Bytes::gib(1);
/// Sizes are whole multiples of this.
const STEP: Bytes = Bytes::mib(4);
/// Unpacked layers are at least so many times their blobs; Debian's are three times.
const UNPACKED: u64 = 2;
/// What is assumed before it is known, to keep room for the filesystem to grow.
const UNPACKED_AT_MOST: u64 = 4;

/// What an unprivileged writer can still put into the filesystem of `path`.
pub(crate) fn available(path: &Path) -> Option<Bytes> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(Bytes(stat.blocks_available().saturating_mul(stat.fragment_size())))
}

/// Refuses a pull for which there is not enough room: for the blobs that are `missing` in the cache, and for files
/// unpacked from layers of `compressed` bytes. An estimate from below; the disk has the last word.
///
/// # Errors
/// [`ImageError::NoSpace`], naming the folder.
pub(crate) fn check(
    blobs: &Path,
    missing: Bytes,
    staging: &Path,
    compressed: Bytes,
) -> Result<(), ImageError> {
    let content = compressed.0.saturating_mul(UNPACKED);
    let device = |path| fs::metadata(path).map(|m: fs::Metadata| m.dev()).ok();
    match device(blobs) == device(staging) {
        true => enough(staging, content.saturating_add(missing.0)),
        false => enough(blobs, missing.0).and_then(|()| enough(staging, content)),
    }
}

fn enough(path: &Path, needed: u64) -> Result<(), ImageError> {
    match available(path) {
        Some(available) if available.0 < needed => {
            Err(ImageError::NoSpace { path: path.to_owned(), needed: Some(Bytes(needed)), available })
        }
        _ => Ok(()),
    }
}

/// The size of a filesystem for files of `content` bytes: a quarter more, at least 1 GiB, in whole 4 MiB.
pub(crate) fn filesystem(content: Bytes) -> Bytes {
    let with_room = content.0.saturating_add(content.0 / 4).max(LEAST.0);
    Bytes(with_room.checked_next_multiple_of(STEP.0).unwrap_or(u64::MAX))
}

/// The size that a filesystem from layers of `compressed` bytes will hardly exceed.
pub(crate) fn expected(compressed: Bytes) -> Bytes {
    filesystem(Bytes(compressed.0.saturating_mul(UNPACKED_AT_MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_more_and_at_least_a_gibibyte() {
        for (content, size) in [
            (0, 1 << 30),
            (800 << 20, 1 << 30),
            (1 << 30, 1280 << 20),
            ((1 << 30) + 1, 1284 << 20),
            (4 << 30, 5 << 30),
        ] {
            assert_eq!(filesystem(Bytes(content)), Bytes(size), "{content}");
        }
        assert!(filesystem(Bytes(u64::MAX)).0 >= u64::MAX - STEP.0);
    }

    #[test]
    fn no_room_is_told_with_the_numbers() {
        let here = std::env::temp_dir();
        assert!(check(&here, Bytes(0), &here, Bytes(0)).is_ok());
        let error = check(&here, Bytes(1), &here, Bytes(u64::MAX / 4)).unwrap_err();
        assert!(matches!(error, ImageError::NoSpace { needed: Some(_), .. }), "{error}");
        assert!(check(Path::new("/proc"), Bytes(1), &here, Bytes(0)).is_err());
    }
}
