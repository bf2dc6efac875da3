//! From layers that are in files to a filesystem.

use super::{ImportRequest, Imported, region::Region};
use crate::{
    Digest, ImageError, Limits, Platform, Progress, ROOTFS, RunConfig, Unsafe,
    rootfs::{Entries, LARGEST},
    space,
    unfinished::{Unfinished, options},
    unpack::{Source, unpack},
};
use banger_model::{Bytes, Phase};
use std::{
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
    request: &ImportRequest,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Imported, ImageError> {
    let Plan { reference, manifest_digest, platform, config, sources } = plan;
    if let Some(size) = request.size.filter(|size| *size > LARGEST || size.0 == 0) {
        return Err(ImageError::InvalidSize { size, least: Bytes::mib(1), most: LARGEST });
    }
    let compressed = Bytes(sources.iter().map(|source| source.layer.compressed.0).sum());
    space::check(&request.staging, Bytes(0), &request.staging, compressed)?;
    progress.phase(Phase::Unpacking);
    progress.total(compressed.0);
    let options = options(request.size, &manifest_digest, compressed);
    let entries = Entries::default();
    let unfinished = Unfinished::create(request.staging.join(ROOTFS), options, entries.clone())?;
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
    let summary = unfinished.finish(request.size)?;
    Ok(Imported {
        reference,
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
