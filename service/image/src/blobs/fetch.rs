//! Brings one blob into the cache.

use super::{remove, transfer::Transfer};
use crate::{
    Digest, ImageError, Unsafe,
    manifest::Descriptor,
    registry::{Failure, Repository, Turn},
};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::spawn_blocking,
};

/// Chunks between the network and the disk; each is at most some hundred KiB.
const CHUNKS: usize = 8;
/// A connection that brought this much counts as a success, however it ended.
const ENOUGH: u64 = 1 << 20;

/// One blob's way.
pub(super) struct Job {
    pub descriptor: Descriptor,
    pub repository: Arc<Repository>,
    pub transfer: Arc<Transfer>,
    /// How often in a row a connection may break off.
    pub retries: u32,
    /// Where the cache may have it.
    pub cached: Vec<PathBuf>,
    /// The blob's name in the cache, and the name until it is whole.
    pub path: PathBuf,
    pub partial: PathBuf,
}

impl Job {
    /// Checks the cached blob or downloads it, and tells the transfer how that ended.
    pub async fn run(self, slots: Arc<Semaphore>) {
        let outcome = tokio::select! {
            outcome = self.bring(&slots) => outcome,
            () = self.transfer.cancel.cancelled() => Err(ImageError::Cancelled),
        };
        // Also when the select above dropped a download: its writer may be at work for another moment, on a file that
        // has no name any more.
        let removed = if outcome.is_err() { remove(&self.partial) } else { Ok(()) };
        self.transfer.end(outcome.and(removed));
    }

    async fn bring(&self, slots: &Semaphore) -> Result<(), ImageError> {
        let _slot = slots.acquire().await.map_err(|_| ImageError::Cancelled)?;
        for path in &self.cached {
            if self.cached(path).await? {
                return Ok(());
            }
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&self.partial).map_err(|e| ImageError::io("create", &self.partial, e))?;
        self.download(Arc::new(file)).await?;
        fs::rename(&self.partial, &self.path).map_err(|e| ImageError::io("rename", &self.partial, e))
    }

    /// Whether the cache has the blob as this file. One that is damaged is removed.
    async fn cached(&self, path: &Path) -> Result<bool, ImageError> {
        let file = match File::open(path) {
            Ok(file) => Arc::new(file),
            Err(_) => return Ok(false),
        };
        let length = file.metadata().map_err(|e| ImageError::io("read", path, e))?.len();
        let (read, transfer, expected) =
            (file.clone(), self.transfer.clone(), self.descriptor.digest.clone());
        let sound = matches!(
            spawn_blocking(move || hash(&read, &expected, &transfer)).await,
            Ok(Ok(actual)) if actual == self.descriptor.digest
        );
        if self.transfer.cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        if sound && length != self.descriptor.size {
            // The manifest lies about a good blob, which others may need.
            return Err(self.length(length));
        }
        if sound {
            self.transfer.advance(&file, length);
            return Ok(true);
        }
        tracing::warn!(blob = %self.descriptor.digest, "a cached blob is damaged and downloaded again");
        remove(path)?;
        Ok(false)
    }

