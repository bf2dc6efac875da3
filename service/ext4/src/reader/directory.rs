//! The names in a directory, read block by block: its index is there for finding, not for listing.

use super::{ReadError, damaged, le16, le32};

/// Names that one directory may have.
const MOST: usize = 4_000_000;
/// Bytes of an entry before its name.
const ENTRY: usize = 8;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// 1 to 255 bytes without slash and NUL, and not "." or "..".
    pub name: Box<[u8]>,
    /// What it names.
    pub inode: u32,
}

/// Adds the names of one block.
pub(super) fn read_block(block: &[u8], found: &mut Vec<Entry>) -> Result<(), ReadError> {
    let mut rest = block;
    while rest.len() >= ENTRY {
        let (inode, name) = (le32(rest, 0), usize::from(rest[6]));
        let length = match le16(rest, 4) {
            // A block of 64 KiB has one entry that 16 bits cannot tell.
            0 | u16::MAX if block.len() == 1 << 16 => rest.len(),
            length => length.into(),
        };
        if length < ENTRY + name || length > rest.len() || length % 4 != 0 {
            return damaged("an entry of a directory is cut off");
        }
        let name = &rest[ENTRY..ENTRY + name];
        rest = &rest[length..];
        if inode == 0 || name == b"." || name == b".." {
            continue;
        }
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return damaged("a directory has an impossible name");
        }
        if found.len() == MOST {
            return Err(ReadError::Unsupported(format!("has a directory of more than {MOST} names")));
        }
        found.push(Entry { name: name.into(), inode });
    }
    Ok(())
}
