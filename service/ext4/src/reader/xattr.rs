//! Extended attributes, from behind the inode and from its block.

use super::{ReadAt, ReadError, Reader, damaged, le16, le32};
use crate::{Xattr, acl};

const MAGIC: u32 = 0xea02_0000;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;
/// Bytes before the entries in a block.
const BLOCK_HEADER: usize = 32;
/// The largest value that Linux gives or takes (`XATTR_SIZE_MAX`).
const MOST_VALUE: u32 = 65_536;

/// What there is of an inode.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// As getxattr(2) would give them.
    pub found: Vec<Xattr>,
    /// The second part of a file that stands in its inode (`system.data`).
    pub inline: Option<Vec<u8>>,
}

impl Attributes {
    /// Adds those that stand behind the inode's fields.
    pub fn inode<R: ReadAt>(&mut self, reader: &Reader<R>, space: &[u8]) -> Result<(), ReadError> {
        match space.len() >= 8 && le32(space, 0) == MAGIC {
            true => self.entries(reader, &space[4..], &space[4..]),
            false => Ok(()),
        }
    }

    /// Adds those of a block of their own.
    pub fn block<R: ReadAt>(&mut self, reader: &Reader<R>, block: &[u8]) -> Result<(), ReadError> {
        match le32(block, 0) == MAGIC {
            true => self.entries(reader, &block[BLOCK_HEADER..], block),
            false => damaged("a block of extended attributes is not one"),
        }
    }

    /// Reads entries; their values are at offsets into `values`.
    fn entries<R: ReadAt>(
        &mut self,
        reader: &Reader<R>,
        mut entries: &[u8],
        values: &[u8],
    ) -> Result<(), ReadError> {
        // Four zero bytes end the list, unless it fills its place.
        while entries.len() >= ENTRY && le32(entries, 0) != 0 {
            let (length, namespace) = (usize::from(entries[0]), entries[1]);
            let (offset, owner, size) = (usize::from(le16(entries, 2)), le32(entries, 4), le32(entries, 8));
            let next = ENTRY + length.next_multiple_of(4);
            let name = entries.get(ENTRY..ENTRY + length);
            let Some(name) = name else { return damaged("an extended attribute's name is cut off") };
            let value = match (owner, size) {
                (_, 0) => Vec::new(),
                (_, MOST_VALUE..) => return damaged("an extended attribute is too long"),
                (0, size) => match values.get(offset..offset + size as usize) {
                    Some(value) => value.to_vec(),
                    None => return damaged("an extended attribute's value is cut off"),
                },
                (inode, size) => reader.attribute_inode(inode, size)?,
            };
            self.add(namespace, name, value)?;
            entries = entries.get(next..).unwrap_or_default();
        }
        Ok(())
    }

    fn add(&mut self, namespace: u8, name: &[u8], value: Vec<u8>) -> Result<(), ReadError> {
        let (prefix, value) = match (namespace, name) {
            (1, _) => (&b"user."[..], value),
            (2, b"") => (&b"system.posix_acl_access"[..], access_list(&value)?),
            (3, b"") => (&b"system.posix_acl_default"[..], access_list(&value)?),
            (4, _) => (&b"trusted."[..], value),
            (6, _) => (&b"security."[..], value),
            (7, b"data") => {
                self.inline = Some(value);
                return Ok(());
            }
            // Others mean nothing to a current kernel.
            _ => return Ok(()),
        };
        let name = [prefix, name].concat();
        // The kernel looks into the inode first.
        if !self.found.iter().any(|xattr| xattr.name == name) {
            self.found.push(Xattr { name, value });
        }
        Ok(())
    }
}

fn access_list(disk: &[u8]) -> Result<Vec<u8>, ReadError> {
    acl::from_disk(disk).map_or_else(damaged, Ok)
}
