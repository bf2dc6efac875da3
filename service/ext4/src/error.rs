//! What can go wrong while an image is written.

use std::io;

/// Writing the image failed, or something was asked that ext4 cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// The output could not be written.
    #[error("cannot write the image: {0}")]
    Io(#[from] io::Error),
    /// A volume label is too long.
    #[error("a volume label has at most 16 bytes, not {length}")]
    Label {
        /// Bytes that were given.
        length: usize,
    },
    /// A file name is empty, too long, "." or "..", or holds a slash or NUL.
    #[error("{name:?} cannot be a file name in ext4: {why}")]
    Name {
        /// The name, shortened, with unprintable bytes replaced.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The directory has an entry of that name already.
    #[error("{name:?} is in its directory already")]
    Exists {
        /// The name.
        name: String,
    },
    /// The directory has no entry of that name.
    #[error("{name:?} is not in its directory")]
    Missing {
        /// The name.
        name: String,
    },
    /// The parent of a new entry is not a directory.
    #[error("cannot add {name:?}: its parent is not a directory")]
    NotADirectory {
        /// The name of the new entry.
        name: String,
    },
    /// A hard link to a directory was asked for.
    #[error("cannot add {name:?}: a directory cannot have a second name")]
    LinkToDirectory {
        /// The name of the new entry.
        name: String,
    },
    /// A node has too many names.
    #[error("cannot add {name:?}: a file has at most {limit} names in ext4")]
    TooManyLinks {
        /// The name of the new entry.
        name: String,
        /// The most that a file can have.
        limit: u32,
    },
    /// The target of a symbolic link is empty, too long or holds NUL.
    #[error("{name:?} cannot be such a symbolic link: {why}")]
    SymlinkTarget {
        /// The link's name.
        name: String,
        /// The rule that the target breaks.
        why: &'static str,
    },
    /// A device number does not fit Linux's 12 + 20 bits.
    #[error("{name:?} has device number {major}:{minor}; the largest is 4095:1048575")]
    DeviceNumber {
        /// The device's name.
        name: String,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An extended attribute cannot be stored.
    #[error("extended attribute {name:?} cannot be stored: {why}")]
    Xattr {
        /// The attribute's name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The extended attributes of one node do not fit its inode and one block.
    #[error("extended attributes of {size} bytes do not fit one node: there is room for about {limit}")]
    XattrSpace {
        /// Bytes that they take.
        size: usize,
        /// Bytes that there are.
        limit: usize,
    },
    /// A file is larger than 16 TiB.
    #[error("a file in ext4 has less than {limit} bytes")]
    FileTooLarge {
        /// The first size that is too large.
        limit: u64,
    },
    /// A directory has more entries than its index can hold.
    #[error("a directory of {entries} entries is too large for ext4's index")]
    DirectoryTooLarge {
        /// Its entries.
        entries: usize,
    },
    /// More nodes, names or attributes than 32-bit numbers can count.
    #[error("too many {what} for one image")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
    },
    /// The content does not fit the size that was asked for.
    #[error("the content needs a filesystem of {needed} bytes, and {size} were asked for")]
    NoSpace {
        /// Bytes that were asked for.
        size: u64,
        /// Bytes that would do.
        needed: u64,
    },
    /// The filesystem would be larger than the format or its descriptor reservation allows.
    #[error(
        "the filesystem would have {size} bytes, and {limit} are the most with the reservation made at the start"
    )]
    TooLarge {
        /// Bytes that would be needed.
        size: u64,
        /// Bytes that are possible.
        limit: u64,
    },
    /// The filesystem would be too small for a journal.
    #[error("a filesystem of {size} bytes is too small: the least is {least}")]
    TooSmall {
        /// Bytes that were asked for.
        size: u64,
        /// The least that is possible.
        least: u64,
    },
}

/// A name for an error message: its first 64 characters, whatever its encoding.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(64).collect()
}

impl From<Ext4Error> for io::Error {
    fn from(error: Ext4Error) -> Self {
        match error {
            Ext4Error::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}
