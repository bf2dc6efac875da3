//! What e2fsck would look at first, in memory and in a millisecond: each block has one owner, the bitmaps and counts
//! say so, and every name leads to an inode that counts it.
//!
//! Written from the documentation of the format (<https://docs.kernel.org/filesystems/ext4/>), not from the writer.

use std::collections::BTreeMap;

const BLOCK: usize = 4096;
const ROOT: u32 = 2;
const RESIZE: u32 = 7;
const FIRST: u32 = 11;

struct Image<'a> {
    bytes: &'a [u8],
    blocks: u64,
    blocks_per_group: u64,
    inodes_per_group: u64,
    groups: u64,
    /// Which blocks have an owner.
    owned: Vec<bool>,
    /// Blocks of attributes: how many inodes should share each, and how many do.
    shared: BTreeMap<u64, (u32, u32)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// A number in two halves.
fn halves(bytes: &[u8], low: usize, high: usize) -> u64 {
    u64::from(u32_at(bytes, low)) | u64::from(u32_at(bytes, high)) << 32
}

/// Checks a filesystem.
///
/// # Panics
/// When something is wrong with it.
pub fn check(bytes: &[u8]) {
    let superblock = &bytes[1024..2048];
    assert_eq!(u16_at(superblock, 56), 0xef53, "the magic number");
    let (blocks, blocks_per_group) = (halves(superblock, 4, 336), u64::from(u32_at(superblock, 32)));
    assert_eq!(blocks * BLOCK as u64, bytes.len() as u64, "the size");
    let mut image = Image {
        bytes,
        blocks,
        blocks_per_group,
        inodes_per_group: u32_at(superblock, 40).into(),
        groups: blocks.div_ceil(blocks_per_group),
        owned: vec![false; blocks as usize],
        shared: BTreeMap::new(),
    };
    assert_eq!(
        u64::from(u32_at(superblock, 0)),
        image.groups * image.inodes_per_group,
        "the count of inodes"
    );
    image.structures(u64::from(u16_at(superblock, 206)));
    let inodes = image.inodes();
    for (block, (should, do_so)) in &image.shared {
        assert_eq!(should, do_so, "the inodes that share block {block}");
    }
    image.names(&inodes);
    let (free_blocks, free_inodes) = image.bitmaps(&inodes);
    assert_eq!(halves(superblock, 12, 344), free_blocks, "free blocks");
    assert_eq!(u64::from(u32_at(superblock, 16)), free_inodes, "free inodes");
}

