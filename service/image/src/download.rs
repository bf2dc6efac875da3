//! A pinned file of a catalogue, read while it arrives: hashed on the way, gone on with after a broken connection, and
//! kept nowhere. Who reads it makes of it what they want, and publishes that only when [`Download::settle`] agrees.

use crate::{
    Artifact, Digest, ImageError, Limits, Progress,
    digest::Hasher,
    registries::Connection,
    registry::{Failure, Http, Way, backoff, reason, retry_after},
};
use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, RANGE, RETRY_AFTER},
};
use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Chunks between the network and the reader; each is at most some hundred KiB.
const CHUNKS: usize = 16;
/// A connection that brought this much counts as a success, however it ended.
const ENOUGH: u64 = 1 << 20;

/// A file on its way. Reading blocks: it belongs on a thread of its own.
pub struct Download {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    artifact: Artifact,
    read: u64,
    hasher: Hasher,
    failure: Arc<Mutex<Option<ImageError>>>,
    progress: Arc<dyn Progress>,
    /// Ends the fetching with the reading.
    _fetching: DropGuard,
}

impl Download {
    /// Begins to fetch `artifact`, in the tokio runtime of the caller. `progress` hears its size and how much of it was
    /// read.
    pub(crate) fn begin(
        http: Arc<Http>,
        limits: Limits,
        artifact: &Artifact,
        progress: Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let failure = Arc::new(Mutex::new(None));
        let gone = cancel.child_token();
        let fetch = Fetch { http, limits, artifact: artifact.clone() };
        let (told, fetching) = (failure.clone(), gone.clone());
        tokio::spawn(async move {
            let end = tokio::select! {
                end = fetch.run(&sender) => end,
                () = fetching.cancelled() => Err(ImageError::Cancelled),
            };
            // Before the sender is dropped: that is what the reader sees.
            *told.lock().unwrap_or_else(PoisonError::into_inner) = end.err();
            drop(sender);
        });
        progress.total(artifact.size.0);
        Self {
            chunks,
            chunk: Bytes::new(),
            artifact: artifact.clone(),
            read: 0,
            hasher: artifact.digest.hasher(),
            failure,
            progress,
            _fetching: gone.drop_guard(),
        }
    }

    /// Decides what becomes of what was made of the file. When it was not read to its end, or `made` is an error that
    /// `damaged` says may be the file's fault, the rest is read: a file that is not the pinned one, or that did
    /// not arrive, is then the answer.
    ///
    /// # Errors
    /// The download's own, [`ImageError::DigestMismatch`], or that of `made`.
    pub fn settle<T, E: From<ImageError>>(
        mut self,
        made: Result<T, E>,
        damaged: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        if made.as_ref().err().is_none_or(damaged) {
            self.check()?;
        }
        made
    }

    fn check(&mut self) -> Result<(), ImageError> {
        let mut rest = vec![0; 64 << 10];
        while self.next(&mut rest)? > 0 {}
        let actual = std::mem::replace(&mut self.hasher, self.artifact.digest.hasher()).finish();
        match actual == self.artifact.digest {
            true => Ok(()),
            false => Err(self.artifact.mismatch(actual.to_string())),
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        if self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => {
                    let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    return failure.map_or(Ok(0), Err);
                }
            }
            self.hasher.update(&self.chunk);
            self.read += self.chunk.len() as u64;
            self.progress.advance(self.read);
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(io::Error::other)
    }
}

impl Artifact {
    /// Host and port, for errors.
    fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    fn mismatch(&self, actual: String) -> ImageError {
        let what = format!("the file {}", self.url.path());
        let expected: Digest = self.digest.clone();
        ImageError::DigestMismatch { what, expected, actual }
    }

    fn unavailable(&self, why: impl Into<String>) -> ImageError {
        ImageError::RegistryUnavailable { registry: self.host(), why: why.into() }
    }
}

struct Fetch {
    http: Arc<Http>,
    limits: Limits,
    artifact: Artifact,
}

impl Fetch {
    /// Sends the file in order, going on where a broken connection ended.
    async fn run(&self, to: &mpsc::Sender<Bytes>) -> Result<(), ImageError> {
        let size = self.artifact.size.0;
        let (mut offset, mut failures) = (0, 0);
        loop {
            let before = offset;
            let (error, wait) = match self.connection(&mut offset, to).await {
                Ok(()) if offset == size || to.is_closed() => return Ok(()),
                Ok(()) => (self.artifact.mismatch(format!("only {offset} of {size} bytes")), None),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { error, wait }) => (error, wait),
            };
            if offset - before >= ENOUGH {
                failures = 0;
            }
            if failures >= self.limits.retries {
                return Err(error);
            }
            tokio::time::sleep(backoff(self.limits.backoff, failures, wait)).await;
            failures += 1;
        }
    }

    /// One connection: sends what it brings after `offset`, and moves that.
    async fn connection(&self, offset: &mut u64, to: &mpsc::Sender<Bytes>) -> Result<(), Failure> {
        let size = self.artifact.size.0;
        let too_long =
            |length: u64| Failure::Final(self.artifact.mismatch(format!("{length} bytes instead of {size}")));
        let mut response = self.open(*offset).await?;
        let (mut at, length) = self.place(&response, *offset)?;
        if let Some(length) = length.filter(|length| *length != size) {
            return Err(too_long(length));
        }
        loop {
            let mut chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                // Everything is there: how the connection ends does not matter.
                Err(_) if *offset == size => return Ok(()),
                Err(error) => {
                    let error = self.artifact.unavailable(reason(&error));
                    return Err(Failure::Passing { error, wait: None });
                }
            };
            // A server that cannot go on in the middle starts again from the beginning.
            let known = (*offset - at.min(*offset)).min(chunk.len() as u64);
            at += chunk.len() as u64;
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

    async fn open(&self, offset: u64) -> Result<Response, Failure> {
        let tls = self.artifact.url.scheme() == "https";
        let host = self.artifact.host();
        // What is said about registries is not said about catalogues: the environment's proxies alone count.
        let way = Way::new(&host, &Connection::default(), tls);
        let client = self.http.client(&host, &way).map_err(Failure::Final)?;
        let mut request = client.get(self.artifact.url.clone());
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|error| {
            let passing = !error.is_connect() && !error.is_redirect() && !error.is_builder();
            let error = self.artifact.unavailable(reason(&error));
            if passing { Failure::Passing { error, wait: None } } else { Failure::Final(error) }
        })?;
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let error =
            self.artifact.unavailable(format!("it answers {status} for {}", self.artifact.url.path()));
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = header.and_then(|text| retry_after(text, SystemTime::now()));
        match passing {
            true => Err(Failure::Passing { error, wait }),
            false => Err(Failure::Final(error)),
        }
    }

    /// At which byte the answer begins, and how long the whole file is, where the server says so.
    fn place(&self, response: &Response, offset: u64) -> Result<(u64, Option<u64>), Failure> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((0, response.content_length()));
        }
        let text = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let range = text.and_then(|text| text.strip_prefix("bytes ")?.split_once(['-', '/']));
        let parsed = range
            .and_then(|(start, rest)| Some((start.parse().ok()?, rest.rsplit('/').next()?.parse().ok())));
        match parsed {
            Some((start, size)) if start <= offset => Ok((start, size)),
            _ => Err(Failure::Final(
                self.artifact.unavailable("it answers a request for a range with another one"),
            )),
        }
    }
}
