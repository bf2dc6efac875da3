//! Directories of one block, and the blocks of entries of larger ones.

use crate::crc32c::crc32c;
use crate::dirhash::{Chars, NameHash, half_md4};
use crate::layout::BLOCK;
use crate::le::{put16, put32};
use crate::{Ext4Error, NodeKind, htree};

/// One block of a directory.
pub(crate) type DirBlock = [u8; BLOCK];

/// Bytes for entries in a block: the rest is its checksum, dressed up as an unused entry.
pub(crate) const CAPACITY: usize = BLOCK - TAIL;
const TAIL: usize = 12;
/// "." and ".." stand first and are as short as can be.
const DOTS: usize = 24;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub name: &'a [u8],
    pub inode: u32,
    pub kind: NodeKind,
}

impl Entry<'_> {
    /// Bytes of the entry: 8 and the name, a multiple of 4.
    pub fn size(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

/// The directory that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory {
    pub inode: u32,
    pub parent: u32,
    /// What checksums of its blocks start with.
    pub seed: u32,
    /// The filesystem's seed for hashing names.
    pub hash_seed: [u32; 4],
    /// Blocks that it has at least: lost+found needs room before anything is lost.
    pub least_blocks: u32,
}

impl Directory {
    fn dots(&self) -> [Entry<'static>; 2] {
        let entry = |name, inode| Entry { name, inode, kind: NodeKind::Directory };
        [entry(b".", self.inode), entry(b"..", self.parent)]
    }

    /// The hash by which names are sorted.
    pub fn hash(&self, name: &[u8]) -> NameHash {
        half_md4(name, self.hash_seed, Chars::Unsigned)
    }

    /// Writes the directory's blocks in order. Returns whether it has an index.
    pub fn write(
        &self,
        entries: &[Entry],
        mut write: impl FnMut(&DirBlock) -> Result<(), Ext4Error>,
    ) -> Result<bool, Ext4Error> {
        let size: usize = DOTS + entries.iter().map(Entry::size).sum::<usize>();
        if size > CAPACITY {
            htree::write(self, entries, write)?;
            return Ok(true);
        }
        write(&self.leaf(self.dots().iter().chain(entries)))?;
        for _ in 1..self.least_blocks {
            write(&self.leaf([]))?;
        }
        Ok(false)
    }

    /// A block of entries; the last one takes the space that is left.
    pub fn leaf<'e, 'n: 'e>(&self, entries: impl IntoIterator<Item = &'e Entry<'n>>) -> DirBlock {
        let mut block = [0; BLOCK];
        let (mut at, mut last) = (0, 0);
        for entry in entries {
            put_entry(&mut block, at, entry, entry.size());
            last = at;
            at += entry.size();
        }
        put16(&mut block, last + 4, (CAPACITY - last) as u16);
        put16(&mut block, CAPACITY + 4, TAIL as u16);
        block[CAPACITY + 7] = 0xde;
        let checksum = crc32c(self.seed, &block[..CAPACITY]);
        put32(&mut block, BLOCK - 4, checksum);
        block
    }

    /// Puts "." and ".." where the root of an index has them: ".." hides the rest of the block.
    pub fn put_dots(&self, block: &mut DirBlock) {
        let [dot, dotdot] = self.dots();
        put_entry(block, 0, &dot, 12);
        put_entry(block, 12, &dotdot, BLOCK - 12);
    }
}

fn put_entry(block: &mut DirBlock, at: usize, entry: &Entry, length: usize) {
    put32(block, at, entry.inode);
    put16(block, at + 4, length as u16);
    block[at + 6] = entry.name.len() as u8;
    block[at + 7] = entry.kind.entry_type();
    block[at + 8..at + 8 + entry.name.len()].copy_from_slice(entry.name);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const DIRECTORY: Directory =
        Directory { inode: 12, parent: 2, seed: 7, hash_seed: [1, 2, 3, 4], least_blocks: 1 };

    pub(crate) fn blocks(directory: &Directory, entries: &[Entry]) -> (Vec<DirBlock>, bool) {
        let mut blocks = Vec::new();
        let indexed = directory
            .write(entries, |block| {
                blocks.push(*block);
                Ok(())
            })
            .unwrap();
        (blocks, indexed)
    }

    #[test]
    fn one_block_holds_what_fits() {
        let name = [b'x'; 255];
        let long = Entry { name: &name, inode: 20, kind: NodeKind::File };
        let short = Entry { name: b"1234", inode: 21, kind: NodeKind::Symlink };
        // 24 + 15 * 264 + 8 * 12 = 4080 of 4084 bytes.
        let mut entries = vec![long; 15];
        entries.extend([short; 8]);
        let (written, indexed) = blocks(&DIRECTORY, &entries);
        assert_eq!((written.len(), indexed), (1, false));
        let last = 4080 - 12;
        assert_eq!(written[0][last..last + 8], [21, 0, 0, 0, 16, 0, 4, 7]);
        entries.push(short);
        assert!(blocks(&DIRECTORY, &entries).1);
    }

    #[test]
    fn room_is_made_before_it_is_needed() {
        let (written, indexed) = blocks(&Directory { least_blocks: 4, ..DIRECTORY }, &[]);
        assert_eq!((written.len(), indexed), (4, false));
        assert_eq!(written[3][..8], [0, 0, 0, 0, 0xf4, 0x0f, 0, 0]);
        assert_eq!(written[0][12..23], [2, 0, 0, 0, 0xe8, 0x0f, 2, 2, b'.', b'.', 0]);
    }
}
