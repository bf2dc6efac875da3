//! The superblock and its copies (docs.kernel.org/filesystems/ext4/super.html).

use crate::crc32c::crc32c;
use crate::inode::{FIRST, JOURNAL};
use crate::layout::{DESCRIPTOR_BYTES, FLEX_GROUPS, GROUP_BLOCKS, INODE_BYTES};
use crate::le::{put16, put32};
use crate::{Options, Timestamp};

/// Bytes of a superblock.
pub(crate) const BYTES: usize = 1024;

/// has_journal, ext_attr, resize_inode, dir_index.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// filetype, extents, 64bit, flex_bg.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// Names are hashed as unsigned bytes, on every machine.
const UNSIGNED_HASH: u32 = 0x2;
/// user_xattr and acl, as mke2fs sets them.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Bytes of an inode's fields beyond the first 128.
const EXTRA_ISIZE: u16 = 32;

/// What differs from filesystem to filesystem.
pub(crate) struct Superblock<'a> {
    pub options: &'a Options,
    pub uuid: [u8; 16],
    pub hash_seed: [u32; 4],
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub free_inodes: u32,
    pub inodes_per_group: u32,
    pub reserved_descriptor_blocks: u32,
    /// `i_block` of the journal's inode, kept here in case the inode is lost.
    pub journal_map: [u8; 60],
    pub journal_bytes: u64,
}

impl Superblock<'_> {
    /// The copy that stands in `group`.
    pub fn encode(&self, group: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let b = &mut bytes;
        let (low, high) = (|n: u64| n as u32, |n: u64| (n >> 32) as u32);
        put32(b, 0, self.inodes);
        put32(b, 4, low(self.blocks));
        put32(b, 12, low(self.free_blocks));
        put32(b, 16, self.free_inodes);
        put32(b, 24, 2); // 1024 << 2 bytes are a block
        put32(b, 28, 2); // and so is a cluster
        put32(b, 32, GROUP_BLOCKS);
        put32(b, 36, GROUP_BLOCKS);
        put32(b, 40, self.inodes_per_group);
        put16(b, 54, u16::MAX); // mounts before a check: no limit
        put16(b, 56, 0xef53);
        put16(b, 58, 1); // clean
        put16(b, 60, 1); // go on after errors
        put32(b, 76, 1); // dynamic revision
        put32(b, 84, FIRST);
        put16(b, 88, INODE_BYTES as u16);
        put16(b, 90, group as u16);
        put32(b, 92, COMPATIBLE);
        put32(b, 96, INCOMPATIBLE);
        put32(b, 100, READ_ONLY_COMPATIBLE);
        b[104..120].copy_from_slice(&self.uuid);
        b[120..120 + self.options.label.len()].copy_from_slice(&self.options.label);
        put16(b, 206, self.reserved_descriptor_blocks as u16);
        put32(b, 224, JOURNAL);
        for (word, at) in self.hash_seed.into_iter().zip((236..).step_by(4)) {
            put32(b, at, word);
        }
        b[252] = 1; // half-MD4
        b[253] = 1; // what follows at 268 is a copy of the journal's inode
        put16(b, 254, DESCRIPTOR_BYTES as u16);
        put32(b, 256, MOUNT_OPTIONS);
        b[268..328].copy_from_slice(&self.journal_map);
        put32(b, 328, high(self.journal_bytes));
        put32(b, 332, low(self.journal_bytes));
        put32(b, 336, high(self.blocks));
        put32(b, 344, high(self.free_blocks));
        put16(b, 348, EXTRA_ISIZE);
        put16(b, 350, EXTRA_ISIZE);
        put32(b, 352, UNSIGNED_HASH);
        b[372] = FLEX_GROUPS.ilog2() as u8;
        b[373] = 1; // checksums are CRC-32C
        // Made, written and checked, each with 8 more bits elsewhere.
        for (at, more) in [(264, 0x276), (48, 0x274), (64, 0x277)] {
            let seconds = superblock_seconds(self.options.epoch);
            put32(b, at, low(seconds));
            b[more] = high(seconds) as u8;
        }
        let checksum = crc32c(!0, &b[..BYTES - 4]);
        put32(b, BYTES - 4, checksum);
        bytes
    }
}

/// A time of the superblock: 40 bits, nothing before 1970.
fn superblock_seconds(time: Timestamp) -> u64 {
    u64::try_from(time.clamped().seconds).unwrap_or(0)
}

/// The seed of name hashes: derived, so that the same options give the same bytes.
pub(crate) fn hash_seed(uuid: [u8; 16]) -> [u32; 4] {
    [0, 1, 2, 3].map(|word| crc32c(!word, &uuid))
}
