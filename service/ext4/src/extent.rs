//! Extents: which blocks hold a file's data. Up to four stand in the inode, more in a tree of blocks.

use crate::Ext4Error;
use crate::crc32c::crc32c;
use crate::layout::BLOCK;
use crate::le::{put16, put32};

/// Consecutive blocks of a file that are consecutive on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block in the file.
    pub logical: u32,
    /// The same on disk.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// The most blocks of one extent; longer ones would count as unwritten.
const MOST_BLOCKS: u32 = 32768;
/// Entries in the inode.
const ROOT_ENTRIES: usize = 4;
/// Entries in a block, before its checksum.
const NODE_ENTRIES: usize = (BLOCK - HEADER) / ENTRY;
const HEADER: usize = 12;
const ENTRY: usize = 12;
const MAGIC: u16 = 0xf30a;

/// What stands in the inode.
pub(crate) type Root = [u8; HEADER + ROOT_ENTRIES * ENTRY];

/// Adds a run at the end, growing the last one where it goes on.
pub(crate) fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.logical + last.count == run.logical && last.start + last.count == run.start => {
            last.count += run.count;
        }
        _ => runs.push(run),
    }
}

/// Cut to the length that one extent can have.
fn extents(runs: &[Run]) -> impl Iterator<Item = Run> {
    runs.iter().flat_map(|run| {
        (0..run.count).step_by(MOST_BLOCKS as usize).map(|from| Run {
            logical: run.logical + from,
            start: run.start + from,
            count: MOST_BLOCKS.min(run.count - from),
        })
    })
}

/// Whether a file of these runs needs blocks for its tree.
pub(crate) fn needs_tree(runs: &[Run]) -> bool {
    runs.len() > ROOT_ENTRIES || extents(runs).nth(ROOT_ENTRIES).is_some()
}

/// The inode's part of a file that needs no tree.
pub(crate) fn flat_root(runs: &[Run]) -> Root {
    let entries: Vec<_> = extents(runs).map(leaf_entry).collect();
    let mut root = [0; _];
    node(&mut root, ROOT_ENTRIES, 0, &entries);
    root
}

/// Builds the tree of a file: hands each of its blocks to `write`, which places it and says where, and
/// returns the inode's part. `seed` is the inode's.
pub(crate) fn tree(
    runs: &[Run],
    seed: u32,
    mut write: impl FnMut(&[u8; BLOCK]) -> Result<u32, Ext4Error>,
) -> Result<Root, Ext4Error> {
    let mut level: Vec<Entry> = extents(runs).map(leaf_entry).collect();
    let mut depth = 0;
    while level.len() > ROOT_ENTRIES {
        let mut above = Vec::with_capacity(level.len().div_ceil(NODE_ENTRIES));
        for entries in level.chunks(NODE_ENTRIES) {
            let mut block = [0; BLOCK];
            node(&mut block, NODE_ENTRIES, depth, entries);
            let checksum = crc32c(seed, &block[..BLOCK - 4]);
            put32(&mut block, BLOCK - 4, checksum);
            above.push(index_entry(logical(&entries[0]), write(&block)?));
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; _];
    node(&mut root, ROOT_ENTRIES, depth, &level);
    Ok(root)
}

type Entry = [u8; ENTRY];

fn leaf_entry(run: Run) -> Entry {
    let mut entry = [0; ENTRY];
    put32(&mut entry, 0, run.logical);
    put16(&mut entry, 4, run.count as u16);
    put32(&mut entry, 8, run.start);
    entry
}

fn index_entry(logical: u32, block: u32) -> Entry {
    let mut entry = [0; ENTRY];
    put32(&mut entry, 0, logical);
    put32(&mut entry, 4, block);
    entry
}

fn logical(entry: &Entry) -> u32 {
    u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]])
}

fn node(space: &mut [u8], most: usize, depth: u16, entries: &[Entry]) {
    put16(space, 0, MAGIC);
    put16(space, 2, entries.len() as u16);
    put16(space, 4, most as u16);
    put16(space, 6, depth);
    for (slot, entry) in space[HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
        slot.copy_from_slice(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(count: u32) -> Vec<Run> {
        (0..count).map(|i| Run { logical: 2 * i, start: 1000 + i, count: 1 }).collect()
    }

    #[test]
    fn runs_grow_where_they_go_on() {
        let mut runs = Vec::new();
        push(&mut runs, Run { logical: 0, start: 10, count: 2 });
        push(&mut runs, Run { logical: 2, start: 12, count: 3 });
        push(&mut runs, Run { logical: 6, start: 15, count: 1 });
        assert_eq!(runs, [Run { logical: 0, start: 10, count: 5 }, Run { logical: 6, start: 15, count: 1 }]);
    }

    #[test]
    fn an_extent_has_at_most_32768_blocks() {
        let whole = [Run { logical: 0, start: 5, count: 4 * MOST_BLOCKS }];
        assert!(!needs_tree(&whole));
        assert_eq!(extents(&whole).last().unwrap().count, MOST_BLOCKS);
        assert!(needs_tree(&[Run { logical: 0, start: 5, count: 4 * MOST_BLOCKS + 1 }]));
    }

    #[test]
    fn trees_are_full_and_as_low_as_can_be() {
        for (count, blocks, depth) in [(5, 1, 1), (1360, 4, 1), (1361, 5 + 1, 2), (340 * 1360, 1360 + 4, 2)] {
            let mut written = 0;
            let root = tree(&scattered(count), 0, |_| {
                written += 1;
                Ok(written)
            })
            .unwrap();
            assert_eq!((written, root[6]), (blocks, depth), "{count} extents");
        }
    }

    #[test]
    fn the_flat_root_is_as_documented() {
        let root = flat_root(&[Run { logical: 1, start: 0x0102_0304, count: 5 }]);
        assert_eq!(root[..12], [0x0a, 0xf3, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(root[12..24], [1, 0, 0, 0, 5, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(root[24..], [0; 36]);
    }
}
