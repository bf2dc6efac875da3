//! Reads ext2, ext3 and ext4 filesystems: read-only, without a mount, and without trust.
//!
//! An image may have been shaped by a guest, so every number in it is checked, nothing in it can make the reader loop or
//! take unbounded memory, and the work of reading all of it is bounded by its size. Checksums are not looked at:
//! whoever can write the filesystem can write them too.
//!
//! [`Superblock`] tells about a filesystem from outside; [`Reader`] gives its nodes.

mod directory;
mod error;
mod map;
mod superblock;
mod xattr;

use crate::{Metadata, NodeKind, Timestamp};
pub use directory::Entry;
pub use error::ReadError;
use error::damaged;
pub use map::Extent;
use map::Mapping;
use std::{cell::Cell, fs::File, io, os::unix::fs::FileExt};
pub use superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use xattr::Attributes;

const ROOT: u32 = 2;
const EXTENTS: u32 = 0x8_0000;
const ENCRYPTED: u32 = 0x800;
const INLINE: u32 = 0x1000_0000;
/// The longest target of a symbolic link, as Linux gives it.
const MOST_TARGET: u64 = 4096;
/// The fields of the smallest inode.
const FIELDS: usize = 128;

/// What an image is read from.
pub trait ReadAt {
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` where the image ends early.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        match from.get(..buffer.len()) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

/// A filesystem that is read.
pub struct Reader<R> {
    image: R,
    superblock: Superblock,
    /// Blocks that may still be asked for: a few times as many as there are, so that a filesystem in which
    /// everything leads to the same place ends.
    budget: Cell<u64>,
}

/// A file, directory, or whatever else has a name.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its number; two names with the same one are hard links.
    pub inode: u32,
    /// What it is.
    pub kind: NodeKind,
    /// Owner, permissions, time and attributes.
    pub metadata: Metadata,
    /// Bytes of its content; those of a link's target.
    pub size: u64,
    /// How many names it says to have.
    pub links: u16,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    body: Body,
}

/// Where a node's content is.
#[derive(Debug, Clone)]
enum Body {
    Inline(Vec<u8>),
    Extents([u8; 60]),
    Map([u8; 60]),
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Small enough to stand in the inode.
    Inline(Vec<u8>),
    /// Elsewhere; what no extent has is a hole.
    Extents(Vec<Extent>),
}

impl<R: ReadAt> Reader<R> {
    /// Opens a filesystem that was unmounted.
    ///
    /// # Errors
    /// [`ReadError`]: it is none, is not clean, or has features that are not known.
    pub fn open(image: R) -> Result<Self, ReadError> {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        image.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)?;
        let superblock = Superblock::parse(&bytes)?;
        superblock.check_clean()?;
        superblock.check_mountable()?;
        let budget = Cell::new(superblock.blocks.saturating_mul(4).saturating_add(1 << 10));
        Ok(Self { image, superblock, budget })
    }

    /// What the superblock says.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`Self::node`]; it is not a directory.
    pub fn root(&self) -> Result<Node, ReadError> {
        match self.node(ROOT)? {
            root if root.kind == NodeKind::Directory => Ok(root),
            _ => damaged("its root is not a directory"),
        }
    }

    /// The node with this number, as [`Self::entries`] gave it.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for one that cannot be.
    pub fn node(&self, inode: u32) -> Result<Node, ReadError> {
        let raw = self.inode(inode)?;
        let mode = le16(&raw, 0);
        let kind = match mode & 0o170_000 {
            0o010_000 | 0o020_000 | 0o040_000 | 0o060_000 | 0o100_000 | 0o120_000 | 0o140_000 => {
                NodeKind::of_mode(mode)
            }
            _ => return damaged(format!("inode {inode} is in use and has no type")),
        };
        let flags = le32(&raw, 32);
        if flags & ENCRYPTED != 0 {
            return Err(ReadError::Unsupported(format!("has encrypted files (inode {inode})")));
        }
        let extra = match raw.len() > FIELDS {
            true => usize::from(le16(&raw, FIELDS)),
            false => 0,
        };
        if FIELDS + extra > raw.len() || extra % 4 != 0 {
            return damaged(format!("inode {inode} has impossible fields"));
        }
        let attributes = self.attributes(&raw, extra)?;
        let low = u64::from(le32(&raw, 4));
        let size = match kind {
            NodeKind::File | NodeKind::Directory => low | u64::from(le32(&raw, 108)) << 32,
            _ => low,
        };
        let mut map = [0; 60];
        map.copy_from_slice(&raw[40..100]);
        let body = if flags & INLINE != 0 {
            let mut data = map.to_vec();
            data.extend(attributes.inline.unwrap_or_default());
            Body::Inline(data)
        } else if flags & EXTENTS != 0 {
            Body::Extents(map)
        } else if kind == NodeKind::Symlink && size < 60 {
            Body::Inline(map.to_vec())
        } else {
            Body::Map(map)
        };
        Ok(Node {
            inode,
            kind,
            metadata: Metadata {
                mode: mode & 0o7777,
                uid: u32::from(le16(&raw, 2)) | u32::from(le16(&raw, 120)) << 16,
                gid: u32::from(le16(&raw, 24)) | u32::from(le16(&raw, 122)) << 16,
                mtime: time(le32(&raw, 16), if extra >= 12 { le32(&raw, 136) } else { 0 }),
                xattrs: attributes.found,
            },
            size,
            links: le16(&raw, 26),
            device: device(&map),
            body,
        })
    }

    /// The names in a directory, sorted by their bytes.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for one that is none.
    pub fn entries(&self, directory: &Node) -> Result<Vec<Entry>, ReadError> {
        let mut found = Vec::new();
        match &directory.body {
            Body::Inline(data) => {
                // The parent's number, entries in the rest of the inode, and entries in the attribute.
                let (inside, outside) = data.split_at(data.len().min(60));
                directory::read_block(inside.get(4..).unwrap_or_default(), &mut found)?;
                directory::read_block(outside, &mut found)?;
            }
            _ => {
                let Data::Extents(extents) = self.data(directory)? else { return Ok(found) };
                let block = u64::from(self.superblock.block_size);
                for extent in extents {
                    for at in 0..extent.length / block {
                        directory::read_block(&self.block(extent.place / block + at)?, &mut found)?;
                    }
                }
            }
        }
        found.sort_unstable();
        match found.windows(2).any(|pair| pair[0].name == pair[1].name) {
            true => damaged("a directory has a name twice"),
            false => Ok(found),
        }
    }

    /// Where a file's content is.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for a map that is none.
    pub fn data(&self, node: &Node) -> Result<Data, ReadError> {
        let mut mapping = Mapping::new(self, node.size);
        match &node.body {
            Body::Inline(data) => {
                let Some(data) = usize::try_from(node.size).ok().and_then(|size| data.get(..size)) else {
                    return damaged(format!("inode {} is longer than what it holds", node.inode));
                };
                return Ok(Data::Inline(data.to_vec()));
            }
            Body::Extents(root) => mapping.extents(root, None)?,
            Body::Map(map) => mapping.block_map(map)?,
        }
        Ok(Data::Extents(mapping.done()))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for one that is longer than a path can be, or holds a NUL.
    pub fn target(&self, link: &Node) -> Result<Vec<u8>, ReadError> {
        if link.size > MOST_TARGET || link.size == 0 {
            return damaged("a symbolic link has an impossible target");
        }
        let target = self.read_all(link)?;
        match target.contains(&0) {
            true => damaged("a symbolic link's target holds a NUL"),
            false => Ok(target),
        }
    }

    /// Reads bytes of the image, at a place that an [`Extent`] names.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, buffer: &mut [u8], place: u64) -> Result<(), ReadError> {
        Ok(self.image.read_exact_at(buffer, place)?)
    }

    /// All of a content that is known to be small.
    fn read_all(&self, node: &Node) -> Result<Vec<u8>, ReadError> {
        match self.data(node)? {
            Data::Inline(data) => Ok(data),
            Data::Extents(extents) => {
                let mut data = vec![0; node.size as usize];
                for Extent { offset, length, place } in extents {
                    self.read(&mut data[offset as usize..(offset + length) as usize], place)?;
                }
                Ok(data)
            }
        }
    }

    fn attributes(&self, raw: &[u8], extra: usize) -> Result<Attributes, ReadError> {
        let mut attributes = Attributes::default();
        attributes.inode(self, raw.get(FIELDS + extra..).unwrap_or_default())?;
        let block = u64::from(le32(raw, 104)) | u64::from(le16(raw, 118)) << 32;
        if block != 0 {
            attributes.block(self, &self.block(block)?)?;
        }
        Ok(attributes)
    }

    /// The value of an attribute that has an inode of its own (ea_inode).
    fn attribute_inode(&self, inode: u32, size: u32) -> Result<Vec<u8>, ReadError> {
        let raw = self.inode(inode)?;
        let mut map = [0; 60];
        map.copy_from_slice(&raw[40..100]);
        if u64::from(le32(&raw, 4)) != u64::from(size) || le32(&raw, 32) & EXTENTS == 0 {
            return damaged("an extended attribute's inode is not one");
        }
        let mut mapping = Mapping::new(self, size.into());
        mapping.extents(&map, None)?;
        let mut value = vec![0; size as usize];
        for Extent { offset, length, place } in mapping.done() {
            self.read(&mut value[offset as usize..(offset + length) as usize], place)?;
        }
        Ok(value)
    }

    /// The bytes of an inode.
    fn inode(&self, number: u32) -> Result<Vec<u8>, ReadError> {
        let superblock = &self.superblock;
        if number == 0 || number > superblock.inodes {
            return damaged(format!("there is no inode {number}"));
        }
        let index = u64::from(number - 1);
        let group = index / u64::from(superblock.inodes_per_group);
        if group >= superblock.groups() {
            return damaged(format!("inode {number} has no group"));
        }
        let mut descriptor = [0; 64];
        let length = usize::from(superblock.descriptor_size).min(64);
        self.read(&mut descriptor[..length], superblock.descriptor_offset(group))?;
        let table = u64::from(le32(&descriptor, 8)) | u64::from(le32(&descriptor, 40)) << 32;
        if table == 0 || table >= superblock.blocks {
            return damaged(format!("group {group} has no inodes"));
        }
        let size = u64::from(superblock.inode_size);
        let at =
            table * u64::from(superblock.block_size) + index % u64::from(superblock.inodes_per_group) * size;
        let mut raw = vec![0; size as usize];
        self.read(&mut raw, at)?;
        Ok(raw)
    }

    fn block(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        if number == 0 || number >= self.superblock.blocks {
            return damaged("a block lies outside of the filesystem");
        }
        let mut block = vec![0; self.superblock.block_size as usize];
        self.read(&mut block, number * u64::from(self.superblock.block_size))?;
        Ok(block)
    }

    /// Counts blocks that are asked for.
    fn spend(&self, blocks: u64) -> Result<(), ReadError> {
        match self.budget.get().checked_sub(blocks) {
            Some(rest) => {
                self.budget.set(rest);
                Ok(())
            }
            None => damaged("its files have more blocks than there are"),
        }
    }
}

/// A time: 32 bits of seconds, and two more beside the nanoseconds.
fn time(seconds: u32, extra: u32) -> Timestamp {
    let seconds = i64::from(seconds as i32) + (i64::from(extra & 3) << 32);
    Timestamp { seconds, nanoseconds: (extra >> 2).min(999_999_999) }
}

/// A device's number: 8 + 8 bits, or 12 + 20 (linux/kdev_t.h).
fn device(map: &[u8; 60]) -> (u32, u32) {
    match (le32(map, 0), le32(map, 4)) {
        (0, new) => (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00),
        (old, _) => (old >> 8 & 0xff, old & 0xff),
    }
}

/// A 16-bit field at a place that is known to be there.
fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// See [`le16`].
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
