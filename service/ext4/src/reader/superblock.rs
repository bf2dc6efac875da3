//! What the superblock tells (docs.kernel.org/filesystems/ext4/super.html): enough to find everything else, and to say
//! whether a guest could mount the filesystem.

use super::{ReadError, damaged};
use crate::layout;

/// Where the superblock stands, and its length, in bytes.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// See [`SUPERBLOCK_OFFSET`].
pub const SUPERBLOCK_BYTES: usize = 1024;

const MAGIC: u16 = 0xef53;
const CLEAN: u16 = 1;
const ERRORS: u16 = 2;

const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const WIDE: u32 = 0x80;
const CASEFOLD: u32 = 0x2_0000;
/// filetype, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, large_dir, inline_data, encrypt, and casefold
/// and recover, which are told apart with sentences of their own.
const KNOWN: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x3_0000;

const SPARSE_SUPER: u32 = 0x1;
const READ_ONLY: u32 = 0x1000;
const SHARED_BLOCKS: u32 = 0x4000;
const ORPHANS: u32 = 0x1_0000;
/// sparse_super, large_file, btree_dir, huge_file, gdt_csum, dir_nlink, extra_isize, quota, bigalloc, metadata_csum,
/// project, verity, and those that have sentences of their own.
const KNOWN_READ_ONLY: u32 = 0x7f | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000;

/// The superblock's fields that matter to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of a block, a power of two.
    pub block_size: u32,
    /// Blocks of the filesystem.
    pub blocks: u64,
    /// Those of them that nothing uses, as far as it was written down.
    pub free_blocks: u64,
    /// Inodes of the filesystem.
    pub inodes: u32,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) descriptor_size: u16,
    pub(super) first_meta_group: u32,
    state: u16,
    incompatible: u32,
    read_only: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    super::le16(bytes, at)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    super::le32(bytes, at)
}

impl Superblock {
    /// Reads the 1024 bytes that stand at byte 1024 of a filesystem.
    ///
    /// # Errors
    /// [`ReadError::NotExt4`] without the magic number, [`ReadError::Damaged`] for numbers that cannot be.
    pub fn parse(b: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, ReadError> {
        if u16_at(b, 56) != MAGIC {
            return Err(ReadError::NotExt4);
        }
        // The first revision has neither features nor inodes of other sizes.
        let dynamic = u32_at(b, 76) > 0;
        let feature = |at| if dynamic { u32_at(b, at) } else { 0 };
        let incompatible = feature(96);
        let wide = incompatible & WIDE != 0;
        let high = |at| if wide { u64::from(u32_at(b, at)) << 32 } else { 0 };
        let shift = u32_at(b, 24);
        if shift > 6 {
            return damaged("its block size is impossible");
        }
        let superblock = Self {
            block_size: 1024 << shift,
            blocks: u64::from(u32_at(b, 4)) | high(336),
            free_blocks: u64::from(u32_at(b, 12)) | high(344),
            inodes: u32_at(b, 0),
            first_data_block: u32_at(b, 20),
            blocks_per_group: u32_at(b, 32),
            inodes_per_group: u32_at(b, 40),
            inode_size: if dynamic { u16_at(b, 88) } else { 128 },
            descriptor_size: if wide { u16_at(b, 254) } else { 32 },
            first_meta_group: u32_at(b, 260),
            state: u16_at(b, 58),
            incompatible,
            read_only: feature(100),
        };
        superblock.check()?;
        Ok(superblock)
    }

    fn check(&self) -> Result<(), ReadError> {
        let block = self.block_size;
        let power = |n: u16| n.is_power_of_two() && u32::from(n) <= block;
        let sound = power(self.inode_size)
            && self.inode_size >= 128
            && power(self.descriptor_size)
            && self.descriptor_size >= 32
            && self.blocks_per_group > 0
            && self.inodes_per_group > 0
            && u64::from(self.first_data_block) < self.blocks
            && self.blocks < 1 << 48
            && self.free_blocks <= self.blocks;
        match sound {
            true => Ok(()),
            false => damaged("its superblock has impossible numbers"),
        }
    }

    /// Bytes of the filesystem.
    pub fn bytes(&self) -> u64 {
        // Below 2^48 blocks of at most 2^16 bytes; no file can be that long.
        self.blocks.saturating_mul(self.block_size.into())
    }

    /// Bytes of it that are in use, as far as it was written down.
    pub fn used(&self) -> u64 {
        (self.blocks - self.free_blocks).saturating_mul(self.block_size.into())
    }

    /// Refuses a filesystem that was not unmounted, or that is known to have errors.
    ///
    /// # Errors
    /// [`ReadError::Unclean`].
    pub fn check_clean(&self) -> Result<(), ReadError> {
        let why = if self.incompatible & RECOVER != 0 || self.read_only & ORPHANS != 0 {
            "was not unmounted: its journal holds changes"
        } else if self.state & ERRORS != 0 {
            "has errors that the kernel found"
        } else if self.state & CLEAN == 0 {
            "was not unmounted"
        } else {
            return Ok(());
        };
        Err(ReadError::Unclean { why })
    }

    /// Refuses what a current kernel, as a guest has one, would not mount for writing.
    ///
    /// # Errors
    /// [`ReadError::Unsupported`].
    pub fn check_mountable(&self) -> Result<(), ReadError> {
        let refuse = |why: String| Err(ReadError::Unsupported(why));
        if self.incompatible & !KNOWN != 0 {
            return refuse(format!(
                "has features (incompat {:#x}) that are not known",
                self.incompatible & !KNOWN
            ));
        }
        if self.incompatible & CASEFOLD != 0 {
            return refuse(
                "ignores case (casefold), which the kernels of many distributions cannot mount".into(),
            );
        }
        if self.read_only & !KNOWN_READ_ONLY != 0 {
            return refuse(format!(
                "has features (ro_compat {:#x}) that are not known",
                self.read_only & !KNOWN_READ_ONLY
            ));
        }
        if self.read_only & (READ_ONLY | SHARED_BLOCKS) != 0 {
            return refuse(
                "can only be read (read-only or shared_blocks), and a VM writes to its disk".into(),
            );
        }
        if self.block_size > 4096 {
            return refuse(format!(
                "has blocks of {} bytes, and a guest can mount up to 4096",
                self.block_size
            ));
        }
        Ok(())
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> u64 {
        (self.blocks - u64::from(self.first_data_block)).div_ceil(self.blocks_per_group.into())
    }

    /// Where the descriptor of a group stands, in bytes.
    pub(super) fn descriptor_offset(&self, group: u64) -> u64 {
        let (block, size) = (u64::from(self.block_size), u64::from(self.descriptor_size));
        let first = u64::from(self.first_data_block);
        let per_block = block / size;
        let meta_group = group / per_block;
        if self.incompatible & META_BG == 0 || meta_group < u64::from(self.first_meta_group) {
            // Right after the superblock, which is a block of its own where blocks have 1024 bytes.
            return (SUPERBLOCK_OFFSET / block + 1) * block + group * size;
        }
        let start = meta_group * per_block;
        let all = self.read_only & SPARSE_SUPER == 0;
        let copy = all || u32::try_from(start).is_ok_and(layout::has_superblock);
        (first + start * u64::from(self.blocks_per_group) + u64::from(copy)) * block
            + group % per_block * size
    }
}
