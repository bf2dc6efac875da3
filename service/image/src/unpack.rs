//! Layers from compressed bytes to merged entries: inflating, hashing and writing each on a thread of its own, with a
//! bounded queue between, so that memory does not depend on the image and two processors are both at work.

use crate::{
    Digest, ImageError, Layer, Limits, Unsafe, Unsupported,
    blobs::Blob,
    gzip::Gunzip,
    manifest::limit,
    merge::{Merger, Sink},
    tar::Archive,
};
use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};
use tokio_util::sync::CancellationToken;

/// Unpacked bytes that travel together.
const PIECE: usize = 256 << 10;
/// Pieces that wait between two threads.
const QUEUE: usize = 32;

/// A layer and its blob.
pub(crate) struct Source<B> {
    pub layer: Layer,
    pub blob: B,
}

/// Where a layer's bytes are: on their way from a registry, or in an archive.
pub(crate) trait Bytes: Sync + 'static {
    /// Reads from the start, and fails at the end when the bytes were not the right ones. `read` counts them.
    fn reader(
        &self,
        cancel: &CancellationToken,
        read: &Arc<AtomicU64>,
    ) -> impl Read + Send + 'static + use<Self>;
}

impl Bytes for Blob {
    fn reader(
        &self,
        cancel: &CancellationToken,
        read: &Arc<AtomicU64>,
    ) -> impl Read + Send + 'static + use<> {
        Blob::reader(self, cancel, read)
    }
}

/// What travels from thread to thread.
enum Piece {
    Data(Vec<u8>),
    /// A layer ends, and its digests were right.
    End,
}

type Queue = SyncSender<Result<Piece, ImageError>>;

/// Merges all layers, newest first, into `sink`. `read` counts the compressed bytes that were used.
pub(crate) fn unpack<B: Bytes, S: Sink>(
    sources: &[Source<B>],
    sink: S,
    limits: &Limits,
    cancel: &CancellationToken,
    read: &Arc<AtomicU64>,
) -> Result<S, ImageError> {
    // Ends the threads' waiting for the network when this one stops early.
    let cancel = cancel.child_token();
    let _ended = cancel.clone().drop_guard();
    let (inflated, to_hash) = sync_channel(QUEUE);
    let (hashed, to_merge) = sync_channel(QUEUE);
    let (used, recycled) = channel();
    thread::scope(|scope| {
        let cancel_reading = cancel.clone();
        scope.spawn(move || inflate_all(sources, limits, &cancel_reading, read, &inflated, &recycled));
        scope.spawn(move || hash_all(sources, &to_hash, &hashed));
        let merged = merge_all(sources, sink, limits, &cancel, to_merge, used);
        cancel.cancel();
        merged
    })
}

/// The layers in the order of the merge.
fn newest_first<B>(sources: &[Source<B>]) -> impl Iterator<Item = &Source<B>> {
    sources.iter().rev()
}

fn inflate_all<B: Bytes>(
    sources: &[Source<B>],
    limits: &Limits,
    cancel: &CancellationToken,
    read: &Arc<AtomicU64>,
    to: &Queue,
    recycled: &Receiver<Vec<u8>>,
) {
    let mut total = 0;
    for source in newest_first(sources) {
        let reader = source.blob.reader(cancel, read);
        if let Err(error) = inflate(&source.layer, reader, limits, &mut total, to, recycled) {
            let _ = to.send(Err(error));
            return;
        }
    }
}

/// Inflates one layer. A queue that is closed ends it too: its other end has an error to tell.
fn inflate(
    layer: &Layer,
    reader: impl Read + Send + 'static,
    limits: &Limits,
    total: &mut u64,
    to: &Queue,
    recycled: &Receiver<Vec<u8>>,
) -> Result<(), ImageError> {
    let mut input = decoder(reader, &layer.digest)?;
    let mut unpacked = 0;
    loop {
        let mut piece = recycled.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let filled = fill(&mut input, &mut piece).map_err(|e| damaged(&layer.digest, e))?;
        unpacked += filled as u64;
        *total += filled as u64;
        limit("the unpacked size of all layers", *total, limits.unpacked.0)?;
        if unpacked > limits.ratio_from.0 {
            limit("the compression ratio of a layer", unpacked / layer.compressed.0.max(1), limits.ratio)?;
        }
        if filled == 0 {
            break;
        }
        piece.truncate(filled);
        if to.send(Ok(Piece::Data(piece))).is_err() {
            return Ok(());
        }
    }
    let _ = to.send(Ok(Piece::End));
    Ok(())
}

