//! Reads an image back without the writer's code: what a program would see of each node.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 4096;

/// All that there is to know about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub inode: u32,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u16,
    pub size: u64,
    pub seconds: i64,
    pub nanoseconds: u32,
    /// Data without its holes: offset and bytes. The target of a symbolic link.
    pub data: Vec<(u64, Vec<u8>)>,
    /// The two words that hold a device's number.
    pub device: (u32, u32),
    /// Namespace, name and value, as on disk.
    pub xattrs: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    pub indexed: bool,
}

/// An image.
pub struct Reader {
    file: File,
    inodes_per_group: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Reader {
    pub fn open(path: &std::path::Path) -> Self {
        let mut reader = Self { file: File::open(path).unwrap(), inodes_per_group: 0 };
        let superblock = reader.bytes(1024, 1024);
        assert_eq!(u16_at(&superblock, 56), 0xef53);
        reader.inodes_per_group = u32_at(&superblock, 40).into();
        reader
    }

    /// Every path, "" for the root.
    pub fn walk(&self) -> BTreeMap<Vec<u8>, Seen> {
        let mut found = BTreeMap::new();
        let mut pending = vec![(Vec::new(), 2)];
        while let Some((path, inode)) = pending.pop() {
            let seen = self.inode(inode);
            if seen.mode & 0o170_000 == 0o040_000 {
                for (name, inode) in entries(&seen) {
                    let mut child = path.clone();
                    child.push(b'/');
                    child.extend_from_slice(&name);
                    pending.push((child, inode));
                }
            }
            assert!(found.insert(path, seen).is_none());
        }
        found
    }

    fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn inode(&self, number: u32) -> Seen {
        let index = u64::from(number) - 1;
        let descriptor = self.bytes(BLOCK + index / self.inodes_per_group * 64, 64);
        let table = u64::from(u32_at(&descriptor, 8)) * BLOCK;
        let raw = self.bytes(table + index % self.inodes_per_group * 256, 256);
        let (mode, flags) = (u16_at(&raw, 0), u32_at(&raw, 32));
        let size = u64::from(u32_at(&raw, 4)) | u64::from(u32_at(&raw, 108)) << 32;
        let extra = u32_at(&raw, 136);
        let data = if flags & 0x8_0000 != 0 {
            let mut data = Vec::new();
            self.extents(&raw[40..100], size, &mut data);
            data
        } else if mode & 0o170_000 == 0o120_000 {
            vec![(0, raw[40..40 + size as usize].to_vec())]
        } else {
            Vec::new()
        };
        let mut xattrs = BTreeMap::new();
        if u32_at(&raw, 160) == 0xea02_0000 {
            attributes(&raw[164..], &raw[164..], &mut xattrs);
        }
        if u32_at(&raw, 104) != 0 {
            let block = self.bytes(u64::from(u32_at(&raw, 104)) * BLOCK, BLOCK as usize);
            attributes(&block[32..], &block, &mut xattrs);
        }
        Seen {
            inode: number,
            mode,
            uid: u32::from(u16_at(&raw, 2)) | u32::from(u16_at(&raw, 120)) << 16,
            gid: u32::from(u16_at(&raw, 24)) | u32::from(u16_at(&raw, 122)) << 16,
            links: u16_at(&raw, 26),
            size,
            seconds: i64::from(u32_at(&raw, 16) as i32) + (i64::from(extra & 3) << 32),
            nanoseconds: extra >> 2,
            data,
            device: if flags == 0 && matches!(mode >> 12, 2 | 6) {
                (u32_at(&raw, 40), u32_at(&raw, 44))
            } else {
                (0, 0)
            },
            xattrs,
            indexed: flags & 0x1000 != 0,
        }
    }

    fn extents(&self, node: &[u8], size: u64, data: &mut Vec<(u64, Vec<u8>)>) {
        assert_eq!(u16_at(node, 0), 0xf30a);
        let depth = u16_at(node, 6);
        for entry in node[12..].chunks_exact(12).take(u16_at(node, 2).into()) {
            if depth > 0 {
                let block = self.bytes(u64::from(u32_at(entry, 4)) * BLOCK, BLOCK as usize);
                self.extents(&block, size, data);
                continue;
            }
            let offset = u64::from(u32_at(entry, 0)) * BLOCK;
            let length = (u64::from(u16_at(entry, 4)) * BLOCK).min(size - offset);
            data.push((offset, self.bytes(u64::from(u32_at(entry, 8)) * BLOCK, length as usize)));
        }
    }
}

/// The names in a directory, without looking at its index.
fn entries(directory: &Seen) -> Vec<(Vec<u8>, u32)> {
    let mut entries = Vec::new();
    for block in directory.data.iter().flat_map(|(_, bytes)| bytes.chunks_exact(BLOCK as usize)) {
        let mut at = 0;
        while at < block.len() {
            let (inode, length, name) = (u32_at(block, at), u16_at(block, at + 4), block[at + 6]);
            let name = &block[at + 8..at + 8 + usize::from(name)];
            if inode != 0 && name != b"." && name != b".." {
                entries.push((name.to_vec(), inode));
            }
            at += usize::from(length);
        }
    }
    entries
}

fn attributes(mut entries: &[u8], values: &[u8], found: &mut BTreeMap<(u8, Vec<u8>), Vec<u8>>) {
    while u32_at(entries, 0) != 0 {
        let (name, namespace) = (usize::from(entries[0]), entries[1]);
        let (offset, size) = (usize::from(u16_at(entries, 2)), u32_at(entries, 8) as usize);
        let key = (namespace, entries[16..16 + name].to_vec());
        assert!(found.insert(key, values[offset..offset + size].to_vec()).is_none());
        entries = &entries[16 + name.next_multiple_of(4)..];
    }
}
