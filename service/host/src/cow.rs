//! The file behind a snapshot, as dm-snapshot writes it: read here so that a disk's content can be had without the device,
//! and so by who has no privilege.
//!
//! It is made of chunks. The first is a header; then comes an area, which is a chunk of entries and the chunks that they
//! tell of, then the next area. An entry says which chunk of the disk stands in which chunk of the file; one that says
//! chunk 0 ends the list. All numbers are little-endian.
//! Source: linux, drivers/md/dm-snap-persistent.c.

use banger_model::{Bytes, Limits};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes of a chunk.
pub const CHUNK: usize = 4096;
/// `SnAp`
const MAGIC: u32 = 0x7041_6e53;
/// Where the header says whether the kernel still trusts the rest.
const VALID: usize = 4;
const VERSION: u32 = 1;
/// Bytes of an entry.
const ENTRY: usize = 16;
/// Entries of an area.
const ENTRIES: u64 = (CHUNK / ENTRY) as u64;
/// What the header counts chunks in.
const SECTOR: u32 = 512;

/// A file is not, or not rightly, the file of a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CowError {
    /// It cannot be read.
    #[error("what the VM has written cannot be read")]
    Io(#[from] io::Error),
    /// Something in it is wrong.
    #[error("what the VM has written is damaged: {0}")]
    Damaged(&'static str),
}

/// A chunk of the disk that the guest has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Where on the disk it is, in bytes.
    pub disk: u64,
    /// Where in the file it is, in bytes.
    pub file: u64,
}

/// How large the file of a disk has to be so that every byte of the disk can be written: a little more than the disk. It
/// is made with that size and without any data.
pub fn file_size(disk: Bytes) -> Bytes {
    let chunks = disk.0.div_ceil(CHUNK as u64);
    // The kernel clears the next area before it needs it.
    let areas = chunks / ENTRIES + 2;
    Bytes((1 + chunks + areas) * CHUNK as u64).min(Limits::MOST_DISK)
}

/// What stands in the header; none in a file that no kernel has written to.
struct Header {
    valid: bool,
}

fn header(file: &File) -> Result<Option<Header>, CowError> {
    let mut bytes = [0; 16];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(CowError::Damaged("it is too short"));
        }
        other => other?,
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    match (number(0), number(8), number(12)) {
        (0, ..) => Ok(None),
        (MAGIC, VERSION, sectors) if sectors == CHUNK as u32 / SECTOR => {
            Ok(Some(Header { valid: number(VALID) != 0 }))
        }
        (MAGIC, ..) => Err(CowError::Damaged("it has another version or another size of chunks")),
        _ => Err(CowError::Damaged("it does not begin as it should")),
    }
}

