//! Counts what each group has, and writes bitmaps, descriptors and superblocks.

use crate::Ext4Error;
use crate::bitmap::{self, Bitmap, Usage};
use crate::crc32c::crc32c;
use crate::group::{BLOCK_UNINIT, Descriptor, INODE_UNINIT, INODE_ZEROED};
use crate::layout::{BLOCK, DESCRIPTOR_BYTES, GROUP_BLOCKS, group_start, has_superblock};
use crate::plan::Plan;
use crate::stream::Stream;
use crate::superblock::{self, Superblock};
use std::io::{Seek, Write};

/// The descriptors of all groups.
pub(crate) struct Groups {
    descriptors: Vec<Descriptor>,
    /// Inode numbers below the last that are free: at most one, lost+found's.
    gaps: Vec<u32>,
    inodes_per_group: u32,
}

impl Groups {
    pub fn new(plan: &Plan) -> Self {
        let descriptor = |tables: &crate::plan::Tables| Descriptor {
            block_bitmap: tables.block_bitmap,
            inode_bitmap: tables.inode_bitmap,
            inode_table: tables.inode_table,
            free_inodes: plan.inodes_per_group,
            unused_inodes: plan.inodes_per_group,
            // The output was empty, so what is not written reads as zeros.
            flags: INODE_ZEROED,
            ..Descriptor::default()
        };
        let descriptors = plan.tables.iter().map(descriptor).collect();
        Self { descriptors, gaps: Vec::new(), inodes_per_group: plan.inodes_per_group }
    }

    /// Counts the next inode, in rising order.
    pub fn count_inode(&mut self, number: u32, used: bool, directory: bool) {
        let group = &mut self.descriptors[((number - 1) / self.inodes_per_group) as usize];
        group.unused_inodes -= 1;
        group.free_inodes -= u32::from(used);
        group.directories += u32::from(directory);
        if !used {
            self.gaps.push(number);
        }
    }

    /// Blocks that are free in all groups.
    pub fn free_blocks(&self) -> u64 {
        self.descriptors.iter().map(|group| u64::from(group.free_blocks)).sum()
    }

    /// Inodes that are free in all groups.
    pub fn free_inodes(&self) -> u32 {
        self.descriptors.iter().map(|group| group.free_inodes).sum()
    }

    /// Writes the bitmaps that do not follow from the layout alone.
    pub fn write_bitmaps<W: Write + Seek>(
        &mut self,
        stream: &mut Stream<W>,
        plan: &Plan,
        usage: &Usage,
        seed: u32,
    ) -> Result<(), Ext4Error> {
        for number in 0..plan.groups {
            let group = &mut self.descriptors[number as usize];
            let size = (plan.blocks - group_start(number)).min(GROUP_BLOCKS.into()) as u32;
            let head = plan.heads.blocks(number);
            let used = usage.group(number);
            group.free_blocks = size - head - used.map_or(0, |bits| bitmap::ones(bits));
            // The kernel does not make the padding of the last bitmap, so that one is always written.
            if used.is_none() && number > 0 && number + 1 < plan.groups {
                group.flags |= BLOCK_UNINIT;
                continue;
            }
            let mut bits = used.copied().unwrap_or([0; BLOCK]);
            bitmap::set(&mut bits, 0, head);
            bitmap::set(&mut bits, size, GROUP_BLOCKS - size);
            group.block_bitmap_checksum = crc32c(seed, &bits);
            stream.write(group.block_bitmap.into(), &bits)?;
        }
        for number in 0..plan.groups {
            let first = number * plan.inodes_per_group + 1;
            let gaps = self.gaps.iter().filter_map(|gap| gap.checked_sub(first));
            let group = &mut self.descriptors[number as usize];
            let used = plan.inodes_per_group - group.unused_inodes;
            if used == 0 {
                group.flags |= INODE_UNINIT;
                continue;
            }
            let bits = inode_bitmap(used, plan.inodes_per_group, gaps);
            group.inode_bitmap_checksum = crc32c(seed, &bits[..plan.inodes_per_group as usize / 8]);
            stream.write(group.inode_bitmap.into(), &bits)?;
        }
        Ok(())
    }

    /// Writes superblock and descriptors at the start of each group that has them.
    pub fn write_heads<W: Write + Seek>(
        &self,
        stream: &mut Stream<W>,
        plan: &Plan,
        superblock: &Superblock,
        seed: u32,
    ) -> Result<(), Ext4Error> {
        let mut descriptors = Vec::with_capacity(plan.heads.used as usize * BLOCK);
        for (number, group) in (0..).zip(&self.descriptors) {
            descriptors.extend_from_slice(&group.encode(number, seed));
        }
        debug_assert_eq!(descriptors.len(), self.descriptors.len() * DESCRIPTOR_BYTES);
        descriptors.resize(plan.heads.used as usize * BLOCK, 0);
        for group in (0..plan.groups).filter(|group| has_superblock(*group)) {
            let mut block = [0; BLOCK];
            // The first block starts with space for a boot loader.
            let at = if group == 0 { superblock::BYTES } else { 0 };
            block[at..at + superblock::BYTES].copy_from_slice(&superblock.encode(group));
            let start = group_start(group);
            stream.write(start, &block)?;
            stream.write(start + 1, &descriptors)?;
        }
        Ok(())
    }
}

/// The first `used` inodes but for gaps, and everything behind the last.
fn inode_bitmap(used: u32, inodes: u32, gaps: impl Iterator<Item = u32>) -> Bitmap {
    let mut bits = [0; BLOCK];
    bitmap::set(&mut bits, 0, used);
    bitmap::set(&mut bits, inodes, GROUP_BLOCKS - inodes);
    for gap in gaps.filter(|gap| *gap < used) {
        bits[gap as usize / 8] &= !(1 << (gap % 8));
    }
    bits
}
