//! Room for the database on a full disk: deleting is a write too, and whoever wants to make room must be able to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Enough for some statements: SQLite writes whole pages of 4 KiB to its log.
const BYTES: usize = 512 << 10;

/// A file that is given up when the disk is full, and made again when there is room.
pub struct Ballast {
    path: PathBuf,
    there: AtomicBool,
}

impl Ballast {
    /// The ballast of the database at `path`.
    pub fn beside(path: &Path) -> Self {
        let ballast = Self { path: path.with_extension("ballast"), there: AtomicBool::new(false) };
        ballast.take_on();
        ballast
    }

    /// Gives it up; tells whether there was any.
    pub fn drop_it(&self) -> bool {
        self.there.store(false, Ordering::Relaxed);
        fs::remove_file(&self.path).is_ok()
    }

    /// Makes it, unless it is there or there is no room.
    pub fn take_on(&self) {
        if self.there.load(Ordering::Relaxed) {
            return;
        }
        // Not zeros, which some filesystems keep as a hole.
        match fs::write(&self.path, vec![0xba; BYTES]) {
            Ok(()) => self.there.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "no room for ballast");
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_once_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&folder.path().join("banger.db"));
        let path = folder.path().join("banger.ballast");
        assert_eq!(fs::metadata(&path).unwrap().len(), BYTES as u64);
        assert!(ballast.drop_it() && !path.exists() && !ballast.drop_it());
        ballast.take_on();
        assert!(path.exists());
    }
}
