//! The cache of blobs, by digest, and their way into it.
//!
//! A blob is only ever under its name when it is whole and was checked; its bytes are checked again whenever it
//! is used, so that nothing depends on what the disk kept through a power cut, and no fsync is needed. While a blob
//! arrives it can be read already: readers follow the download, and learn at the end whether the digest was right.
//!
//! What came with credentials is kept apart, in `users/<uid>`: a pull that shows none must not get out of the cache
//! what its registry would have refused it (docs/adr/0011-credentials.md).

mod fetch;
mod prune;
mod scope;
mod transfer;

use crate::{Digest, ImageError, manifest::Descriptor, registry::Repository};
use fetch::Job;
pub use prune::{PruneBlobs, PrunedBlobs};
pub(crate) use scope::Scope;
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;
pub(crate) use transfer::Blob;

/// The end of the names of blobs that are not whole.
const PARTIAL: &str = ".partial";

/// Whose download it is, from where, of what: only who has the same right to the same blob shares it, and nobody waits
/// for a registry that he did not ask.
type Way = (Scope, String, Digest);

/// Blobs on disk and on their way.
pub(crate) struct Blobs {
    folder: PathBuf,
    on_their_way: Mutex<HashMap<Way, Weak<transfer::Lease>>>,
    downloads: AtomicU64,
}

impl Blobs {
    /// Opens the cache and removes what an earlier process left unfinished.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, ImageError> {
        for folder in scope::folders(&folder, None)? {
            fs::create_dir_all(&folder).map_err(|e| ImageError::io("create", &folder, e))?;
            for entry in fs::read_dir(&folder).map_err(|e| ImageError::io("read", &folder, e))? {
                let entry = entry.map_err(|e| ImageError::io("read", &folder, e))?;
                if entry.file_name().to_string_lossy().ends_with(PARTIAL) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(Self { folder, on_their_way: Mutex::default(), downloads: AtomicU64::new(0) })
    }

    /// The folder of the cache.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a blob of this scope is kept.
    fn path(&self, scope: Scope, digest: &Digest) -> PathBuf {
        scope.folder(&self.folder).join(digest.algorithm()).join(digest.hex())
    }

    /// Whether the blob seems to be there for this scope; using it will check.
    pub(crate) fn has(&self, scope: Scope, descriptor: &Descriptor) -> bool {
        let is_there = |path: PathBuf| fs::metadata(path).is_ok_and(|m| m.len() == descriptor.size);
        scope.readable().any(|scope| is_there(self.path(scope, &descriptor.digest)))
    }

    /// The blob: from the cache when it is there and sound, from `repository` otherwise. Whoever asks for a blob that is
    /// on its way already from there, in the same scope, shares that download. Work begins when `slots` has room.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the scope's folder cannot be made.
    pub(crate) fn get(
        self: &Arc<Self>,
        descriptor: &Descriptor,
        repository: &Arc<Repository>,
        slots: &Arc<Semaphore>,
        retries: u32,
    ) -> Result<Blob, ImageError> {
        let scope = repository.scope();
        let way = (scope, repository.origin(), descriptor.digest.clone());
        let mut on_their_way = self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner);
        on_their_way.retain(|_, lease| lease.strong_count() > 0);
        if let Some(lease) = on_their_way.get(&way).and_then(Weak::upgrade)
            && lease.size() == descriptor.size
            && !lease.has_failed()
        {
            return Ok(Blob::new(lease));
        }
        let number = self.downloads.fetch_add(1, Ordering::Relaxed);
        let path = self.path(scope, &descriptor.digest);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| ImageError::io("create", folder, e))?;
        }
        let partial = path.with_extension(format!("{number}{PARTIAL}"));
        let lease = Arc::new(transfer::Lease::new(&path, descriptor.size));
        on_their_way.insert(way, Arc::downgrade(&lease));
        let job = Job {
            descriptor: descriptor.clone(),
            repository: Arc::clone(repository),
            transfer: lease.transfer(),
            retries,
            cached: scope.readable().map(|scope| self.path(scope, &descriptor.digest)).collect(),
            path,
            partial,
        };
        tokio::spawn(job.run(Arc::clone(slots)));
        Ok(Blob::new(lease))
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ImageError::io("remove", path, error)),
        _ => Ok(()),
    }
}
