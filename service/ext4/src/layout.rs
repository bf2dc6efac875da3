//! Where things are: block groups, and the heads of some of them that hold copies of the superblock.

use crate::Ext4Error;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// The same, for arithmetic with sizes.
pub(crate) const BLOCK_BYTES: u64 = BLOCK as u64;
/// Blocks of a group: as many as one block of bitmap has bits.
pub(crate) const GROUP_BLOCKS: u32 = 8 * BLOCK as u32;
/// Bytes of an inode.
pub(crate) const INODE_BYTES: u32 = 256;
/// Inodes of one block of an inode table.
pub(crate) const INODES_PER_BLOCK: u32 = BLOCK as u32 / INODE_BYTES;
/// Bytes of a group descriptor (64bit).
pub(crate) const DESCRIPTOR_BYTES: usize = 64;
/// Descriptors of one block.
pub(crate) const DESCRIPTORS_PER_BLOCK: u32 = (BLOCK / DESCRIPTOR_BYTES) as u32;
/// Groups whose bitmaps and inode tables stand together (flex_bg), as mke2fs has it.
pub(crate) const FLEX_GROUPS: u32 = 16;
/// The resize inode lists the reserved blocks in one block of 32-bit pointers.
const MOST_RESERVED: u32 = BLOCK as u32 / 4;
/// The smallest filesystem that has room for a journal, as mke2fs has it.
pub(crate) const LEAST_BLOCKS: u64 = 2048;
/// The resize inode's pointers have 32 bits, so no block number can have more.
const MOST_BLOCKS: u64 = 1 << 32;
/// How much a filesystem may grow, as mke2fs has it.
const GROWTH: u64 = 1024;

/// Whether a group starts with a copy of superblock and descriptors: 0, 1 and powers of 3, 5 and 7
/// (sparse_super).
pub(crate) fn has_superblock(group: u32) -> bool {
    let power_of = |base: u32| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// The first block of a group.
pub(crate) fn group_start(group: u32) -> u64 {
    u64::from(group) * u64::from(GROUP_BLOCKS)
}

/// Groups that so many blocks make.
pub(crate) fn groups_of(blocks: u64) -> u32 {
    blocks.div_ceil(u64::from(GROUP_BLOCKS)) as u32
}

/// Blocks that the descriptors of so many groups take.
pub(crate) fn descriptor_blocks(groups: u32) -> u32 {
    groups.div_ceil(DESCRIPTORS_PER_BLOCK)
}

/// The blocks at the start of a group with a superblock copy that are kept free of anything else: one for
/// the superblock and `descriptors` for group descriptors, those in use and those reserved for growth.
///
/// It is fixed before the filesystem's size is known, since data is written around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reservation {
    descriptors: u32,
}

impl Reservation {
    /// For a filesystem that will probably have so many bytes, and may grow as far as the format goes.
    pub fn new(expected: u64) -> Self {
        let blocks = (expected / BLOCK_BYTES).clamp(u64::from(GROUP_BLOCKS), MOST_BLOCKS);
        let most = (blocks * GROWTH).min(MOST_BLOCKS);
        let now = descriptor_blocks(groups_of(blocks));
        let grown = descriptor_blocks(groups_of(most));
        Self { descriptors: now + (grown - now).min(MOST_RESERVED) }
    }

    /// Blocks kept at the start of a group.
    pub fn head(self, group: u32) -> u32 {
        if has_superblock(group) { 1 + self.descriptors } else { 0 }
    }

    /// The most blocks that the filesystem can have.
    pub fn most_blocks(self) -> u64 {
        (u64::from(self.descriptors) * u64::from(DESCRIPTORS_PER_BLOCK) * u64::from(GROUP_BLOCKS))
            .min(MOST_BLOCKS)
    }

    /// How the kept blocks divide for so many groups: in use, and reserved. Where the filesystem turned
    /// out far smaller than expected, some are neither and become free.
    pub fn divide(self, groups: u32) -> Heads {
        let used = descriptor_blocks(groups);
        Heads { used, reserved: self.descriptors.saturating_sub(used).min(MOST_RESERVED) }
    }
}

/// What the heads of groups hold once the filesystem's size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Blocks of descriptors.
    pub used: u32,
    /// Blocks reserved for more of them.
    pub reserved: u32,
}

impl Heads {
    /// Blocks in use at the start of a group.
    pub fn blocks(self, group: u32) -> u32 {
        if has_superblock(group) { 1 + self.used + self.reserved } else { 0 }
    }
}

