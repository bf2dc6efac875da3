//! The whole way of one image.

use crate::{
    Digest, ImageError, Limits, Platform, Progress, Reference, Registries, RegistriesFolder, Resolved,
    RunConfig, Unsafe,
    blobs::{Blob, Blobs, PruneBlobs, PrunedBlobs},
    manifest::Descriptor,
    registry::{Http, Repository},
    rootfs::{Entries, LARGEST},
    space,
    unfinished::{Unfinished, options},
    unpack::{Source, unpack},
};
use banger_model::{Bytes, Credentials, Phase, Uid};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

/// Name of the filesystem in the staging folder.
pub const ROOTFS: &str = "rootfs.ext4";

/// How often the progress is told.
const TICK: Duration = Duration::from_millis(100);

/// Pulls images; one for the whole process, because it knows which blobs are on their way.
pub struct Puller {
    blobs: Arc<Blobs>,
    http: Arc<Http>,
    limits: Limits,
    registries: Option<RegistriesFolder>,
}

/// What to pull, and where to.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// For which machine.
    pub platform: Platform,
    /// Size of the filesystem; `None` is the larger of 1.25 times the content and 1 GiB.
    pub size: Option<Bytes>,
    /// An existing empty folder, in which `rootfs.ext4` is made. It is empty again after a failure.
    pub staging: PathBuf,
    /// What [`Puller::resolve`] answered for this reference and login, when it has been asked already.
    pub resolved: Option<Resolved>,
    /// What the registry is shown; `None` pulls what everybody may.
    pub login: Option<Login>,
}

/// Credentials, and whose they are: what they bring is cached for that user alone.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub owner: Uid,
    /// What the registry is shown.
    pub credentials: Credentials,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Digest of the archive in it.
    pub diff_id: Digest,
    /// Size of the blob.
    pub compressed: Bytes,
}

/// An image that has become a filesystem: `rootfs.ext4` in the staging folder.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Digest of the image's manifest.
    pub manifest_digest: Digest,
    /// The platform that it is for.
    pub platform: Platform,
    /// How to run it.
    pub config: RunConfig,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes that the files in it take.
    pub content: Bytes,
    /// Compressed bytes of its layers.
    pub compressed: Bytes,
    /// Its layers, oldest first.
    pub layers: Vec<Layer>,
    /// Whose signature was checked, in words; empty where none is required.
    pub signature: String,
}

impl fmt::Debug for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Puller").field("blobs", &self.blobs.folder()).finish_non_exhaustive()
    }
}

impl Layer {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { digest: self.digest.clone(), size: self.compressed.0 }
    }
}

impl Puller {
    /// A puller that keeps verified blobs in the folder `blobs`, which is made when it is not there. Downloads that
    /// an earlier process left unfinished are removed. Only one puller may use a folder at a time.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the folder cannot be made or read.
    pub fn new(blobs: PathBuf, limits: Limits) -> Result<Self, ImageError> {
        let (blobs, http) = (Arc::new(Blobs::open(blobs)?), Arc::new(Http::new(limits)));
        Ok(Self { blobs, http, limits, registries: None })
    }

    /// The same, obeying what this folder says about registries.
    #[must_use]
    pub fn with_registries(self, folder: RegistriesFolder) -> Self {
        Self { registries: Some(folder), ..self }
    }

    /// What is said about registries now.
    ///
    /// # Errors
    /// [`ImageError::Configuration`].
    pub fn registries(&self) -> Result<Arc<Registries>, ImageError> {
        self.registries.as_ref().map_or_else(|| Ok(Arc::default()), RegistriesFolder::current)
    }

    /// Reads a reference as it is meant on this host: where short names come from is for the administrator to say.
    ///
    /// # Errors
    /// [`ImageError::InvalidReference`], [`ImageError::Configuration`].
    pub fn reference(&self, text: &str) -> Result<Reference, ImageError> {
        self.registries()?.reference(text)
    }

    /// Removes cached blobs, or only counts them. Pulls that are under way go on.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the cache cannot be read or changed.
    pub fn prune_blobs(&self, what: &PruneBlobs) -> Result<PrunedBlobs, ImageError> {
        self.blobs.prune(what)
    }

