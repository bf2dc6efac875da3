//! Where a file's blocks are: trees of extents, and the block maps of ext2 and ext3.

use super::{ReadAt, ReadError, Reader, damaged, le16, le32};

/// Pieces that one file may have.
const MOST: usize = 1 << 20;
/// The deepest tree of extents (`EXT4_MAX_EXTENT_DEPTH`).
const DEEPEST: u16 = 5;
const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
/// Longer extents are allocated but were never written: they read as zeros.
const MOST_WRITTEN: u32 = 32768;
/// Pointers in an inode that lead to data at once.
const DIRECT: usize = 12;

/// Consecutive bytes of a file that are consecutive in the image. What no extent has is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first byte in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// The first byte in the image.
    pub place: u64,
}

/// Collects extents, in rising order and cut to the file's size.
pub(super) struct Mapping<'a, R> {
    reader: &'a Reader<R>,
    size: u64,
    /// Blocks of the file so far, holes between them included.
    end: u64,
    found: Vec<Extent>,
}

impl<'a, R: ReadAt> Mapping<'a, R> {
    /// The mapping of a file of `size` bytes.
    pub fn new(reader: &'a Reader<R>, size: u64) -> Self {
        Self { reader, size, end: 0, found: Vec::new() }
    }

    /// What was collected.
    pub fn done(self) -> Vec<Extent> {
        self.found
    }

    fn block_size(&self) -> u64 {
        self.reader.superblock.block_size.into()
    }

    fn block(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        self.reader.spend(1)?;
        self.reader.block(number)
    }

    /// Adds `count` blocks of the file from `logical` on, which stand at `start` or were never written.
    fn add(&mut self, logical: u64, start: u64, count: u64, written: bool) -> Result<(), ReadError> {
        if logical < self.end {
            return damaged("a file has a block twice");
        }
        let superblock = &self.reader.superblock;
        let inside = start > 0 && start.checked_add(count).is_some_and(|end| end <= superblock.blocks);
        if !inside {
            return damaged("a file has blocks outside of the filesystem");
        }
        self.reader.spend(count)?;
        self.end = logical + count;
        let block = self.block_size();
        let offset = logical * block;
        if !written || offset >= self.size {
            return Ok(());
        }
        let length = (count * block).min(self.size - offset);
        let place = start * block;
        let many = self.found.len() == MOST;
        match self.found.last_mut() {
            Some(last) if last.offset + last.length == offset && last.place + last.length == place => {
                last.length += length;
            }
            _ if many => {
                return Err(ReadError::Unsupported(format!("has a file in more than {MOST} pieces")));
            }
            _ => self.found.push(Extent { offset, length, place }),
        }
        Ok(())
    }

    /// Follows a node of a tree of extents; the root stands in the inode.
    pub fn extents(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), ReadError> {
        let (count, level) = (usize::from(le16(node, 2)), le16(node, 6));
        let room = (node.len() - ENTRY) / ENTRY;
        // Each level is one lower than the one above, so no tree leads back to itself.
        if le16(node, 0) != MAGIC || count > room || level > DEEPEST || depth.is_some_and(|d| d != level) {
            return damaged("a tree of extents is not one");
        }
        for entry in node[ENTRY..].chunks_exact(ENTRY).take(count) {
            let logical = u64::from(le32(entry, 0));
            if level > 0 {
                let child = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
                let block = self.block(child)?;
                self.extents(&block, Some(level - 1))?;
                continue;
            }
            let length = u32::from(le16(entry, 4));
            let (count, written) = match length {
                0 => return damaged("an extent has no blocks"),
                1..=MOST_WRITTEN => (length, true),
                _ => (length - MOST_WRITTEN, false),
            };
            let start = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
            self.add(logical, start, count.into(), written)?;
        }
        Ok(())
    }

    /// Follows the block map in an inode: twelve blocks, then maps of one, two and three levels.
    pub fn block_map(&mut self, map: &[u8; 60]) -> Result<(), ReadError> {
        let (pointers, _) = map.as_chunks::<4>();
        for (at, pointer) in pointers.iter().take(DIRECT).enumerate() {
            self.pointer(u32::from_le_bytes(*pointer), 0, at as u64)?;
        }
        let per_block = self.block_size() / 4;
        let mut logical = DIRECT as u64;
        let mut covers = per_block;
        for (level, pointer) in (1..).zip(&pointers[DIRECT..]) {
            self.pointer(u32::from_le_bytes(*pointer), level, logical)?;
            logical += covers;
            covers *= per_block;
        }
        Ok(())
    }

    /// A pointer `level` maps above the data, whose first block in the file is `logical`.
    fn pointer(&mut self, pointer: u32, level: u32, logical: u64) -> Result<(), ReadError> {
        if pointer == 0 || logical.saturating_mul(self.block_size()) >= self.size {
            return Ok(());
        }
        if level == 0 {
            return self.add(logical, pointer.into(), 1, true);
        }
        let block = self.block(pointer.into())?;
        let covers = (self.block_size() / 4).pow(level - 1);
        for (at, pointer) in (0..).zip(block.as_chunks::<4>().0) {
            self.pointer(u32::from_le_bytes(*pointer), level - 1, logical + at * covers)?;
        }
        Ok(())
    }
}