    async fn download(&self, file: Arc<File>) -> Result<(), ImageError> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (transfer, expected) = (self.transfer.clone(), self.descriptor.digest.clone());
        let path = self.partial.clone();
        let writer = beside(move || write(receiver, &file, &expected, &transfer, &path));
        let fetched = self.fetch(&sender).await;
        drop(sender);
        // A full disk ends the writer, and that the fetch after it: its error is the one to tell.
        let written = writer.await.unwrap_or(Err(ImageError::Cancelled));
        fetched?;
        let actual = written?;
        match actual == self.descriptor.digest {
            true => Ok(()),
            false => Err(self.mismatch(actual.to_string())),
        }
    }

    /// Sends the blob's bytes in order, going on where a broken connection ended, if need be with the next mirror or the
    /// registry.
    async fn fetch(&self, to: &mpsc::Sender<Bytes>) -> Result<(), ImageError> {
        let size = self.descriptor.size;
        let (mut offset, mut failures) = (0, 0);
        let mut turn = self.repository.first();
        loop {
            let before = offset;
            let failure = match self.connection(turn, &mut offset, to).await {
                Ok(()) if offset == size => return Ok(()),
                // The writer has stopped and knows why.
                Ok(()) if to.is_closed() => return Ok(()),
                of_mirror if !self.repository.is_last(turn) => {
                    turn = self.repository.after(turn, of_mirror.err());
                    continue;
                }
                Ok(()) => None,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { error, wait }) => Some((error, wait)),
            };
            if offset - before >= ENOUGH {
                failures = 0;
            }
            if failures >= self.retries {
                return Err(match failure {
                    Some((error, _)) => error,
                    None => self.length(offset),
                });
            }
            let wait = failure.and_then(|(_, wait)| wait);
            tokio::time::sleep(self.repository.backoff(failures, wait)).await;
            failures += 1;
        }
    }

    /// One connection: sends what it brings after `offset`, and moves that.
    async fn connection(
        &self,
        turn: Turn,
        offset: &mut u64,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), Failure> {
        let size = self.descriptor.size;
        let too_long = |length: u64| Failure::Final(self.length(length));
        let mut stream = self.repository.blob(turn, &self.descriptor.digest, *offset).await?;
        if let Some(length) = stream.size.filter(|length| *length != size) {
            return Err(too_long(length));
        }
        loop {
            let start = stream.offset;
            let mut chunk = match stream.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                // Everything is there: how the connection ends does not matter.
                Err(_) if *offset == size => return Ok(()),
                Err(error) => return Err(error),
            };
            // A registry that cannot go on in the middle starts again from the beginning.
            let known = (*offset - start.min(*offset)).min(chunk.len() as u64);
            let new = chunk.split_off(known as usize);
            if *offset + new.len() as u64 > size {
                return Err(too_long(*offset + new.len() as u64));
            }
            *offset += new.len() as u64;
            if !new.is_empty() && to.send(new).await.is_err() {
                return Ok(());
            }
        }
    }

    fn length(&self, actual: u64) -> ImageError {
        let Descriptor { digest, size } = &self.descriptor;
        Unsafe::Length { blob: digest.clone(), declared: *size, actual }.into()
    }

    fn mismatch(&self, actual: String) -> ImageError {
        let expected = self.descriptor.digest.clone();
        ImageError::DigestMismatch { what: format!("blob {}", expected.short()), expected, actual }
    }
}

/// How much a blob's writer steps back (nice(2)): what it keeps is wanted later, what is inflated meanwhile, now.
const NICE: i32 = 10;

/// Runs `work` on a thread of its own, which steps back for the others. Not on one of tokio's: a thread without
/// privileges cannot come forward again. No answer comes where no thread can be had.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let spawned = thread::Builder::new().name("blob".into()).spawn(move || {
        let _ = rustix::process::nice(NICE);
        // Whoever waited may have been cancelled.
        let _ = sender.send(work());
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for a blob");
    }
    receiver
}

/// Writes and hashes what arrives.
fn write(
    mut from: mpsc::Receiver<Bytes>,
    file: &Arc<File>,
    expected: &Digest,
    transfer: &Transfer,
    path: &Path,
) -> Result<Digest, ImageError> {
    let mut hasher = expected.hasher();
    let mut offset = 0;
    while let Some(chunk) = from.blocking_recv() {
        file.write_all_at(&chunk, offset).map_err(|e| ImageError::io("write", path, e))?;
        offset += chunk.len() as u64;
        transfer.advance(file, offset);
        hasher.update(&chunk);
    }
    Ok(hasher.finish())
}

/// Hashes a whole file.
fn hash(mut file: &File, expected: &Digest, transfer: &Transfer) -> std::io::Result<Digest> {
    let mut hasher = expected.hasher();
    let mut buffer = vec![0; 256 << 10];
    while !transfer.cancel.is_cancelled() {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finish())
}