/// Fills the buffer, but at the end.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Unpacks a blob by what it is, not by what its media type says, as Docker and containerd do. Reading to the end also
/// reads the blob to its end, and so learns whether its digest was right.
pub(crate) fn decoder(
    mut blob: impl Read + Send + 'static,
    layer: &Digest,
) -> Result<Box<dyn Read + Send>, ImageError> {
    let mut start = vec![0; 6];
    let filled = fill(&mut blob, &mut start).map_err(|e| damaged(layer, e))?;
    start.truncate(filled);
    let whole = Cursor::new(start.clone()).chain(blob);
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(Gunzip::new(BufReader::with_capacity(PIECE, whole))),
        // A zstd frame, or one that is to be skipped (RFC 8878, section 3.1).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::Decoder::new(whole).map_err(|e| damaged(layer, e))?)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            return Err(Unsupported::MediaType("application/x-xz".into()).into());
        }
        [b'B', b'Z', b'h', ..] => return Err(Unsupported::MediaType("application/x-bzip2".into()).into()),
        _ => Box::new(whole),
    })
}

/// An error of ours that travelled through io, or what the decompressor did not like.
fn damaged(layer: &Digest, error: io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(ours) => ours,
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof => "its compressed data ends early".to_owned(),
                _ => format!("it cannot be unpacked: {error}"),
            };
            Unsafe::Archive { layer: layer.clone(), why }.into()
        }
    }
}

/// Checks that the archives are the ones that the configuration names.
fn hash_all<B>(sources: &[Source<B>], from: &Receiver<Result<Piece, ImageError>>, to: &Queue) {
    for Source { layer, .. } in newest_first(sources) {
        let mut hasher = layer.diff_id.hasher();
        loop {
            let piece = match from.recv() {
                Ok(Ok(Piece::Data(data))) => {
                    hasher.update(&data);
                    Ok(Piece::Data(data))
                }
                Ok(Ok(Piece::End)) => {
                    let actual = hasher.finish();
                    let checked = match actual == layer.diff_id {
                        true => Ok(Piece::End),
                        false => Err(ImageError::DigestMismatch {
                            what: format!("the archive in layer {}", layer.digest.short()),
                            expected: layer.diff_id.clone(),
                            actual: actual.to_string(),
                        }),
                    };
                    let failed = checked.is_err();
                    if to.send(checked).is_err() || failed {
                        return;
                    }
                    break;
                }
                Ok(Err(error)) => Err(error),
                Err(_) => return,
            };
            let failed = piece.is_err();
            if to.send(piece).is_err() || failed {
                return;
            }
        }
    }
}

fn merge_all<B: Bytes, S: Sink>(
    sources: &[Source<B>],
    sink: S,
    limits: &Limits,
    cancel: &CancellationToken,
    from: Receiver<Result<Piece, ImageError>>,
    used: Sender<Vec<u8>>,
) -> Result<S, ImageError> {
    let mut merger = Merger::new(sink, *limits);
    let mut pieces = Pieces { from, used, current: Vec::new(), position: 0, ended: false };
    for source in newest_first(sources) {
        pieces.ended = false;
        let digest = &source.layer.digest;
        let mut archive = Archive::new(pieces, digest.clone(), *limits);
        let again = merger.layer(&mut archive)?;
        pieces = archive.into_inner();
        pieces.drain().map_err(|e| damaged(digest, e))?;
        if again {
            let reader = source.blob.reader(cancel, &Arc::default());
            let input = BufReader::with_capacity(PIECE, decoder(reader, digest)?);
            merger.again(&mut Archive::new(input, digest.clone(), *limits))?;
        }
    }
    merger.finish()
}

/// The pieces of one layer as a stream.
struct Pieces {
    from: Receiver<Result<Piece, ImageError>>,
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl Pieces {
    /// Reads to the end of the layer: what follows an archive is only hashed.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.fill_buf()?.len() {
                0 => return Ok(()),
                rest => self.consume(rest),
            }
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() && !self.ended {
            let _ = self.used.send(std::mem::take(&mut self.current));
            self.position = 0;
            match self.from.recv() {
                Ok(Ok(Piece::Data(data))) => self.current = data,
                Ok(Ok(Piece::End)) => self.ended = true,
                Ok(Err(error)) => return Err(io::Error::other(error)),
                // A thread before this one ended without a word, which only a panic does.
                Err(_) => return Err(io::Error::other(ImageError::Cancelled)),
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
