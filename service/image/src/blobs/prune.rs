//! Makes room: removes blobs that a later pull would bring again.

use super::{Blobs, PARTIAL, remove};
use crate::ImageError;
use banger_model::Bytes;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

/// Which blobs go.
#[derive(Debug, Clone, Copy, Default)]
pub struct PruneBlobs {
    /// Only those that arrived longer ago.
    pub older_than: Duration,
    /// Only those that take more of the disk.
    pub larger_than: Bytes,
    /// Only count.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunedBlobs {
    /// How many.
    pub count: u32,
    /// Bytes of the disk that they took.
    pub bytes: Bytes,
}

impl Blobs {
    /// Removes whole blobs, or with `dry_run` only counts them. A pull that is under way has the blobs that it uses open
    /// and loses nothing.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the cache cannot be read or changed.
    pub(crate) fn prune(&self, what: &PruneBlobs) -> Result<PrunedBlobs, ImageError> {
        let mut pruned = PrunedBlobs::default();
        let now = SystemTime::now();
        for algorithm in ["sha256", "sha512"] {
            let folder = self.folder.join(algorithm);
            for entry in fs::read_dir(&folder).map_err(|e| ImageError::io("read", &folder, e))? {
                let entry = entry.map_err(|e| ImageError::io("read", &folder, e))?;
                // One that has just gone takes nothing.
                let Ok(metadata) = entry.metadata() else { continue };
                // st_blocks counts 512-byte units (stat(2)).
                let held = Bytes(metadata.blocks() * 512);
                let arrived = metadata.modified().unwrap_or(now);
                let age = now.duration_since(arrived).unwrap_or_default();
                let unfinished = entry.file_name().to_string_lossy().ends_with(PARTIAL);
                let small = what.larger_than.0 > 0 && held <= what.larger_than;
                if unfinished || age < what.older_than || small {
                    continue;
                }
                pruned.count += 1;
                pruned.bytes.0 += held.0;
                if !what.dry_run {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blobs_go_and_unfinished_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let (whole, partial) = (folder.path().join("sha256/aa"), folder.path().join("sha256/bb.0.partial"));
        fs::write(&whole, vec![1; 10_000]).unwrap();
        fs::write(&partial, "x").unwrap();
        let dry = PruneBlobs { dry_run: true, ..PruneBlobs::default() };
        for keeps in [
            PruneBlobs { older_than: Duration::from_secs(3600), ..PruneBlobs::default() },
            PruneBlobs { larger_than: Bytes::mib(1), ..PruneBlobs::default() },
        ] {
            assert_eq!(blobs.prune(&keeps).unwrap(), PrunedBlobs::default());
        }
        let counted = blobs.prune(&dry).unwrap();
        assert!(counted.count == 1 && counted.bytes >= Bytes(10_000) && whole.exists());
        assert_eq!(blobs.prune(&PruneBlobs::default()).unwrap(), counted);
        assert!(!whole.exists() && partial.exists());
        assert_eq!(blobs.prune(&PruneBlobs::default()).unwrap(), PrunedBlobs::default());
    }
}