    /// What makes connections.
    pub(crate) fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http)
    }

    /// What things may cost.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn get(
        &self,
        descriptor: &Descriptor,
        repository: &Arc<Repository>,
        slots: &Arc<Semaphore>,
    ) -> Result<Blob, ImageError> {
        self.blobs.get(descriptor, repository, slots, self.limits.retries)
    }

    /// Pulls an image and writes its filesystem, on disk when this returns.
    ///
    /// # Errors
    /// Every kind; nothing is left in the staging folder then, nor of blobs that are not whole.
    pub async fn pull(
        &self,
        request: &PullRequest,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Pulled, ImageError> {
        // When the caller drops this future, the threads end too.
        let cancel = cancel.child_token();
        let _dropped = cancel.clone().drop_guard();
        if let Some(size) = request.size.filter(|size| *size > LARGEST || size.0 == 0) {
            return Err(ImageError::InvalidSize { size, least: Bytes::mib(1), most: LARGEST });
        }
        let resolved = match &request.resolved {
            Some(resolved) => resolved.clone(),
            None => {
                progress.phase(Phase::Resolving);
                let PullRequest { reference, platform, login, .. } = request;
                self.resolve(reference, platform, login.as_ref(), progress, &cancel).await?
            }
        };
        let compressed = resolved.compressed();
        let scope = resolved.repository.scope();
        let missing = resolved.layers.iter().filter(|layer| !self.blobs.has(scope, &layer.descriptor()));
        let missing = Bytes(missing.map(|layer| layer.compressed.0).sum());
        space::check(self.blobs.folder(), missing, &request.staging, compressed)?;

        progress.phase(Phase::Pulling);
        progress.total(compressed.0);
        let mut told = (0, 0);
        let unfinished = loop {
            match self.fill(request, &resolved, progress, &mut told, &cancel).await {
                // Wrong bytes are known to be wrong at their end, when they have been used.
                Err(
                    error @ (ImageError::DigestMismatch { .. }
                    | ImageError::Unsafe(_)
                    | ImageError::Unsupported(_)),
                ) if resolved.repository.distrust_mirrors() => {
                    tracing::warn!(reference = %request.reference, %error, "pulled again, without mirrors");
                }
                filled => break filled?,
            }
        };
        progress.phase(Phase::Writing);
        let size = request.size;
        let finished = spawn_blocking(move || unfinished.finish(size));
        let summary = finished.await.unwrap_or(Err(ImageError::Cancelled))?;
        Ok(Pulled {
            manifest_digest: resolved.manifest_digest,
            platform: resolved.platform,
            config: resolved.config,
            size: Bytes(summary.size),
            content: Bytes(summary.content),
            compressed,
            layers: resolved.layers,
            signature: resolved.signature,
        })
    }

    /// Downloads and merges the layers.
    async fn fill(
        &self,
        request: &PullRequest,
        resolved: &Resolved,
        progress: &dyn Progress,
        told: &mut (u64, u64),
        cancel: &CancellationToken,
    ) -> Result<Unfinished, ImageError> {
        let slots = Arc::new(Semaphore::new(self.limits.downloads.max(1)));
        let mut sources: Vec<Source<Blob>> = Vec::new();
        // The newest layer is merged first, so it is fetched first.
        for layer in resolved.layers.iter().rev() {
            let blob = self.get(&layer.descriptor(), &resolved.repository, &slots)?;
            sources.insert(0, Source { layer: layer.clone(), blob });
        }
        let sources = Arc::new(sources);
        let read = Arc::new(AtomicU64::new(0));
        let options = options(request.size, &resolved.manifest_digest, resolved.compressed());
        let entries = Entries::default();
        let mut merging = spawn_blocking({
            let (sources, limits, cancel, read) =
                (sources.clone(), self.limits, cancel.clone(), read.clone());
            let entries = entries.clone();
            let path = request.staging.join(ROOTFS);
            move || {
                let unfinished = Unfinished::create(path, options, entries)?;
                unfinished.fill(|rootfs| unpack(&sources, rootfs, &limits, &cancel, &read))
            }
        });
        let total = resolved.compressed().0;
        let mut tick = tokio::time::interval(TICK);
        let merged = loop {
            tokio::select! {
                merged = &mut merging => break merged.unwrap_or(Err(ImageError::Cancelled)),
                _ = tick.tick() => {
                    let arrived: u64 = sources.iter().map(|source| source.blob.available()).sum();
                    let done = ((arrived + read.load(Ordering::Relaxed)) / 2).min(total);
                    let counts = (done.max(told.0), entries.written().max(told.1));
                    if counts != *told {
                        *told = counts;
                        progress.entries(told.1);
                        progress.advance(told.0);
                    }
                }
            }
        };
        let merged = match merged {
            // A blob that is not the right one looks like a damaged archive, until its digest is known.
            Err(ImageError::Unsafe(Unsafe::Archive { layer, why })) => {
                let damaged = Err(Unsafe::Archive { layer: layer.clone(), why }.into());
                match sources.iter().find(|source| source.layer.digest == layer) {
                    Some(source) => unless(cancel, source.blob.ready()).await.and(damaged),
                    None => damaged,
                }
            }
            merged => merged,
        };
        match (&merged, Arc::into_inner(sources)) {
            (Ok(_), _) => {
                progress.entries(entries.written());
                progress.advance(total);
            }
            (Err(_), sources) => {
                for source in sources.into_iter().flatten() {
                    source.blob.release().await;
                }
            }
        }
        merged
    }
}

/// What `future` gives, unless somebody cancels first.
pub(crate) async fn unless<T>(
    cancel: &CancellationToken,
    future: impl Future<Output = Result<T, ImageError>>,
) -> Result<T, ImageError> {
    tokio::select! {
        result = future => result,
        () = cancel.cancelled() => Err(ImageError::Cancelled),
    }
}
