//! The filesystem of a bundle as it goes to disk: blocks of zeros stay holes.

use super::{failed, over, refused};
use crate::{ImageError, Limits, rootfs::LARGEST};
use banger_model::Bytes;
use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What is looked at for zeros: ext4's usual block.
const PAGE: usize = 4096;
/// How much is read at a time.
const PIECE: usize = 64 * PAGE;
/// Where the superblock is and how long it is (ext4's on-disk format, "Super Block").
const SUPERBLOCK: usize = 1024;

/// A file that is being filled in order.
pub(super) struct SparseFile {
    file: File,
    path: PathBuf,
    size: u64,
    /// Bytes that were written, and how many may be.
    data: u64,
    most: u64,
}

impl SparseFile {
    /// Makes the file, which must not be there. `packed` is how long what it comes from is.
    pub(super) fn create(
        path: &Path,
        size: Bytes,
        limits: &Limits,
        packed: Bytes,
    ) -> Result<Self, ImageError> {
        let largest = LARGEST.0.min(limits.unpacked.0);
        if size.0 > largest {
            return Err(over("the size of the filesystem", size.0, largest));
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(|e| ImageError::io("create", path, e))?;
        // Zeros cost nothing, so only data counts against the ratio.
        let most = packed.0.saturating_mul(limits.ratio).max(limits.ratio_from.0);
        Ok(Self { file, path: path.to_owned(), size: size.0, data: 0, most })
    }

    /// Copies all of it, and checks that it is an ext4 filesystem of that size.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> Result<(), ImageError> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.size {
            let length = (self.size - at).min(PIECE as u64) as usize;
            let piece = &mut piece[..length];
            from.read_exact(piece).map_err(failed)?;
            if at == 0 {
                superblock(piece, self.size)?;
            }
            self.write(piece, at)?;
            at += length as u64;
        }
        match self.size {
            0 => Err(refused("its filesystem is empty")),
            _ => Ok(()),
        }
    }

    /// Writes the runs of pages that are not all zeros.
    fn write(&mut self, piece: &[u8], at: u64) -> Result<(), ImageError> {
        let zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
        let mut from = 0;
        while from < piece.len() {
            let page = &piece[from..(from + PAGE).min(piece.len())];
            if zero(page) {
                from += page.len();
                continue;
            }
            let run: usize = piece[from..].chunks(PAGE).take_while(|page| !zero(page)).map(<[u8]>::len).sum();
            self.data += run as u64;
            if self.data > self.most {
                return Err(over("the data of the bundle's filesystem", self.data, self.most));
            }
            let written = self.file.write_all_at(&piece[from..from + run], at + from as u64);
            written.map_err(|e| ImageError::io("write", &self.path, e))?;
            from += run;
        }
        Ok(())
    }

    /// Has it all on disk; tells how much of it is data.
    pub(super) fn finish(self) -> Result<Bytes, ImageError> {
        self.file.set_len(self.size).map_err(|e| ImageError::io("resize", &self.path, e))?;
        self.file.sync_all().map_err(|e| ImageError::io("write", &self.path, e))?;
        Ok(Bytes(self.data))
    }
}

/// Checks what can be seen of a filesystem from outside: that it is ext4 and fits its file.
fn superblock(start: &[u8], size: u64) -> Result<(), ImageError> {
    let no = || refused("its rootfs.ext4 is no ext4 filesystem");
    let block = start.get(SUPERBLOCK..2 * SUPERBLOCK).ok_or_else(no)?;
    let u32_at = |at: usize| {
        let bytes = block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let magic = block[56..58] == [0x53, 0xef];
    // Extents (0x40) are what makes it ext4; 64bit (0x80) gives the block count its upper half.
    let incompatible = u32_at(96);
    let log_block = u32_at(24);
    if !magic || incompatible & 0x40 == 0 || log_block > 6 {
        return Err(no());
    }
    let high = if incompatible & 0x80 != 0 { u64::from(u32_at(336)) } else { 0 };
    let blocks = high << 32 | u64::from(u32_at(4));
    match blocks.checked_mul(1024 << log_block) {
        Some(length) if length > 0 && length <= size => Ok(()),
        _ => Err(refused("its filesystem is larger than its file")),
    }
}
