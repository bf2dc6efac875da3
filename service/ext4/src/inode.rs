//! The 256-byte inode.

use crate::Timestamp;
use crate::crc32c::crc32c;
use crate::layout::INODE_BYTES;
use crate::le::{halves, put16, put32};
use crate::xattr::INLINE;

/// The root directory.
pub(crate) const ROOT: u32 = 2;
/// Keeps the reserved descriptor blocks.
pub(crate) const RESIZE: u32 = 7;
/// The journal.
pub(crate) const JOURNAL: u32 = 8;
/// The first that is not reserved; lost+found has it.
pub(crate) const FIRST: u32 = 11;

/// The file has an index (htree).
pub(crate) const INDEX_FLAG: u32 = 0x1000;
/// `i_block` holds extents.
pub(crate) const EXTENTS_FLAG: u32 = 0x8_0000;

/// Where the fields stop and the attributes start; `i_extra_isize` says so too.
const FIELDS: usize = INODE_BYTES as usize - INLINE;

/// A time as the inode has it: the low 32 bits of the seconds, and nanoseconds with two more bits.
pub(crate) type DiskTime = (u32, u32);

/// Encodes a time, after moving it into the range that there is.
pub(crate) fn disk_time(time: Timestamp) -> DiskTime {
    let time = time.clamped();
    let low = time.seconds as i32;
    let epoch = (time.seconds - i64::from(low)) >> 32;
    (low as u32, time.nanoseconds << 2 | epoch as u32 & 3)
}

/// What one inode holds.
pub(crate) struct Inode<'a> {
    /// With the type bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub links: u16,
    /// Blocks of 4 KiB that belong to it, data and metadata.
    pub blocks: u64,
    pub flags: u32,
    /// `i_block`: extents, the target of a short symbolic link, or a device number.
    pub map: [u8; 60],
    /// Access, change and modification time.
    pub time: DiskTime,
    pub created: DiskTime,
    /// The block with attributes, or 0.
    pub xattr_block: u32,
    pub xattrs: &'a [u8; INLINE],
}

/// What the checksums of an inode and of its blocks start with.
pub(crate) fn inode_seed(filesystem_seed: u32, number: u32) -> u32 {
    // The generation, which follows the number, is always 0 here.
    crc32c(crc32c(filesystem_seed, &number.to_le_bytes()), &[0; 4])
}

impl Inode<'_> {
    /// Writes the inode with its checksum.
    pub fn encode(&self, number: u32, filesystem_seed: u32, bytes: &mut [u8; INODE_BYTES as usize]) {
        bytes.fill(0);
        let (uid, uid_high) = halves(self.uid);
        let (gid, gid_high) = halves(self.gid);
        let sectors = self.blocks * 8;
        put16(bytes, 0, self.mode);
        put16(bytes, 2, uid);
        put32(bytes, 4, self.size as u32);
        put32(bytes, 8, self.time.0);
        put32(bytes, 12, self.time.0);
        put32(bytes, 16, self.time.0);
        put16(bytes, 24, gid);
        put16(bytes, 26, self.links);
        put32(bytes, 28, sectors as u32);
        put32(bytes, 32, self.flags);
        bytes[40..100].copy_from_slice(&self.map);
        put32(bytes, 104, self.xattr_block);
        put32(bytes, 108, (self.size >> 32) as u32);
        put16(bytes, 116, (sectors >> 32) as u16);
        put16(bytes, 120, uid_high);
        put16(bytes, 122, gid_high);
        put16(bytes, 128, (FIELDS - 128) as u16);
        put32(bytes, 132, self.time.1);
        put32(bytes, 136, self.time.1);
        put32(bytes, 140, self.time.1);
        put32(bytes, 144, self.created.0);
        put32(bytes, 148, self.created.1);
        bytes[FIELDS..].copy_from_slice(self.xattrs);
        let (low, high) = halves(crc32c(inode_seed(filesystem_seed, number), bytes));
        put16(bytes, 124, low);
        put16(bytes, 130, high);
    }
}

/// `i_block` of a device: the old 8 + 8 bits where they suffice, else 12 + 20 (linux/kdev_t.h).
pub(crate) fn device_map(major: u32, minor: u32) -> [u8; 60] {
    let mut map = [0; 60];
    if major < 256 && minor < 256 {
        put32(&mut map, 0, major << 8 | minor);
    } else {
        put32(&mut map, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs.kernel.org/filesystems/ext4/inodes.html, "Inode Timestamps".
    #[test]
    fn times_have_34_bits() {
        for (seconds, low, epoch) in [
            (-1, 0xffff_ffff, 0),
            (-0x8000_0000, 0x8000_0000, 0),
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0xffff_ffff, 0xffff_ffff, 1),
            (0x1_0000_0000, 0, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
            (0x2_7fff_ffff, 0x7fff_ffff, 2),
        ] {
            let nanoseconds = 999_999_999;
            assert_eq!(
                disk_time(Timestamp { seconds, nanoseconds }),
                (low, nanoseconds << 2 | epoch),
                "{seconds}"
            );
        }
        let far = disk_time(Timestamp { seconds: i64::MAX, nanoseconds: u32::MAX });
        assert_eq!(far, disk_time(Timestamp::MAX));
        assert_eq!(far, (0x7fff_ffff, 999_999_999 << 2 | 2));
        assert_eq!(disk_time(Timestamp { seconds: i64::MIN, nanoseconds: 5 }), (0x8000_0000, 0));
    }

    #[test]
    fn device_numbers_take_the_short_form_where_they_can() {
        assert_eq!(device_map(5, 1)[..8], [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device_map(4095, 0xf_ffff)[..8], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(device_map(1, 256)[..8], [0, 0, 0, 0, 0, 1, 0x10, 0]);
    }
}
