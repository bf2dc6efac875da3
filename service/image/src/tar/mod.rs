//! Reads tar archives as layers have them: ustar, pax, GNU and V7, with sparse files, in one pass and with bounded
//! memory. Names stay raw bytes.
//!
//! Where archivers disagree this does what Go's archive/tar does, because every layer was made or read by it: global
//! pax headers change nothing, links and directories have no body whatever their size field says, and an archive may
//! end without its two empty blocks. A damaged header or a body that ends early is an error.

mod header;
mod pax;
mod sparse;

use crate::{
    Digest, ImageError, Limits, Unsafe, Unsupported,
    entry::{BodySink, Entries, Entry, Kind, Leaf},
    error::shorten,
};
use banger_ext4::{Metadata, Timestamp};
pub(crate) use header::{BLOCK, Header};
use pax::Pax;
use std::io::{self, BufRead, Seek};

/// Reads one layer's archive.
pub(crate) struct Archive<R> {
    input: R,
    layer: Digest,
    limits: Limits,
    /// Bytes of the current body that have not been read, and the padding after it.
    body: u64,
    padding: u64,
    /// The current body's real size and parts, when it is sparse.
    sparse: Option<(u64, sparse::Map)>,
}

/// What precedes a header and changes it.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
    any: bool,
}

impl<R: BufRead> Archive<R> {
    /// Reads `input`, the unpacked archive of the layer `layer`.
    pub(crate) fn new(input: R, layer: Digest, limits: Limits) -> Self {
        Self { input, layer, limits, body: 0, padding: 0, sparse: None }
    }

