//! From layers that are in files to a filesystem.

use super::{Imported, region::Region};
use crate::{
    Digest, ImageError, Limits, Platform, Progress, ROOTFS, RunConfig, Unsafe,
    rootfs::{Entries, LARGEST},
    space,
    unfinished::{Unfinished, options},
    unpack::{Source, unpack},
};
use banger_model::{Bytes, Phase};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often the progress is told.
const TICK: Duration = Duration::from_millis(100);

/// An image of which everything is at hand.
pub(super) struct Plan {
    pub reference: Option<String>,
    pub manifest_digest: Digest,
    pub platform: Platform,
    pub config: RunConfig,
    /// Oldest first.
    pub sources: Vec<Source<Region>>,
}

/// Merges the layers and writes the filesystem.
pub(super) fn build(
    plan: Plan,
    size: Option<Bytes>,
    staging: &Path,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Imported, ImageError> {
    let Plan { reference: _, manifest_digest, platform, config, sources } = plan;
    if let Some(size) = size.filter(|size| *size > LARGEST || size.0 == 0) {
        return Err(ImageError::InvalidSize { size, least: Bytes::mib(1), most: LARGEST });
    }
    let compressed = Bytes(sources.iter().map(|source| source.layer.compressed.0).sum());
    space::check(staging, Bytes(0), staging, compressed)?;
    progress.phase(Phase::Unpacking);
    progress.total(compressed.0);
    let options = options(size, &manifest_digest, compressed);
    let entries = Entries::default();
    let unfinished = Unfinished::create(staging.join(ROOTFS), options, entries.clone())?;
    let read = Arc::new(AtomicU64::new(0));
    let filled = thread::scope(|scope| {
        let (done, told) = channel::<()>();
        let (counted, entries) = (Arc::clone(&read), entries.clone());
        scope.spawn(move || {
            while told.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                progress.entries(entries.written());
                progress.advance(counted.load(Ordering::Relaxed).min(compressed.0));
            }
        });
        let filled = unfinished.fill(|rootfs| unpack(&sources, rootfs, limits, cancel, &read));
        drop(done);
        filled
    });
    let unfinished = match filled {
        Ok(unfinished) => unfinished,
        Err(error) => return Err(true_cause(error, &sources, cancel)),
    };
    progress.entries(entries.written());
    progress.advance(compressed.0);
    progress.phase(Phase::Writing);
    let summary = unfinished.finish(size)?;
    Ok(Imported {
        manifest_digest,
        platform,
        config,
        size: Bytes(summary.size),
        content: Bytes(summary.content),
        compressed,
        layers: sources.into_iter().map(|source| source.layer).collect(),
    })
}

/// A blob that is not the right one looks like a damaged archive, until its digest is known.
fn true_cause(error: ImageError, sources: &[Source<Region>], cancel: &CancellationToken) -> ImageError {
    let damaged = match &error {
        ImageError::Unsafe(Unsafe::Archive { layer, .. }) => {
            sources.iter().find(|source| source.layer.digest == *layer)
        }
        _ => None,
    };
    match damaged.map(|source| source.blob.check(cancel)) {
        Some(Err(mismatch)) => mismatch,
        _ => error,
    }
}