impl<'a> Image<'a> {
    fn block(&self, number: u64) -> &'a [u8] {
        assert!(number > 0 && number < self.blocks, "block {number} of {}", self.blocks);
        &self.bytes[number as usize * BLOCK..][..BLOCK]
    }

    fn own(&mut self, start: u64, count: u64, who: &str) {
        for number in start..start + count {
            assert!(number < self.blocks, "{who}: block {number} of {}", self.blocks);
            assert!(!self.owned[number as usize], "{who}: block {number} has an owner");
            self.owned[number as usize] = true;
        }
    }

    fn descriptor(&self, group: u64) -> &'a [u8] {
        &self.bytes[BLOCK + group as usize * 64..][..64]
    }

    /// Copies of superblock and descriptors, bitmaps, inode tables.
    fn structures(&mut self, reserved: u64) {
        let table = self.inodes_per_group * 256 / BLOCK as u64;
        for group in 0..self.groups {
            let power = |of: u64| {
                std::iter::successors(Some(of), |n| n.checked_mul(of))
                    .take_while(|n| *n <= group)
                    .any(|n| n == group)
            };
            if group < 2 || power(3) || power(5) || power(7) {
                let descriptors = (self.groups * 64).div_ceil(BLOCK as u64);
                self.own(group * self.blocks_per_group, 1 + descriptors + reserved, "a group's head");
            }
            let descriptor = self.descriptor(group);
            self.own(halves(descriptor, 0, 32), 1, "a bitmap of blocks");
            self.own(halves(descriptor, 4, 36), 1, "a bitmap of inodes");
            self.own(halves(descriptor, 8, 40), table, "a table of inodes");
        }
    }

    fn inode(&self, number: u32) -> &'a [u8] {
        let index = u64::from(number) - 1;
        let descriptor = self.descriptor(index / self.inodes_per_group);
        let table = halves(descriptor, 8, 40) as usize * BLOCK;
        &self.bytes[table + (index % self.inodes_per_group) as usize * 256..][..256]
    }

    /// Every inode that its bitmap says is in use, with its blocks in order; each block gets its owner.
    fn inodes(&mut self) -> BTreeMap<u32, Vec<(u32, u64)>> {
        let mut found = BTreeMap::new();
        for number in 1..=(self.groups * self.inodes_per_group) as u32 {
            let index = u64::from(number) - 1;
            let descriptor = self.descriptor(index / self.inodes_per_group);
            let bitmap = self.block(halves(descriptor, 4, 36));
            let bit = (index % self.inodes_per_group) as usize;
            let initialised = u16_at(descriptor, 18) & 1 == 0;
            let used = initialised && bitmap[bit / 8] >> (bit % 8) & 1 == 1;
            let raw = self.inode(number);
            if !used {
                assert_eq!(u16_at(raw, 26), 0, "inode {number} is free and has names");
                continue;
            }
            let mut blocks = Vec::new();
            let who = format!("inode {number}");
            if number == RESIZE && u32_at(raw, 40 + 13 * 4) != 0 {
                // Its indirect blocks are the reserved descriptors, which have their owner.
                self.own(u32_at(raw, 40 + 13 * 4).into(), 1, &who);
            } else if u32_at(raw, 32) & 0x8_0000 != 0 {
                self.extents(&raw[40..100], u16_at(raw, 46), &who, &mut blocks);
            }
            let attributes = u64::from(u32_at(raw, 104)) | u64::from(u16_at(raw, 118)) << 32;
            if attributes != 0 {
                let should = u32_at(self.block(attributes), 4);
                if !self.shared.contains_key(&attributes) {
                    self.own(attributes, 1, &who);
                }
                self.shared.entry(attributes).or_insert((should, 0)).1 += 1;
            }
            found.insert(number, blocks);
        }
        found
    }

    fn extents(&mut self, node: &'a [u8], depth: u16, who: &str, blocks: &mut Vec<(u32, u64)>) {
        assert_eq!((u16_at(node, 0), u16_at(node, 6)), (0xf30a, depth), "{who}: its extents");
        let (entries, most) = (u16_at(node, 2), u16_at(node, 4));
        assert!(entries <= most, "{who}: {entries} extents of {most}");
        for entry in node[12..].chunks_exact(12).take(entries.into()) {
            let logical = u32_at(entry, 0);
            if depth > 0 {
                let below = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                self.own(below, 1, who);
                self.extents(self.block(below), depth - 1, who, blocks);
                continue;
            }
            let start = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            let count = u16_at(entry, 4);
            assert!(count > 0 && count <= 32_768, "{who}: an extent of {count} blocks");
            self.own(start, count.into(), who);
            for (more, block) in (0..).zip(start..start + u64::from(count)) {
                assert!(blocks.last().is_none_or(|(last, _)| *last < logical + more), "{who}: out of order");
                blocks.push((logical + more, block));
            }
        }
    }

    /// Walks every directory from the root on.
    fn names(&self, inodes: &BTreeMap<u32, Vec<(u32, u64)>>) {
        let mut links: BTreeMap<u32, u64> = BTreeMap::new();
        let mut pending = vec![(ROOT, ROOT)];
        let mut directories = 0;
        while let Some((directory, parent)) = pending.pop() {
            directories += 1;
            let mut names = std::collections::BTreeSet::new();
            let blocks = &inodes[&directory];
            let size = halves(self.inode(directory), 4, 108);
            assert_eq!(size, blocks.len() as u64 * BLOCK as u64, "the size of directory {directory}");
            for (logical, (place, number)) in (0..).zip(blocks) {
                assert_eq!(*place, logical, "a hole in directory {directory}");
                let block = self.block(*number);
                let mut at = 0;
                while at < BLOCK {
                    let (inode, length) = (u32_at(block, at), usize::from(u16_at(block, at + 4)));
                    assert!(
                        length >= 8 && length % 4 == 0 && at + length <= BLOCK,
                        "an entry of {length} bytes"
                    );
                    let name = &block[at + 8..][..block[at + 6].into()];
                    let kind = block[at + 7];
                    at += length;
                    if inode == 0 {
                        continue;
                    }
                    assert!(8 + name.len() <= length, "a name longer than its entry");
                    assert!(names.insert(name), "a name twice in directory {directory}");
                    assert!(inodes.contains_key(&inode), "{directory} names inode {inode}, which is free");
                    *links.entry(inode).or_default() += 1;
                    let mode = u16_at(self.inode(inode), 0) >> 12;
                    let expected = [(1, 5), (2, 3), (4, 2), (6, 4), (8, 1), (10, 7), (12, 6)];
                    assert!(
                        expected.contains(&(mode, kind.into())),
                        "mode {mode:x} in an entry of kind {kind}"
                    );
                    match name {
                        b"." => assert_eq!(inode, directory),
                        b".." => assert_eq!(inode, parent),
                        _ if mode == 4 => pending.push((inode, directory)),
                        _ => {}
                    }
                }
            }
            assert!(
                names.contains(&b"."[..]) && names.contains(&b".."[..]),
                "directory {directory} is empty"
            );
        }
        let told: u64 = (0..self.groups)
            .map(|group| {
                let descriptor = self.descriptor(group);
                u64::from(u16_at(descriptor, 16)) | u64::from(u16_at(descriptor, 48)) << 16
            })
            .sum();
        assert_eq!(told, directories, "directories");
        for number in inodes.keys().filter(|number| **number >= FIRST || **number == ROOT) {
            let counted = u64::from(u16_at(self.inode(*number), 26));
            let found = links.get(number).copied().unwrap_or(0);
            assert_eq!(counted, found, "names of inode {number}");
        }
    }

    /// Compares the bitmaps with what was found: free blocks and free inodes.
    fn bitmaps(&self, inodes: &BTreeMap<u32, Vec<(u32, u64)>>) -> (u64, u64) {
        let mut free = (0, 0);
        for group in 0..self.groups {
            let descriptor = self.descriptor(group);
            let bitmap = self.block(halves(descriptor, 0, 32));
            let initialised = u16_at(descriptor, 18) & 2 == 0;
            let first = group * self.blocks_per_group;
            let mut free_here = 0;
            for bit in 0..self.blocks_per_group.min(self.blocks - first) {
                let owned = self.owned[(first + bit) as usize];
                let marked = bitmap[bit as usize / 8] >> (bit % 8) & 1 == 1;
                assert!(!initialised || owned == marked, "block {} is owned: {owned}", first + bit);
                free_here += u64::from(!owned);
            }
            let told = u64::from(u16_at(descriptor, 12)) | u64::from(u16_at(descriptor, 44)) << 16;
            assert_eq!(told, free_here, "free blocks of group {group}");
            let range =
                (group * self.inodes_per_group) as u32 + 1..=((group + 1) * self.inodes_per_group) as u32;
            let free_inodes = self.inodes_per_group - inodes.range(range).count() as u64;
            let told = u64::from(u16_at(descriptor, 14)) | u64::from(u16_at(descriptor, 46)) << 16;
            assert_eq!(told, free_inodes, "free inodes of group {group}");
            free = (free.0 + free_here, free.1 + free_inodes);
        }
        free
    }
}
