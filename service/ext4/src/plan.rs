//! Decides the size of the filesystem and where bitmaps, inode tables and journal go.
//!
//! With flex_bg they can be anywhere. Groups whose neighbourhood data has filled get theirs behind the
//! data; the groups after that get theirs at the start of their own neighbourhood, as mke2fs does it, so
//! that a filesystem can also shrink again.

use crate::extent::{self, Run};
use crate::layout::{
    BLOCK_BYTES, FLEX_GROUPS, GROUP_BLOCKS, Heads, INODES_PER_BLOCK, LEAST_BLOCKS, Reservation, Space,
    group_start, groups_of,
};
use crate::{Ext4Error, Size, journal};

/// One inode for so many blocks (16 KiB), as mke2fs has it.
const BLOCKS_PER_INODE: u64 = 4;
/// The inode bitmap is one block.
const MOST_INODES_PER_GROUP: u32 = GROUP_BLOCKS;

/// What belongs to a group, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tables {
    pub block_bitmap: u32,
    pub inode_bitmap: u32,
    pub inode_table: u32,
}

/// The filesystem's size and layout.
#[derive(Debug)]
pub(crate) struct Plan {
    pub blocks: u64,
    pub groups: u32,
    pub inodes_per_group: u32,
    pub heads: Heads,
    pub tables: Vec<Tables>,
    pub journal: Vec<Run>,
    /// The block with the journal's extents, where they do not fit its inode.
    pub journal_tree: Option<u32>,
    /// Blocks that it takes: more than `blocks` when it does not fit.
    end: u64,
}

/// Finds a layout for the inodes up to number `inodes` behind what `space` handed out.
pub(crate) fn plan(
    size: Size,
    inodes: u32,
    reservation: Reservation,
    space: &Space,
) -> Result<Plan, Ext4Error> {
    let limit = reservation.most_blocks();
    match size {
        Size::Exactly(size) => {
            let blocks = without_stub(size / BLOCK_BYTES, reservation);
            if blocks < LEAST_BLOCKS {
                return Err(Ext4Error::TooSmall { size, least: LEAST_BLOCKS * BLOCK_BYTES });
            }
            if blocks > limit {
                return Err(Ext4Error::TooLarge { size, limit: limit * BLOCK_BYTES });
            }
            let plan = lay_out(blocks, inodes, reservation, space.clone())?;
            if plan.end <= plan.blocks {
                return Ok(plan);
            }
            let needed = fit(0, inodes, reservation, space)?.blocks * BLOCK_BYTES;
            // The two can be one group apart, where another group brings its own needs.
            Err(Ext4Error::NoSpace { size, needed: needed.max(size + BLOCK_BYTES) })
        }
        Size::AtLeast(size) => fit(size.div_ceil(BLOCK_BYTES), inodes, reservation, space),
    }
}

/// The smallest layout of at least so many blocks.
fn fit(blocks: u64, inodes: u32, reservation: Reservation, space: &Space) -> Result<Plan, Ext4Error> {
    let limit = reservation.most_blocks();
    let mut blocks = blocks.max(LEAST_BLOCKS);
    loop {
        blocks = with_room_for_head(blocks, reservation);
        if blocks > limit {
            return Err(Ext4Error::TooLarge {
                size: blocks.saturating_mul(BLOCK_BYTES),
                limit: limit * BLOCK_BYTES,
            });
        }
        let plan = lay_out(blocks, inodes, reservation, space.clone())?;
        if plan.end <= plan.blocks {
            return Ok(plan);
        }
        blocks = plan.end;
    }
}

/// Cuts off a last group that has no room for more than its own head.
fn without_stub(blocks: u64, reservation: Reservation) -> u64 {
    let last = groups_of(blocks).saturating_sub(1);
    let rest = blocks - group_start(last);
    if last > 0 && rest <= u64::from(reservation.head(last)) { group_start(last) } else { blocks }
}

