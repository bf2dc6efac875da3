//! Group descriptors.

use crate::crc32c::crc32c;
use crate::layout::DESCRIPTOR_BYTES;
use crate::le::{halves, put16, put32};

/// The inode bitmap was never written: no inode is in use.
pub(crate) const INODE_UNINIT: u16 = 1;
/// The block bitmap was never written: it follows from the layout.
pub(crate) const BLOCK_UNINIT: u16 = 2;
/// The unused part of the inode table reads as zeros, so the kernel need not write them.
pub(crate) const INODE_ZEROED: u16 = 4;

/// What a descriptor says about its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub block_bitmap: u32,
    pub inode_bitmap: u32,
    pub inode_table: u32,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub directories: u32,
    /// Inodes at the end of the table that were never used.
    pub unused_inodes: u32,
    pub flags: u16,
    pub block_bitmap_checksum: u32,
    pub inode_bitmap_checksum: u32,
}

impl Descriptor {
    /// Writes the descriptor with its checksum.
    pub fn encode(&self, group: u32, seed: u32) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        put32(&mut bytes, 0, self.block_bitmap);
        put32(&mut bytes, 4, self.inode_bitmap);
        put32(&mut bytes, 8, self.inode_table);
        put16(&mut bytes, 18, self.flags);
        for (value, low, high) in [
            (self.free_blocks, 12, 44),
            (self.free_inodes, 14, 46),
            (self.directories, 16, 48),
            (self.block_bitmap_checksum, 24, 56),
            (self.inode_bitmap_checksum, 26, 58),
            (self.unused_inodes, 28, 50),
        ] {
            let parts = halves(value);
            put16(&mut bytes, low, parts.0);
            put16(&mut bytes, high, parts.1);
        }
        let (checksum, _) = halves(crc32c(crc32c(seed, &group.to_le_bytes()), &bytes));
        put16(&mut bytes, 30, checksum);
        bytes
    }
}
