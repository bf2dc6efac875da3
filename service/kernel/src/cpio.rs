//! Writes cpio archives in the `newc` form, the one that the kernel unpacks.
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

/// File type bits of a mode, stat(2).
const DIRECTORY: u32 = 0o040000;
const FILE: u32 = 0o100000;
const CHARACTER_DEVICE: u32 = 0o020000;

/// An archive being written. The same calls give the same bytes: owner is root, times are 0 and inode
/// numbers count from 1.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// An empty archive, with room for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), inodes: 0 }
    }

    /// Adds a directory. Parents are added before what is in them.
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, DIRECTORY | permissions, 2, (0, 0), &[]);
    }

    /// Adds a file of less than 4 GiB, which callers' bounds keep far away.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.entry(path, FILE | permissions, 1, (0, 0), data);
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, 1, device, &[]);
    }

    /// Ends the archive. Another can follow it: its length is a multiple of 512, the block that cpio(1) reads.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inodes = u32::MAX; // The trailer's inode number is 0.
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), data: &[u8]) {
        self.inodes = self.inodes.wrapping_add(1);
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let size = data.len() as u64;
        let name = path.len() as u64 + 1;
        let (inode, mode, links) = (self.inodes.into(), mode.into(), links.into());
        let (major, minor) = (device.0.into(), device.1.into());
        let fields: [u64; 13] = [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Zeros up to the next multiple of 4.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One entry as it was read back: path, mode, device, data.
    pub(crate) type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads archives one after the other, as the kernel does.
    pub(crate) fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut inodes = 0;
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap(), 16).unwrap()
            };
            let (name, size) = (field(11) as usize, field(6) as usize);
            assert_eq!(bytes[110 + name - 1], 0);
            let path = String::from_utf8(bytes[110..110 + name - 1].to_vec()).unwrap();
            let start = (110 + name).next_multiple_of(4);
            let entry = (path, field(1), (field(9), field(10)), bytes[start..start + size].to_vec());
            assert_eq!([field(2), field(3), field(5), field(12)], [0; 4], "root, no time");
            let entries_end = entry.0 == "TRAILER!!!";
            if entries_end {
                assert_eq!(field(0), 0);
                inodes = 0;
            } else {
                inodes += 1;
                assert_eq!(field(0), inodes);
                entries.push(entry);
            }
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if entries_end {
                let zeros = bytes.iter().take_while(|b| **b == 0).count();
                bytes = &bytes[zeros..];
            }
        }
        entries
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            files in prop::collection::vec(("[a-z/]{1,20}", prop::collection::vec(any::<u8>(), 0..50)), 0..8)
        ) {
            let mut archive = Archive::new(0);
            archive.directory("d", 0o755);
            for (path, data) in &files {
                archive.file(path, 0o644, data);
            }
            let bytes = archive.finish();
            prop_assert_eq!(bytes.len() % 512, 0);
            let entries = read(&bytes);
            prop_assert_eq!(&entries[0], &("d".to_owned(), 0o040755, (0, 0), vec![]));
            let back: Vec<_> = entries[1..].iter().map(|e| (e.0.clone(), e.3.clone())).collect();
            prop_assert_eq!(back, files);
        }
    }
}
