//! Takes the data of a file and puts it on disk at once, leaving out what is zero.

use crate::Ext4Error;
use crate::extent::{self, Run};
use crate::layout::{BLOCK, BLOCK_BYTES, Space};
use crate::stream::Stream;
use crate::writer::Writer;
use std::io::{self, Seek, Write};

/// Bytes of the largest file: its blocks are numbered with 32 bits, and the last number is taken.
const MOST_BYTES: u64 = (u32::MAX as u64) * BLOCK_BYTES;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The data of one file, already on disk, until [`Writer::add_file`] gives it a name.
///
/// A content that is dropped leaves its blocks free; [`Writer::discard`] also uses them again at once.
#[derive(Debug, Default)]
#[must_use = "data without a file is lost"]
pub struct Content {
    pub(crate) size: u64,
    pub(crate) runs: Runs,
}

/// Most files have one run, which takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) enum Runs {
    #[default]
    None,
    One([Run; 1]),
    Many(Box<[Run]>),
}

impl Runs {
    pub fn new(runs: &[Run]) -> Self {
        match runs {
            [] => Self::None,
            [run] => Self::One([*run]),
            _ => Self::Many(runs.into()),
        }
    }

    pub fn as_slice(&self) -> &[Run] {
        match self {
            Self::None => &[],
            Self::One(run) => run,
            Self::Many(runs) => runs,
        }
    }
}

impl Content {
    /// Bytes of the file, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that it takes on disk, in whole blocks.
    pub fn allocated(&self) -> u64 {
        self.runs.as_slice().iter().map(|run| u64::from(run.count) * BLOCK_BYTES).sum()
    }
}

/// What is kept between files, so that a small file allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The beginning of a block.
    partial: Vec<u8>,
    runs: Vec<Run>,
}

/// Takes the data of one file. Dropping it unfinished forgets the data.
pub struct ContentWriter<'a, W: Write + Seek> {
    writer: &'a mut Writer<W>,
    size: u64,
    /// Where space stood at the start; gone when finished.
    before: Option<Space>,
}

impl<'a, W: Write + Seek> ContentWriter<'a, W> {
    pub(crate) fn new(writer: &'a mut Writer<W>) -> Self {
        writer.scratch.partial.clear();
        writer.scratch.runs.clear();
        let before = Some(writer.space.clone());
        Self { writer, size: 0, before }
    }

    /// Appends a hole of `length` bytes, which reads as zeros and takes no space (but for the parts of
    /// blocks at its ends).
    ///
    /// # Errors
    /// The file becomes larger than ext4 can hold, or what preceded could not be written.
    pub fn hole(&mut self, length: u64) -> Result<(), Ext4Error> {
        self.grow_check(length)?;
        let to_block = self.size.next_multiple_of(BLOCK_BYTES) - self.size;
        if length <= to_block {
            return self.take(&ZEROS[..length as usize]);
        }
        self.take(&ZEROS[..to_block as usize])?;
        let rest = length - to_block;
        let inside = rest % BLOCK_BYTES;
        self.size += rest - inside;
        self.take(&ZEROS[..inside as usize])
    }

    /// Ends the data.
    ///
    /// # Errors
    /// The last of it could not be written.
    pub fn finish(mut self) -> Result<Content, Ext4Error> {
        let mut partial = std::mem::take(&mut self.writer.scratch.partial);
        if !partial.is_empty() {
            let logical = (self.size / BLOCK_BYTES) as u32;
            partial.resize(BLOCK, 0);
            self.put(logical, &partial)?;
        }
        self.writer.scratch.partial = partial;
        self.before = None;
        Ok(Content { size: self.size, runs: Runs::new(&self.writer.scratch.runs) })
    }

    fn grow_check(&self, length: u64) -> Result<(), Ext4Error> {
        match self.size.checked_add(length) {
            Some(size) if size <= MOST_BYTES => Ok(()),
            _ => Err(Ext4Error::FileTooLarge { limit: MOST_BYTES }),
        }
    }

    /// Appends data, of which it knows that there is room for it in the file.
    fn take(&mut self, mut data: &[u8]) -> Result<(), Ext4Error> {
        let inside = (self.size % BLOCK_BYTES) as usize;
        if inside > 0 {
            let (head, rest) = data.split_at(data.len().min(BLOCK - inside));
            self.writer.scratch.partial.extend_from_slice(head);
            if self.writer.scratch.partial.len() == BLOCK {
                let mut block = std::mem::take(&mut self.writer.scratch.partial);
                self.put((self.size / BLOCK_BYTES) as u32, &block)?;
                block.clear();
                self.writer.scratch.partial = block;
            }
            self.size += head.len() as u64;
            data = rest;
        }
        let (whole, tail) = data.split_at(data.len() - data.len() % BLOCK);
        if !whole.is_empty() {
            self.put((self.size / BLOCK_BYTES) as u32, whole)?;
        }
        self.writer.scratch.partial.extend_from_slice(tail);
        self.size += (whole.len() + tail.len()) as u64;
        Ok(())
    }

    /// Writes whole blocks from `logical` on, but for those that are zero.
    fn put(&mut self, mut logical: u32, mut data: &[u8]) -> Result<(), Ext4Error> {
        while !data.is_empty() {
            let zeros = data.chunks_exact(BLOCK).take_while(|block| *block == ZEROS).count();
            data = &data[zeros * BLOCK..];
            logical += zeros as u32;
            let count = data.chunks_exact(BLOCK).take_while(|block| *block != ZEROS).count();
            let (now, rest) = data.split_at(count * BLOCK);
            let Writer { space, stream, scratch, .. } = self.writer;
            append(space, stream, &mut scratch.runs, logical, now)?;
            logical += count as u32;
            data = rest;
        }
        Ok(())
    }
}

/// Puts whole blocks at the next free place and notes where that is.
pub(crate) fn append<W: Write + Seek>(
    space: &mut Space,
    stream: &mut Stream<W>,
    runs: &mut Vec<Run>,
    mut logical: u32,
    mut data: &[u8],
) -> Result<(), Ext4Error> {
    while !data.is_empty() {
        let blocks = u32::try_from(data.len() / BLOCK).unwrap_or(u32::MAX);
        let (start, count) = space.take(blocks)?;
        let (now, rest) = data.split_at(count as usize * BLOCK);
        stream.write(start.into(), now)?;
        extent::push(runs, Run { logical, start, count });
        logical += count;
        data = rest;
    }
    Ok(())
}

impl<W: Write + Seek> Write for ContentWriter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.grow_check(data.len() as u64)?;
        self.take(data)?;
        Ok(data.len())
    }

    /// Does nothing: data goes out in large pieces, the last of them in [`Writer::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Seek> Drop for ContentWriter<'_, W> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.writer.space.rewind(before.next());
        }
    }
}