/// Hands out blocks in rising order, around the heads of groups.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    reservation: Reservation,
    next: u64,
    /// Where the free run that holds `next` ends.
    end: u64,
    /// Nothing at or after this block was ever handed out, so it still reads as zeros.
    untouched: u64,
}

impl Space {
    /// Everything after the head of the first group.
    pub fn new(reservation: Reservation) -> Self {
        let start = u64::from(reservation.head(0));
        let mut space = Self { reservation, next: 0, end: 0, untouched: start };
        space.go_to(start);
        space
    }

    /// The next block that is free.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes on at `block` or, when that is in a head, after it.
    pub fn go_to(&mut self, block: u64) {
        let mut group = (block / u64::from(GROUP_BLOCKS)) as u32;
        self.next = block.max(group_start(group) + u64::from(self.reservation.head(group)));
        group += 1;
        while !has_superblock(group) {
            group += 1;
        }
        self.end = group_start(group);
    }

    /// Gives back everything from `block` on.
    pub fn rewind(&mut self, block: u64) {
        debug_assert!(block <= self.next);
        self.go_to(block);
    }

    /// Leaves out what was given back: all that follows reads as zeros.
    pub fn skip_touched(&mut self) {
        if self.next < self.untouched {
            self.go_to(self.untouched);
        }
    }

    /// Up to `most` blocks in a row: the first and how many.
    pub fn take(&mut self, most: u32) -> Result<(u32, u32), Ext4Error> {
        if self.next == self.end {
            self.go_to(self.end);
        }
        let limit = self.reservation.most_blocks();
        let count = u64::from(most).min(self.end - self.next);
        if self.next + count > limit {
            let size = (self.next + u64::from(most)) * BLOCK_BYTES;
            return Err(Ext4Error::TooLarge { size, limit: limit * BLOCK_BYTES });
        }
        let first = self.next;
        self.next += count;
        self.untouched = self.untouched.max(self.next);
        Ok((first as u32, count as u32))
    }

    /// Exactly `count` blocks in a row, fewer than a group holds; leaves a gap where they do not fit.
    pub fn take_whole(&mut self, count: u32) -> Result<u32, Ext4Error> {
        if self.end - self.next < u64::from(count) {
            self.go_to(self.end);
        }
        self.take(count).map(|(first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_where_mke2fs_has_them() {
        let groups: Vec<u32> = (0..130).filter(|g| has_superblock(*g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn reserves_what_mke2fs_reserves() {
        // dumpe2fs shows 127 reserved for 1 GiB and 1023 for 8 GiB, with one block in use.
        assert_eq!(Reservation::new(1 << 30).divide(8), Heads { used: 1, reserved: 127 });
        assert_eq!(Reservation::new(8 << 30).divide(64), Heads { used: 1, reserved: 1023 });
        assert_eq!(Reservation::new(0).divide(1), Heads { used: 1, reserved: 15 });
        let huge = Reservation::new(u64::MAX);
        assert_eq!(huge.divide(1 << 17), Heads { used: 2048, reserved: 0 });
        assert_eq!(huge.divide(1), Heads { used: 1, reserved: 1024 });
        assert_eq!(huge.most_blocks(), 1 << 32);
    }

    #[test]
    fn space_goes_around_heads() {
        let reservation = Reservation::new(1 << 30);
        let mut space = Space::new(reservation);
        assert_eq!(space.next(), 129);
        assert_eq!(space.take(u32::MAX).unwrap(), (129, 32768 - 129));
        assert_eq!(space.take(10).unwrap(), (32768 + 129, 10));
        space.go_to(2 * 32768 - 5);
        assert_eq!(space.take(1000).unwrap(), (2 * 32768 - 5, 1000), "group 2 has no head");
        space.go_to(3 * 32768 - 5);
        assert_eq!(space.take_whole(6).unwrap(), 3 * 32768 + 129);
        space.rewind(200);
        assert_eq!(space.take(1).unwrap(), (200, 1));
        space.skip_touched();
        assert_eq!(space.next(), 3 * 32768 + 129 + 6);
    }

    #[test]
    fn space_ends_with_the_reservation() {
        let mut space = Space::new(Reservation::new(0));
        space.go_to(Reservation::new(0).most_blocks() - 5);
        assert!(space.take_whole(5).is_ok());
        assert!(matches!(space.take(1), Err(Ext4Error::TooLarge { .. })));
    }
}
