//! Makes room: removes blobs that a later pull would bring again.

use super::{Blobs, PARTIAL, remove};
use crate::ImageError;
use banger_model::Bytes;
use std::{fs, os::unix::fs::MetadataExt};

impl Blobs {
    /// Removes every whole blob, or with `dry_run` only counts; tells how many bytes of the disk they take. A pull that
    /// is under way has the blobs that it uses open and loses nothing.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the cache cannot be read or changed.
    pub(crate) fn prune(&self, dry_run: bool) -> Result<Bytes, ImageError> {
        let mut bytes = 0;
        for algorithm in ["sha256", "sha512"] {
            let folder = self.folder.join(algorithm);
            for entry in fs::read_dir(&folder).map_err(|e| ImageError::io("read", &folder, e))? {
                let entry = entry.map_err(|e| ImageError::io("read", &folder, e))?;
                if entry.file_name().to_string_lossy().ends_with(PARTIAL) {
                    continue;
                }
                // st_blocks counts 512-byte units (stat(2)). One that has just gone takes nothing.
                bytes += entry.metadata().map(|m| m.blocks() * 512).unwrap_or(0);
                if !dry_run {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(Bytes(bytes))
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
        let counted = blobs.prune(true).unwrap();
        assert!(counted >= Bytes(10_000) && whole.exists());
        assert_eq!(blobs.prune(false).unwrap(), counted);
        assert!(!whole.exists() && partial.exists());
        assert_eq!(blobs.prune(false).unwrap(), Bytes(0));
    }
}
