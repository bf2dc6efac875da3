//! Makes room: removes blobs that a later pull would bring again.

use super::{Blobs, PARTIAL, remove, scope::folders};
use crate::ImageError;
use banger_model::{Bytes, Uid};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

/// Which blobs go.
#[derive(Debug, Clone, Copy, Default)]
pub struct PruneBlobs {
    /// Those that are public and those of this user; `None` is everybody's.
    pub owner: Option<Uid>,
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
        for folder in folders(&self.folder, what.owner)? {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|e| ImageError::io("read", &folder, e))?,
            };
            for entry in entries {
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

    #[test]
    fn a_user_prunes_what_is_his_and_what_is_everybodys() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let of = |owner| blobs.prune(&PruneBlobs { owner, ..PruneBlobs::default() }).unwrap();
        let [public, mine, other] = ["sha256", "users/1000/sha256", "users/1001/sha512"].map(|name| {
            let scope = folder.path().join(name);
            fs::create_dir_all(&scope).unwrap();
            fs::write(scope.join("aa"), vec![1; 10_000]).unwrap();
            scope.join("aa")
        });
        assert_eq!(of(Some(Uid(1000))).count, 2);
        assert!(!public.exists() && !mine.exists() && other.exists());
        assert_eq!(of(Some(Uid(1000))).count, 0);
        assert_eq!(of(None).count, 1);
        assert!(!other.exists());
    }

    #[test]
    fn what_is_unfinished_goes_from_every_scope_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let scope = folder.path().join("users/1000/sha256");
        fs::create_dir_all(&scope).unwrap();
        fs::write(scope.join("aa.0.partial"), "x").unwrap();
        fs::write(scope.join("bb"), "x").unwrap();
        Blobs::open(folder.path().to_owned()).unwrap();
        assert!(!scope.join("aa.0.partial").exists() && scope.join("bb").exists());
    }
}
