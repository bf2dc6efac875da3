//! The resize inode, which keeps the blocks behind the group descriptors for more of them.
//!
//! Its one double-indirect block lists the reserved blocks of the first group, and each of these lists its
//! counterparts in the other groups that start with a copy of the superblock.

use crate::Ext4Error;
use crate::layout::{BLOCK, BLOCK_BYTES, group_start, has_superblock};
use crate::le::put32;
use crate::plan::Plan;
use crate::stream::Stream;
use crate::tables::Reserved;
use std::io::{Seek, Write};

/// Pointers in a block.
const POINTERS: u32 = BLOCK as u32 / 4;
/// Where `i_block` has the double-indirect block.
const DOUBLE_INDIRECT: usize = 13;
/// All blocks that a double-indirect block and what stands before it can reach.
const SIZE: u64 = ((POINTERS as u64 + 1) * POINTERS as u64 + 12) * BLOCK_BYTES;

/// The inode, whose double-indirect block is `list`.
pub(crate) fn inode(plan: &Plan, list: u32) -> Reserved {
    let copies = (0..plan.groups).filter(|group| has_superblock(*group)).count() as u64;
    let mut map = [0; 60];
    put32(&mut map, 4 * DOUBLE_INDIRECT, list);
    Reserved { size: SIZE, blocks: 1 + u64::from(plan.heads.reserved) * copies, map, flags: 0 }
}

/// Writes the double-indirect block, and the reserved blocks of the first group.
pub(crate) fn write<W: Write + Seek>(
    stream: &mut Stream<W>,
    plan: &Plan,
    list: u32,
) -> Result<(), Ext4Error> {
    let mut listing = [0; BLOCK];
    for index in 0..plan.heads.reserved {
        let offset = plan.heads.used + index;
        let block = 1 + offset;
        // The list wraps: its slots are counted from the first descriptor block.
        put32(&mut listing, 4 * (offset % POINTERS) as usize, block);
        let mut pointers = [0; BLOCK];
        let copies = (1..plan.groups).filter(|group| has_superblock(*group));
        for (group, slot) in copies.zip(pointers.chunks_exact_mut(4)) {
            put32(slot, 0, group_start(group) as u32 + block);
        }
        stream.write(block.into(), &pointers)?;
    }
    Ok(stream.write(list.into(), &listing)?)
}