/// Makes the kernel trust the file again, if it has ceased to: when a chunk could not be written because the host was full, the
/// kernel marks it so and writes nothing more. What is in it is as after a power cut at that moment, for which the
/// guest's filesystem has a journal. Says whether anything had to be done.
///
/// # Errors
/// [`CowError`]
pub fn revive(file: &File) -> Result<bool, CowError> {
    match header(file)? {
        Some(Header { valid: false }) => {
            file.write_all_at(&1u32.to_le_bytes(), VALID as u64)?;
            file.sync_all()?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Every chunk that the guest of a disk of that size has written, in the order of its first writes.
///
/// # Errors
/// [`CowError`]; after one, there is nothing more.
pub fn written(file: &File, disk: Bytes) -> Result<Entries<'_>, CowError> {
    let used = header(file)?.is_some();
    let chunks = file.metadata()?.len() / CHUNK as u64;
    let area = used.then_some(0);
    Ok(Entries { file, disk: disk.0.div_ceil(CHUNK as u64), chunks, area, entries: Vec::new() })
}

/// See [`written`].
#[derive(Debug)]
pub struct Entries<'a> {
    file: &'a File,
    /// Chunks of the disk.
    disk: u64,
    /// Chunks of the file.
    chunks: u64,
    /// The next area, unless the last has been read.
    area: Option<u64>,
    /// Of the current area, the last first.
    entries: Vec<(u64, u64)>,
}

impl Entries<'_> {
    /// Reads an area. Says whether there may be another one.
    fn read(&mut self, area: u64) -> Result<bool, CowError> {
        let at = 1 + area * (ENTRIES + 1);
        if at >= self.chunks {
            return Ok(false);
        }
        let mut bytes = [0; CHUNK];
        self.file.read_exact_at(&mut bytes, at * CHUNK as u64)?;
        for entry in bytes.chunks_exact(ENTRY) {
            let number = |at: usize| {
                let bytes = entry.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u64::from_le_bytes)
            };
            let (of_disk, of_file) = (number(0), number(8));
            if of_file == 0 {
                self.entries.reverse();
                return Ok(false);
            }
            if of_disk >= self.disk || of_file >= self.chunks || (of_file - 1) % (ENTRIES + 1) == 0 {
                return Err(CowError::Damaged("an entry points outside"));
            }
            self.entries.push((of_disk, of_file));
        }
        self.entries.reverse();
        Ok(true)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Written, CowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.entries.is_empty() {
            let area = self.area.take()?;
            match self.read(area) {
                Ok(more) => self.area = more.then_some(area + 1),
                Err(error) => return Some(Err(error)),
            }
        }
        let (disk, file) = self.entries.pop()?;
        Some(Ok(Written { disk: disk * CHUNK as u64, file: file * CHUNK as u64 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file as the kernel would have it after these chunks of a disk were written.
    fn made(disk: Bytes, written: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(file_size(disk).0).unwrap();
        let mut header = Vec::new();
        [MAGIC, 1, VERSION, 8].iter().for_each(|number| header.extend(number.to_le_bytes()));
        file.write_all_at(&header, 0).unwrap();
        for (number, chunk) in (0..).zip(written) {
            let (area, entry) = (number / ENTRIES, number % ENTRIES);
            let base = 1 + area * (ENTRIES + 1);
            let entries = [chunk.to_le_bytes(), (base + 1 + entry).to_le_bytes()].concat();
            file.write_all_at(&entries, base * CHUNK as u64 + entry * ENTRY as u64).unwrap();
        }
        file
    }

    fn read(file: &File, disk: Bytes) -> Result<Vec<Written>, CowError> {
        written(file, disk)?.collect()
    }

    #[test]
    fn areas_follow_each_other() {
        let disk = Bytes::mib(4);
        for count in [0, 1, 255, 256, 257, 512, 700, 1024] {
            let chunks: Vec<u64> = (0..count).rev().collect();
            let found = read(&made(disk, &chunks), disk).unwrap();
            let disks: Vec<u64> = found.iter().map(|written| written.disk / CHUNK as u64).collect();
            assert_eq!(disks, chunks);
            assert!(found.iter().all(|written| written.file > 4096 && written.file < file_size(disk).0));
        }
    }

    #[test]
    fn a_file_without_a_header_has_nothing() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(&file, Bytes::mib(1)).is_err(), "empty");
        file.set_len(file_size(Bytes::mib(1)).0).unwrap();
        assert_eq!(read(&file, Bytes::mib(1)).unwrap(), []);
        assert!(!revive(&file).unwrap());
        file.write_all_at(b"something", 0).unwrap();
        assert!(read(&file, Bytes::mib(1)).is_err());
    }

    #[test]
    fn what_the_kernel_gave_up_is_taken_up_again() {
        let file = made(Bytes::mib(1), &[7]);
        assert!(!revive(&file).unwrap());
        file.write_all_at(&[0; 4], VALID as u64).unwrap();
        assert!(revive(&file).unwrap());
        assert_eq!(read(&file, Bytes::mib(1)).unwrap(), [Written { disk: 7 * 4096, file: 2 * 4096 }]);
    }

    #[test]
    fn the_file_is_little_larger_than_the_disk() {
        for (disk, most) in [(Bytes(512), 4 * 4096), (Bytes::gib(20), (20 << 30) / 250 * 251)] {
            let size = file_size(disk);
            assert!(size > disk && size.0 <= most, "{size}");
            assert_eq!(size.0 % CHUNK as u64, 0);
        }
        assert_eq!(file_size(Limits::MOST_DISK), Limits::MOST_DISK);
    }

    proptest! {
        #[test]
        fn any_entries_end_and_stay_inside(entries: Vec<(u64, u64)>, places in prop::collection::vec(0u64..300, 0..40)) {
            let disk = Bytes::mib(1);
            let file = made(disk, &[]);
            for ((chunk, place), at) in entries.iter().zip(places) {
                let bytes = [chunk.to_le_bytes(), place.to_le_bytes()].concat();
                file.write_all_at(&bytes, CHUNK as u64 + at * ENTRY as u64).unwrap();
            }
            let mut count = 0;
            for found in written(&file, disk).unwrap() {
                if let Ok(Written { disk: at, file: place }) = found {
                    prop_assert!(at < disk.0 && place < file_size(disk).0);
                }
                count += 1;
                prop_assert!(count <= 600);
            }
        }
    }
}