    /// What is left of the input, for whoever must read it to its end.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn damaged(&self, why: impl Into<String>) -> ImageError {
        damaged(&self.layer, why)
    }

    /// The next block, or `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let mut block = [0; BLOCK];
        if self.input.fill_buf().map_err(|e| failed(&self.layer, e))?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block).map_err(|e| failed(&self.layer, e))?;
        Ok(Some(block))
    }

    /// Reads past `count` bytes.
    fn skip(&mut self, mut count: u64) -> Result<(), ImageError> {
        while count > 0 {
            let available = self.input.fill_buf().map_err(|e| failed(&self.layer, e))?.len();
            if available == 0 {
                return Err(self.damaged("it ends early"));
            }
            let step = count.min(available as u64);
            self.input.consume(step as usize);
            count -= step;
        }
        Ok(())
    }

    fn skip_body(&mut self) -> Result<(), ImageError> {
        let (body, padding) = (self.body, self.padding);
        (self.body, self.padding, self.sparse) = (0, 0, None);
        self.skip(body)?;
        // An archive may end with its last byte of content: some writers leave out what only fills the block.
        match self.input.fill_buf().map_err(|e| failed(&self.layer, e))?.is_empty() {
            true => Ok(()),
            false => self.skip(padding),
        }
    }

    fn set_body(&mut self, size: u64) {
        self.body = size;
        // Not by next_multiple_of: the largest sizes have none.
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The body of an extended header, whole.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        let limit = self.limits.extension.0;
        if size > limit {
            return Err(Unsafe::Limit { what: "an archive's extended header", value: size, limit }.into());
        }
        let mut data = vec![0; size as usize];
        self.input.read_exact(&mut data).map_err(|e| failed(&self.layer, e))?;
        self.skip(size.next_multiple_of(BLOCK as u64) - size)?;
        Ok(data)
    }

    /// Reads up to the next header that stands for an entry, collecting what precedes it.
    fn header(&mut self) -> Result<Option<([u8; BLOCK], Before)>, ImageError> {
        let mut before = Before::default();
        loop {
            let Some(block) = self.block()? else {
                return match before.any {
                    true => Err(self.damaged("it ends early")),
                    false => Ok(None),
                };
            };
            if block.iter().all(|b| *b == 0) {
                // Two empty blocks end an archive; one and the end of the file do too.
                return match self.block()? {
                    Some(second) if second.iter().any(|b| *b != 0) => {
                        Err(self.damaged("an empty block is followed by more"))
                    }
                    _ if before.any => Err(self.damaged("it ends early")),
                    _ => Ok(None),
                };
            }
            let header = Header::new(&block).map_err(|why| self.damaged(why))?;
            let size = header.size().map_err(|why| self.damaged(why))?;
            match header.kind() {
                b'x' => {
                    let body = self.extension(size)?;
                    before.pax = Pax::parse(&body).map_err(|why| self.damaged(why))?;
                }
                b'L' => before.path = Some(long_name(self.extension(size)?)),
                b'K' => before.link = Some(long_name(self.extension(size)?)),
                // Global headers and volume labels change nothing.
                b'g' | b'V' => {
                    self.extension(size)?;
                    continue;
                }
                _ => return Ok(Some((block, before))),
            }
            before.any = true;
        }
    }

    /// Makes the entry of a header and sets the body up.
    fn entry(&mut self, block: &[u8; BLOCK], before: Before) -> Result<Entry, ImageError> {
        let header = Header::new(block).map_err(|why| self.damaged(why))?;
        let Before { path: long_path, link: long_link, pax, .. } = before;
        let path =
            long_path.or(pax.sparse.name.clone()).or(pax.path.clone()).unwrap_or_else(|| header.path());
        let link = long_link.or(pax.link.clone()).unwrap_or_else(|| header.link());
        let kind = match (header.kind(), path.last()) {
            (0, Some(b'/')) | (b'5', _) => Kind::Directory,
            (0 | b'0' | b'7' | b'S', _) => Kind::Leaf(Leaf::File),
            (b'1', _) => Kind::HardLink(link),
            (b'2', _) => Kind::Leaf(Leaf::Symlink(link)),
            (device @ (b'3' | b'4'), _) => {
                let (major, minor) = header.device().map_err(|why| self.damaged(why))?;
                Kind::Leaf(match device {
                    b'3' => Leaf::CharDevice(major, minor),
                    _ => Leaf::BlockDevice(major, minor),
                })
            }
            (b'6', _) => Kind::Leaf(Leaf::Fifo),
            (other, _) => {
                let why = format!("archive entries of type {:?} are not known", char::from(other));
                return Err(Unsupported::Entry { name: shorten(&path), why }.into());
            }
        };
        let metadata = self.metadata(&header, &pax, &path)?;
        if kind == Kind::Leaf(Leaf::File) {
            self.body_of_file(&header, &pax)?;
        }
        Ok(Entry { path, kind, metadata })
    }

    fn metadata(&self, header: &Header, pax: &Pax, path: &[u8]) -> Result<Metadata, ImageError> {
        let damaged = |why| self.damaged(why);
        let id = |given: Option<i64>, field: Result<i64, &'static str>| {
            let id = given.map_or(field, Ok).map_err(damaged)?;
            // The last id is what chown(2) takes for "leave it".
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
                let why = format!("owner {id} is out of range");
                ImageError::from(Unsupported::Entry { name: shorten(path), why })
            })
        };
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp { seconds: header.mtime().map_err(damaged)?, nanoseconds: 0 },
        };
        let size: u64 = pax.xattrs.iter().map(|x| (x.name.len() + x.value.len()) as u64).sum();
        let limit = self.limits.xattrs.0;
        if size > limit {
            return Err(Unsafe::Limit { what: "an entry's extended attributes", value: size, limit }.into());
        }
        Ok(Metadata {
            mode: header.mode().map_err(damaged)?,
            uid: id(pax.uid, header.uid())?,
            gid: id(pax.gid, header.gid())?,
            mtime,
            xattrs: pax.xattrs.clone(),
        })
    }

    fn body_of_file(&mut self, header: &Header, pax: &Pax) -> Result<(), ImageError> {
        let size = pax.size.map_or_else(|| header.size(), Ok).map_err(|why| self.damaged(why))?;
        self.set_body(size);
        let (real_size, map) = if header.kind() == b'S' {
            self.old_sparse_map(header)?
        } else if pax.sparse.any() {
            let real_size = pax.sparse.size.ok_or_else(|| self.damaged("a sparse file has no size"))?;
            match pax.sparse.map_in_body() {
                true => (real_size, self.sparse_map_in_body()?),
                false => (real_size, pax.sparse.map.clone()),
            }
        } else {
            return Ok(());
        };
        sparse::check(&map, real_size, self.body).map_err(|why| self.damaged(why))?;
        self.sparse = Some((real_size, map));
        Ok(())
    }

    /// GNU's old format: the map begins in the header and goes on in blocks between it and the data.
    fn old_sparse_map(&mut self, header: &Header) -> Result<(u64, sparse::Map), ImageError> {
        let (real_size, mut map, mut more) = header.sparse().map_err(|why| self.damaged(why))?;
        while more {
            self.sparse_limit(map.len())?;
            let block = self.block()?.ok_or_else(|| self.damaged("it ends early"))?;
            map.extend(header::segments(&block[..504]).map_err(|why| self.damaged(why))?);
            more = block[504] != 0;
        }
        Ok((real_size, map))
    }

    /// Version 1.0: the body starts with the map, decimal numbers on lines of their own, padded to whole blocks.
    fn sparse_map_in_body(&mut self) -> Result<sparse::Map, ImageError> {
        let mut numbers = Vec::new();
        let (mut count, mut digits) = (None, Vec::new());
        while count.is_none_or(|count: u64| (numbers.len() as u64) < count * 2) {
            if self.body < BLOCK as u64 {
                return Err(self.damaged("a sparse map ends early"));
            }
            self.sparse_limit(numbers.len() / 2)?;
            let block = self.block()?.ok_or_else(|| self.damaged("it ends early"))?;
            self.body -= BLOCK as u64;
            for byte in block {
                if count.is_some_and(|count| numbers.len() as u64 >= count * 2) {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = pax::decimal(&digits).ok_or_else(|| self.damaged("a sparse map is damaged"))?;
                digits.clear();
                match count {
                    None => count = Some(number.min(u64::MAX / 2)),
                    Some(_) => numbers.push(number),
                }
            }
        }
        Ok(numbers.as_chunks::<2>().0.iter().map(|[offset, length]| (*offset, *length)).collect())
    }

    /// Sparse maps count as extended headers; a part takes about 16 bytes.
    fn sparse_limit(&self, parts: usize) -> Result<(), ImageError> {
        let (value, limit) = (parts as u64 * 16, self.limits.extension.0);
        match value > limit {
            true => Err(Unsafe::Limit { what: "a sparse map", value, limit }.into()),
            false => Ok(()),
        }
    }

    /// Copies `count` bytes of the body.
    fn copy(&mut self, mut count: u64, into: &mut dyn BodySink) -> Result<(), ImageError> {
        while count > 0 {
            let available = self.input.fill_buf().map_err(|e| failed(&self.layer, e))?;
            if available.is_empty() {
                return Err(damaged(&self.layer, "it ends early"));
            }
            let step = count.min(available.len() as u64);
            into.data(&available[..step as usize])?;
            self.input.consume(step as usize);
            self.body -= step;
            count -= step;
        }
        Ok(())
    }
}

