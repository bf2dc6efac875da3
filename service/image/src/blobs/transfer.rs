//! A blob on its way, which can be read before it is whole.

use crate::ImageError;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often a reader that waits looks whether its own pull was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// What the download and its readers share.
pub(super) struct Transfer {
    path: PathBuf,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Nobody wants the blob any more.
    pub cancel: CancellationToken,
    /// The download has ended and left nothing unfinished.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    available: u64,
    outcome: Option<Result<(), ImageError>>,
}

/// The readers' common hold on a transfer; when the last lets go, it is cancelled.
pub(super) struct Lease(Arc<Transfer>);

/// One user's hold on a blob.
pub(crate) struct Blob(Arc<Lease>);

impl Transfer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes up to `available` of `file` can be read.
    pub fn advance(&self, file: &Arc<File>, available: u64) {
        let mut state = self.state();
        state.file.get_or_insert_with(|| Arc::clone(file));
        state.available = available;
        self.changed.notify_all();
    }

    /// The last word.
    pub fn end(&self, outcome: Result<(), ImageError>) {
        self.state().outcome.get_or_insert(outcome);
        self.changed.notify_all();
        self.ended.cancel();
    }
}

impl Lease {
    /// A transfer of `size` bytes that will end as the file `path`.
    pub fn new(path: &Path, size: u64) -> Self {
        Self(Arc::new(Transfer {
            path: path.to_owned(),
            size,
            state: Mutex::default(),
            changed: Condvar::new(),
            cancel: CancellationToken::new(),
            ended: CancellationToken::new(),
        }))
    }

    pub fn transfer(&self) -> Arc<Transfer> {
        Arc::clone(&self.0)
    }

    pub fn size(&self) -> u64 {
        self.0.size
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.0.state().outcome, Some(Err(_)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

impl Blob {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self(lease)
    }

    /// Bytes that have arrived.
    pub(crate) fn available(&self) -> u64 {
        self.0.0.state().available
    }

    /// Reads from the start, following the download. Reading fails as the download does, and when `cancel` is cancelled.
    pub(crate) fn reader(&self, cancel: &CancellationToken, read: &Arc<AtomicU64>) -> Reader {
        Reader {
            transfer: Arc::clone(&self.0.0),
            cancel: cancel.clone(),
            position: 0,
            read: Arc::clone(read),
        }
    }

    /// Waits until the blob is there and checked.
    pub(crate) async fn ready(&self) -> Result<(), ImageError> {
        self.0.0.ended.cancelled().await;
        self.0.0.state().outcome.clone().unwrap_or(Err(ImageError::Cancelled))
    }

    /// Lets go. When nobody else wants the blob, waits until what was made of it is removed.
    pub(crate) async fn release(self) {
        let transfer = self.0.transfer();
        drop(self);
        if transfer.cancel.is_cancelled() {
            transfer.ended.cancelled().await;
        }
    }
}

/// Reads a blob in order.
pub(crate) struct Reader {
    transfer: Arc<Transfer>,
    cancel: CancellationToken,
    position: u64,
    /// Counts what was read, for the progress.
    read: Arc<AtomicU64>,
}

impl Reader {
    /// Waits for bytes after `position`, or for the end.
    fn wait(&self) -> Result<Option<(Arc<File>, u64)>, ImageError> {
        let mut state = self.transfer.state();
        loop {
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            match (&state.file, &state.outcome) {
                (_, Some(Err(error))) => return Err(error.clone()),
                (Some(file), _) if state.available > self.position => {
                    return Ok(Some((Arc::clone(file), state.available - self.position)));
                }
                (_, Some(Ok(()))) => return Ok(None),
                _ => {}
            }
            let waited = self.transfer.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((file, available)) = self.wait().map_err(io::Error::other)? else { return Ok(0) };
        let length = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let failed = |error| io::Error::other(ImageError::io("read", &self.transfer.path, error));
        let count = file.read_at(&mut buffer[..length], self.position).map_err(failed)?;
        if count == 0 && length > 0 {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter")));
        }
        self.position += count as u64;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
