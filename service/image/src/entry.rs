//! What a layer says: one entry after the other.

use crate::ImageError;
use banger_ext4::Metadata;

/// One entry of a layer's archive, as it stands there: no name has been checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path, in raw bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, permissions, time, attributes.
    pub metadata: Metadata,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// One more name of the file at this path.
    HardLink(Vec<u8>),
    Leaf(Leaf),
}

/// What has a content of its own and nothing below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A regular file; its bytes are the entry's body.
    File,
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// The entries of one layer. The body of an entry can be copied until the next entry is asked for; whoever does not
/// want it just goes on.
pub(crate) trait Entries {
    /// The next entry.
    fn next(&mut self) -> Result<Option<Entry>, ImageError>;
    /// Copies the body of the entry that `next` gave last.
    fn copy_body(&mut self, into: &mut dyn BodySink) -> Result<(), ImageError>;
}

/// Takes the content of a file in order.
pub(crate) trait BodySink {
    /// Bytes.
    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError>;
    /// So many zeros, which take no space.
    fn hole(&mut self, length: u64) -> Result<(), ImageError>;
}