/// Grows a last group until there is room for more than its own head.
fn with_room_for_head(blocks: u64, reservation: Reservation) -> u64 {
    let Some(last) = blocks.div_ceil(u64::from(GROUP_BLOCKS)).checked_sub(1) else { return blocks };
    let Ok(last) = u32::try_from(last) else { return blocks };
    blocks.max(group_start(last) + u64::from(reservation.head(last)) + 1)
}

fn lay_out(blocks: u64, inodes: u32, reservation: Reservation, mut space: Space) -> Result<Plan, Ext4Error> {
    let groups = groups_of(blocks);
    let inodes_per_group = inodes_per_group(blocks, groups, inodes);
    let table = inodes_per_group / INODES_PER_BLOCK;
    let mut tables = Vec::with_capacity(groups as usize);
    let mut journal = Vec::new();
    space.skip_touched();
    for first in (0..groups).step_by(FLEX_GROUPS as usize) {
        let members = first..groups.min(first + FLEX_GROUPS);
        let start = group_start(first);
        if start > space.next() {
            if journal.is_empty() {
                journal = take_journal(blocks, &mut space)?;
            }
            let heads: u32 = members.clone().map(|group| reservation.head(group)).sum();
            let needed = members.len() as u64 * u64::from(2 + table) + u64::from(heads);
            // At the end there may not be much of a neighbourhood; then they stay with those before.
            if start > space.next() && start + 2 * needed <= blocks {
                space.go_to(start);
            }
        }
        let mut singles = Vec::with_capacity(2 * members.len());
        for _ in 0..2 * members.len() {
            singles.push(space.take_whole(1)?);
        }
        let (block_bitmaps, inode_bitmaps) = singles.split_at(members.len());
        for (block_bitmap, inode_bitmap) in block_bitmaps.iter().zip(inode_bitmaps) {
            tables.push(Tables {
                block_bitmap: *block_bitmap,
                inode_bitmap: *inode_bitmap,
                inode_table: space.take_whole(table)?,
            });
        }
    }
    if journal.is_empty() {
        journal = take_journal(blocks, &mut space)?;
    }
    let journal_tree = if extent::needs_tree(&journal) { Some(space.take_whole(1)?) } else { None };
    let groups_for_inodes = inodes.div_ceil(inodes_per_group_limit(groups));
    let end_for_inodes = if groups_for_inodes > groups { group_start(groups_for_inodes) } else { 0 };
    Ok(Plan {
        blocks,
        groups,
        inodes_per_group,
        heads: reservation.divide(groups),
        tables,
        journal,
        journal_tree,
        end: space.next().max(end_for_inodes),
    })
}

/// A multiple of what a block holds, so that tables and bitmaps end evenly.
fn inodes_per_group(blocks: u64, groups: u32, inodes: u32) -> u32 {
    let inodes = u64::from(inodes);
    // What is in use leaves some free.
    let wanted = (blocks / BLOCKS_PER_INODE).max(inodes + inodes / 8 + 16);
    let each = wanted.div_ceil(u64::from(groups)).next_multiple_of(INODES_PER_BLOCK.into());
    each.min(inodes_per_group_limit(groups).into()) as u32
}

/// The bitmap's size, and all inodes are counted with 32 bits.
fn inodes_per_group_limit(groups: u32) -> u32 {
    let even = u32::MAX / groups / INODES_PER_BLOCK * INODES_PER_BLOCK;
    even.min(MOST_INODES_PER_GROUP)
}

