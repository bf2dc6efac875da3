//! The journal: empty, so only its first block holds anything.

use crate::layout::BLOCK;
use crate::le::put32_be;

/// Blocks of the journal of a filesystem of so many blocks, as mke2fs has it (`ext2fs_default_journal_size`).
pub(crate) fn size(blocks: u64) -> u32 {
    const STEPS: [(u64, u32); 7] = [
        (32_768, 1_024),
        (262_144, 4_096),
        (524_288, 8_192),
        (4_194_304, 16_384),
        (8_388_608, 32_768),
        (16_777_216, 65_536),
        (33_554_432, 131_072),
    ];
    STEPS.iter().find(|(below, _)| blocks < *below).map_or(262_144, |(_, size)| *size)
}

/// The superblock of an empty journal (jbd2, version 2), all of it big-endian.
pub(crate) fn superblock(blocks: u32, uuid: [u8; 16]) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    put32_be(&mut bytes, 0, 0xc03b_3998);
    put32_be(&mut bytes, 4, 4); // superblock, version 2
    put32_be(&mut bytes, 12, BLOCK as u32);
    put32_be(&mut bytes, 16, blocks);
    put32_be(&mut bytes, 20, 1); // the first block of the log
    put32_be(&mut bytes, 24, 1); // the first transaction's number
    bytes[48..64].copy_from_slice(&uuid);
    put32_be(&mut bytes, 64, 1); // filesystems that use it
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dumpe2fs shows it for filesystems made by mke2fs.
    #[test]
    fn sizes_are_those_of_mke2fs() {
        let mib = |n: u64| n << 8;
        for (filesystem, journal) in [(64, 4), (127, 4), (128, 16), (1023, 16), (1024, 32), (8 << 10, 64)] {
            assert_eq!(u64::from(size(mib(filesystem))), mib(journal), "{filesystem} MiB");
        }
        assert_eq!(size(u64::MAX), 262_144);
    }
}
