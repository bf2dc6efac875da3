//! Indexed directories (htree): blocks of entries sorted by the hash of the name, found through one or
//! two levels of index (docs.kernel.org/filesystems/ext4/directory.html, "Hash Tree Directories").

use crate::Ext4Error;
use crate::crc32c::crc32c;
use crate::directory::{CAPACITY, DirBlock, Directory, Entry};
use crate::dirhash::NameHash;
use crate::layout::BLOCK;
use crate::le::{put16, put32};

/// Half-MD4; the superblock says that bytes are unsigned.
const HASH_VERSION: u8 = 1;
/// Where the entries of the root start: after ".", ".." and its settings.
const ROOT_START: usize = 32;
/// Where the entries of another index block start: after one unused directory entry.
const NODE_START: usize = 8;
const SLOT: usize = 8;
const TAIL: usize = 8;
/// Entries that the root holds.
const ROOT_SLOTS: usize = (BLOCK - ROOT_START - TAIL) / SLOT;
/// Entries that another index block holds.
const NODE_SLOTS: usize = (BLOCK - NODE_START - TAIL) / SLOT;

/// A block of entries, or of index: the smallest hash in it, and its number.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    block: u32,
}

/// Some entries in the order of their hashes that fill one block.
struct Leaf {
    hash: u32,
    end: usize,
}

/// Writes the blocks of an indexed directory in order: root, second level if there is one, entries.
pub(crate) fn write(
    directory: &Directory,
    entries: &[Entry],
    mut write: impl FnMut(&DirBlock) -> Result<(), Ext4Error>,
) -> Result<(), Ext4Error> {
    let too_large = || Ext4Error::DirectoryTooLarge { entries: entries.len() };
    let mut order: Vec<(NameHash, u32)> =
        entries.iter().zip(0..).map(|(entry, i)| (directory.hash(entry.name), i)).collect();
    order.sort_unstable();
    let leaves = pack(entries, &order);

    let nodes = if leaves.len() > ROOT_SLOTS { leaves.len().div_ceil(NODE_SLOTS) } else { 0 };
    if nodes > ROOT_SLOTS {
        return Err(too_large());
    }
    let first_leaf = 1 + nodes as u32;
    let slots: Vec<Slot> =
        leaves.iter().zip(first_leaf..).map(|(leaf, block)| Slot { hash: leaf.hash, block }).collect();
    if nodes == 0 {
        write(&root(directory, 0, &slots))?;
    } else {
        let above: Vec<Slot> = slots
            .chunks(NODE_SLOTS)
            .zip(1..)
            .map(|(part, block)| Slot { hash: part[0].hash, block })
            .collect();
        write(&root(directory, 1, &above))?;
        for part in slots.chunks(NODE_SLOTS) {
            write(&node(directory, part))?;
        }
    }
    let mut start = 0;
    for leaf in &leaves {
        write(&directory.leaf(order[start..leaf.end].iter().map(|(_, i)| &entries[*i as usize])))?;
        start = leaf.end;
    }
    Ok(())
}

/// Fills one block after the other.
fn pack(entries: &[Entry], order: &[(NameHash, u32)]) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut room = 0;
    let mut previous = None;
    for (position, (hash, i)) in order.iter().enumerate() {
        let size = entries[*i as usize].size();
        if size > room {
            room = CAPACITY;
            // The lowest bit says that names of this hash start in the block before.
            let continued = u32::from(previous == Some(hash.major));
            leaves.push(Leaf { hash: hash.major | continued, end: position });
        }
        room -= size;
        previous = Some(hash.major);
        if let Some(leaf) = leaves.last_mut() {
            leaf.end = position + 1;
        }
    }
    leaves
}

fn root(directory: &Directory, levels: u8, slots: &[Slot]) -> DirBlock {
    let mut block = [0; BLOCK];
    directory.put_dots(&mut block);
    block[28] = HASH_VERSION;
    block[29] = 8; // bytes of these settings
    block[30] = levels;
    put_slots(&mut block, ROOT_START, ROOT_SLOTS, slots, directory.seed);
    block
}

fn node(directory: &Directory, slots: &[Slot]) -> DirBlock {
    let mut block = [0; BLOCK];
    put16(&mut block, 4, BLOCK as u16);
    put_slots(&mut block, NODE_START, NODE_SLOTS, slots, directory.seed);
    block
}

