//! What a caller says about the filesystem and about each node in it.

use crate::Ext4Error;

/// A point in time as seconds since 1970-01-01 UTC plus nanoseconds.
///
/// ext4 with 256-byte inodes holds 1901-12-13 to 2446-05-10 with nanoseconds; e2fsck takes times from
/// 2310-04-04 on for damaged ones. So what is outside [`Timestamp::MIN`] to [`Timestamp::MAX`] is moved
/// to the nearer end when it is written, as the kernel does with times that a filesystem cannot hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999; more counts as 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The earliest time that can be written: 1901-12-13 20:45:52.
    pub const MIN: Self = Self { seconds: -(1 << 31), nanoseconds: 0 };
    /// The latest time that can be written: 2310-04-03 23:59:59.999999999 or so.
    pub const MAX: Self = Self { seconds: (3 << 32) - (1 << 31) - 1, nanoseconds: 999_999_999 };

    /// This time, moved into `MIN..=MAX`.
    #[must_use]
    pub fn clamped(self) -> Self {
        let whole = Self { nanoseconds: self.nanoseconds.min(999_999_999), ..self };
        whole.clamp(Self::MIN, Self::MAX)
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The full name with its namespace, such as `security.capability`: `user.`, `trusted.`, `security.`,
    /// `system.posix_acl_access` or `system.posix_acl_default`.
    pub name: Vec<u8>,
    /// The value as getxattr(2) returns it. ACLs are in the kernel's form (version 2) too.
    pub value: Vec<u8>,
}

/// Owner, permissions, time and attributes of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits (0o7777); others are ignored.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content; also written as access and change time.
    pub mtime: Timestamp,
    /// Extended attributes, in any order, each name once.
    pub xattrs: Vec<Xattr>,
}

impl Default for Metadata {
    /// 0755, root, 1970.
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Vec::new() }
    }
}

/// What is settled before the first byte is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The filesystem's UUID; the seed of its directory hash derives from it. All zeros, which e2fsck
    /// takes for a missing UUID, stands for a fixed one.
    pub uuid: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: Vec<u8>,
    /// How many bytes the filesystem will probably have. It fixes the space that is kept for group
    /// descriptors, so that the filesystem can be grown while mounted to 1024 times this size (16 TiB at
    /// most); `finish` cannot go beyond that either. A smaller value than 128 MiB counts as that.
    pub expected: u64,
    /// Creation time in the superblock, and the time of nodes that nobody added (journal, lost+found).
    /// It must not be in the future, which e2fsck would object to.
    pub epoch: Timestamp,
}

/// How large the filesystem becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// This many bytes, rounded down to whole 4 KiB blocks (and, where the last block group could not even
    /// hold its copy of the descriptors, to the end of the group before it).
    Exactly(u64),
    /// This many bytes or, when the content needs more, just enough.
    AtLeast(u64),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the filesystem, and the length of the image.
    pub size: u64,
    /// Bytes that the data of files takes, in whole blocks; holes do not count.
    pub content: u64,
    /// Blocks of 4 KiB in use, metadata and journal included.
    pub blocks_used: u64,
    /// Inodes in use, the reserved ones included.
    pub inodes_used: u64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl NodeKind {
    /// The type bits of `i_mode` (inode(7)).
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::File => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The kind that the type bits of an `i_mode` made by us stand for.
    pub(crate) fn of_mode(mode: u16) -> Self {
        match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => Self::File,
        }
    }

    /// The `file_type` of a directory entry (`EXT4_FT_*`).
    pub(crate) fn entry_type(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}

impl Options {
    /// The UUID to write: never null.
    pub(crate) fn effective_uuid(&self) -> [u8; 16] {
        if self.uuid == [0; 16] { *b"banger-ext4\0\0\0\0\x01" } else { self.uuid }
    }

    /// Refuses what the superblock cannot hold.
    pub(crate) fn validate(&self) -> Result<(), Ext4Error> {
        if self.label.len() > 16 {
            return Err(Ext4Error::Label { length: self.label.len() });
        }
        Ok(())
    }
}
