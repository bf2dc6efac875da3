//! How a pull tells where it is.

use banger_model::Phase;

/// Hears about a pull. Calls come from several threads and often: implementations are cheap and never block.
pub trait Progress: Send + Sync {
    /// A phase begins: resolving, verifying where a signature is required, then pulling, then writing.
    fn phase(&self, phase: Phase);
    /// The compressed bytes of all layers, said once when they are known.
    fn total(&self, bytes: u64);
    /// So many of them are done; never less than the last time, and `total` at the end of the pulling phase.
    ///
    /// A byte counts half when it has arrived and half when what it held is in the image, so that both a slow
    /// network and a slow disk show.
    fn advance(&self, done: u64);
    /// So many files, directories and links are in the image; never less than the last time. Said before the
    /// [`Progress::advance`] of the same moment, and once more when the last layer is merged.
    fn entries(&self, _written: u64) {}
}

/// Nobody is interested.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: Phase) {}
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}