/// Entries, with their number in place of the first one's hash, and the checksum over those in use.
fn put_slots(block: &mut DirBlock, start: usize, most: usize, slots: &[Slot], seed: u32) {
    for (slot, at) in slots.iter().zip((start..).step_by(SLOT)) {
        put32(block, at, slot.hash);
        put32(block, at + 4, slot.block);
    }
    put16(block, start, most as u16);
    put16(block, start + 2, slots.len() as u16);
    let used = start + slots.len() * SLOT;
    // The tail's reserved word and its checksum, both zero, count too.
    let checksum = crc32c(crc32c(seed, &block[..used]), &[0; TAIL]);
    put32(block, start + most * SLOT + 4, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKind;
    use crate::directory::tests::{DIRECTORY, blocks};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entries(names: &[Vec<u8>]) -> Vec<Entry<'_>> {
        names.iter().map(|name| Entry { name, inode: 20, kind: NodeKind::File }).collect()
    }

    fn u16_at(block: &DirBlock, at: usize) -> usize {
        usize::from(u16::from_le_bytes([block[at], block[at + 1]]))
    }

    fn u32_at(block: &DirBlock, at: usize) -> u32 {
        u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
    }

    /// Follows the index as a lookup does.
    fn find(blocks: &[DirBlock], name: &[u8]) -> bool {
        let hash = DIRECTORY.hash(name).major;
        let step = |block: &DirBlock, start: usize| {
            let count = u16_at(block, start + 2);
            let slot = (1..count).take_while(|i| u32_at(block, start + i * SLOT) <= hash).last().unwrap_or(0);
            u32_at(block, start + slot * SLOT + 4) as usize
        };
        let mut at = step(&blocks[0], ROOT_START);
        for _ in 0..blocks[0][30] {
            at = step(&blocks[at], NODE_START);
        }
        // Collisions may go on in the next block.
        blocks[at..].iter().take(2).any(|leaf| {
            let mut offset = 0;
            while offset < CAPACITY {
                let length = usize::from(leaf[offset + 6]);
                if &leaf[offset + 8..offset + 8 + length] == name {
                    return true;
                }
                offset += u16_at(leaf, offset + 4);
            }
            false
        })
    }

    #[test]
    fn one_level_becomes_two() {
        // 15 names of 255 bytes fill a block.
        let names = |count: usize| (0..count).map(|i| format!("{i:0255}").into_bytes()).collect::<Vec<_>>();
        for (count, levels, total) in
            [(15 * ROOT_SLOTS, 0, 1 + ROOT_SLOTS), (15 * ROOT_SLOTS + 1, 1, 1 + 1 + ROOT_SLOTS + 1)]
        {
            let names = names(count);
            let (blocks, indexed) = blocks(&DIRECTORY, &entries(&names));
            assert!(indexed);
            assert_eq!((blocks[0][30], blocks.len()), (levels, total));
            assert!(names.iter().all(|name| find(&blocks, name)));
        }
    }

    #[test]
    fn more_than_two_levels_are_refused() {
        let name = [b'x'; 255];
        let many =
            vec![Entry { name: &name, inode: 20, kind: NodeKind::File }; 15 * ROOT_SLOTS * NODE_SLOTS + 1];
        let result = DIRECTORY.write(&many, |_| Ok(()));
        assert!(matches!(result, Err(Ext4Error::DirectoryTooLarge { .. })));
    }

    #[test]
    fn equal_hashes_across_blocks_are_marked() {
        let name = [b'x'; 255];
        let same = vec![Entry { name: &name, inode: 20, kind: NodeKind::File }; 40];
        let (blocks, _) = blocks(&DIRECTORY, &same);
        let hash = DIRECTORY.hash(&name).major;
        assert_eq!(u32_at(&blocks[0], ROOT_START + SLOT), hash | 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn every_name_is_found(
            names in proptest::collection::btree_set(proptest::collection::vec(1u8.., 1..255), 120..600)
        ) {
            let names: Vec<_> = BTreeSet::into_iter(names).collect();
            let (blocks, indexed) = blocks(&DIRECTORY, &entries(&names));
            prop_assume!(indexed);
            for name in &names {
                prop_assert!(find(&blocks, name));
            }
        }
    }
}
