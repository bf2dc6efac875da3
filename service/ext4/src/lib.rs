//! Writes ext4 filesystem images: deterministic, no root, no mount. [`reader`] reads them, and those of others.
//!
//! [`Writer`] takes a tree node by node and writes it to anything that can [`std::io::Write`] and
//! [`std::io::Seek`]: an empty file, or memory. Each byte of a file goes to its final place at once;
//! directories, inodes and the rest follow in [`Writer::finish`], which also settles the size. The same
//! calls give the same bytes: no clock and no random number is read.
//!
//! The filesystem is what mke2fs makes by default with 4 KiB blocks and 256-byte inodes: journal, extents,
//! 64bit, flex_bg, metadata_csum, indexed directories, and group descriptors reserved for growth while
//! mounted. Format: <https://docs.kernel.org/filesystems/ext4/>.
//!
//! From the inside out: `le`, `crc32c`, `dirhash`; one file per structure (`inode`, `extent`, `directory`,
//! `htree`, `xattr`, `acl`, `group`, `superblock`, `journal`, `resize`); `layout` and `plan` decide where
//! things go; `tree` keeps what there is; `content` takes data; `finish`, `tables` and `groups` write the
//! rest.

mod acl;
mod bitmap;
mod content;
mod crc32c;
mod directory;
mod dirhash;
mod error;
mod extent;
mod finish;
mod group;
mod groups;
mod htree;
mod inode;
mod journal;
mod layout;
mod le;
mod options;
mod plan;
pub mod reader;
mod resize;
mod stream;
mod superblock;
mod tables;
mod tree;
mod writer;
mod xattr;

pub use content::{Content, ContentWriter};
pub use error::Ext4Error;
pub use options::{Metadata, NodeKind, Options, Size, Summary, Timestamp, Xattr};
pub use writer::{NodeId, Writer};