fn take_journal(blocks: u64, space: &mut Space) -> Result<Vec<Run>, Ext4Error> {
    let size = journal::size(blocks);
    let mut runs = Vec::new();
    let mut logical = 0;
    while logical < size {
        let (start, count) = space.take(size - logical)?;
        extent::push(&mut runs, Run { logical, start, count });
        logical += count;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn place(expected: u64, size: Size, inodes: u32, data: u64) -> Result<Plan, Ext4Error> {
        let reservation = Reservation::new(expected);
        let mut space = Space::new(reservation);
        space.go_to(data);
        plan(size, inodes, reservation, &space)
    }

    /// Everything that a plan takes, in order.
    fn taken(plan: &Plan) -> Vec<(u64, u64)> {
        let table = plan.inodes_per_group / INODES_PER_BLOCK;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for t in &plan.tables {
            let all = [(t.block_bitmap, 1), (t.inode_bitmap, 1), (t.inode_table, table)];
            runs.extend(all.map(|(start, count)| (start.into(), count.into())));
        }
        runs.extend(plan.journal.iter().map(|run| (run.start.into(), run.count.into())));
        runs.extend(plan.journal_tree.map(|block| (block.into(), 1)));
        runs.extend((0..plan.groups).map(|g| (group_start(g), plan.heads.blocks(g).into())));
        runs.retain(|(_, count)| *count > 0);
        runs.sort_unstable();
        runs
    }

    #[test]
    fn a_plain_gibibyte_is_as_mke2fs_makes_it() {
        let plan = place(1 << 30, Size::Exactly(1 << 30), 11, 0).unwrap();
        assert_eq!((plan.blocks, plan.groups, plan.inodes_per_group), (262_144, 8, 8192));
        let first = Tables { block_bitmap: 129, inode_bitmap: 137, inode_table: 145 };
        assert_eq!(plan.tables[0], first);
        assert_eq!(plan.tables[7].inode_table, 145 + 7 * 512);
        assert_eq!(plan.journal, [Run { logical: 0, start: 145 + 8 * 512, count: 8192 }]);
    }

    #[test]
    fn too_small_and_too_large_are_told_apart() {
        assert!(matches!(place(0, Size::Exactly(1 << 20), 11, 0), Err(Ext4Error::TooSmall { .. })));
        assert!(matches!(place(0, Size::Exactly(1 << 44), 11, 0), Err(Ext4Error::TooLarge { .. })));
        assert!(matches!(place(0, Size::AtLeast(u64::MAX), 11, 0), Err(Ext4Error::TooLarge { .. })));
        let full = place(1 << 26, Size::Exactly(1 << 26), 11, 16_000);
        assert!(matches!(full, Err(Ext4Error::NoSpace { needed, .. }) if needed > 1 << 26));
        assert!(place(1 << 44, Size::Exactly(1 << 44), 11, 0).is_ok());
        assert!(place(1 << 44, Size::Exactly(u64::MAX), 11, 0).is_err());
    }

    #[test]
    fn many_small_files_make_it_larger() {
        let plan = place(1 << 30, Size::AtLeast(0), 1_000_000, 200).unwrap();
        assert!(u64::from(plan.inodes_per_group) * u64::from(plan.groups) >= 1_000_000);
        assert_eq!(plan.groups, 31);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn nothing_overlaps(
            size in 8u64 << 20..200 << 30, data in 0u64..8 << 18, inodes in 11u32..400_000, exact: bool, expected in 0u64..1 << 42,
        ) {
            let wanted = if exact { Size::Exactly(size) } else { Size::AtLeast(size) };
            match place(expected, wanted, inodes, data) {
                Err(Ext4Error::NoSpace { needed, .. }) => prop_assert!(exact && needed > size),
                Err(Ext4Error::TooLarge { .. }) => {}
                Err(other) => prop_assert!(false, "{}", other),
                Ok(plan) => {
                    let bytes = plan.blocks * BLOCK_BYTES;
                    prop_assert_ne!(bytes.cmp(&size), if exact { Ordering::Greater } else { Ordering::Less });
                    prop_assert!(u64::from(plan.inodes_per_group) * u64::from(plan.groups) >= inodes.into());
                    prop_assert!(plan.heads.reserved <= 1024);
                    let mut end = 0;
                    for (start, count) in taken(&plan) {
                        prop_assert!(start >= end, "{} is taken twice", start);
                        end = end.max(start + count);
                    }
                    prop_assert!(end <= plan.blocks);
                    let journal: u32 = plan.journal.iter().map(|run| run.count).sum();
                    prop_assert_eq!(journal, journal::size(plan.blocks));
                }
            }
        }
    }
}