impl<R: BufRead + Seek> Archive<R> {
    /// Where the body of the entry that `next` gave last stands in the input, and its length; goes past it without
    /// reading it, so that nobody knows yet whether it is all there.
    pub(crate) fn seek_body(&mut self) -> Result<(u64, u64), ImageError> {
        if self.sparse.is_some() {
            return Err(self.damaged("it has a sparse file where it must not be"));
        }
        let at = self.input.stream_position().map_err(|e| failed(&self.layer, e))?;
        let size = self.body;
        let past = i64::try_from(size.saturating_add(self.padding));
        let past = past.map_err(|_| self.damaged("it has a file of an impossible size"))?;
        self.input.seek_relative(past).map_err(|e| failed(&self.layer, e))?;
        (self.body, self.padding) = (0, 0);
        Ok((at, size))
    }
}

impl<R: BufRead> Entries for Archive<R> {
    fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        self.skip_body()?;
        match self.header()? {
            Some((block, before)) => self.entry(&block, before).map(Some),
            None => Ok(None),
        }
    }

    fn copy_body(&mut self, into: &mut dyn BodySink) -> Result<(), ImageError> {
        let Some((real_size, map)) = self.sparse.take() else {
            return self.copy(self.body, into);
        };
        let mut end = 0;
        for (offset, length) in map {
            into.hole(offset - end)?;
            self.copy(length, into)?;
            end = offset + length;
        }
        into.hole(real_size - end)
    }
}

fn damaged(layer: &Digest, why: impl Into<String>) -> ImageError {
    Unsafe::Archive { layer: layer.clone(), why: why.into() }.into()
}

/// An error of the input: one of ours that travelled through io, an early end, or what the decompressor says.
fn failed(layer: &Digest, error: io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => damaged(layer, "it ends early"),
        Err(error) => damaged(layer, error.to_string()),
    }
}

/// GNU's long names end with a NUL.
fn long_name(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    name
}

#[cfg(test)]
mod tests;
