//! The writer's interface.

use crate::content::{Content, ContentWriter, Scratch, append};
use crate::error::shown;
use crate::extent::Run;
use crate::layout::{BLOCK, BLOCK_BYTES, Reservation, Space};
use crate::stream::Stream;
use crate::tree::{Body, ROOT_NODE, Tree};
use crate::{Ext4Error, Metadata, NodeKind, Options, Size, Summary, finish};
use std::io::{Seek, Write};

/// The longest target of a symbolic link: a block, with the NUL that the kernel wants after it.
const MOST_TARGET: usize = BLOCK - 1;
/// The longest target that stands in the inode, NUL included.
const SHORT_TARGET: usize = 60;

/// A node of the image: only good for the [`Writer`] that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

/// Writes one image.
///
/// Names are 1 to 255 bytes, without slash and NUL, and not "." or ".."; each is once in its directory. A
/// call that fails with anything but [`Ext4Error::Io`] changes nothing.
pub struct Writer<W: Write + Seek> {
    pub(crate) stream: Stream<W>,
    pub(crate) options: Options,
    pub(crate) reservation: Reservation,
    pub(crate) space: Space,
    pub(crate) tree: Tree,
    pub(crate) scratch: Scratch,
    /// Blocks of the data of files.
    pub(crate) content_blocks: u64,
}

impl<W: Write + Seek> Writer<W> {
    /// Starts an image at the beginning of `out`, which must be empty: what is skipped must read as zeros.
    ///
    /// # Errors
    /// The label is too long, or `out` cannot seek.
    pub fn new(out: W, options: Options) -> Result<Self, Ext4Error> {
        options.validate()?;
        let reservation = Reservation::new(options.expected);
        let mut tree = Tree::new();
        tree.set_metadata(ROOT_NODE, &Metadata { mtime: options.epoch, ..Metadata::default() })?;
        Ok(Self {
            stream: Stream::new(out)?,
            options,
            reservation,
            space: Space::new(reservation),
            tree,
            scratch: Scratch::default(),
            content_blocks: 0,
        })
    }

    /// The root directory: 0755, owned by root, until [`Self::set_metadata`] says otherwise.
    pub fn root(&self) -> NodeId {
        NodeId(ROOT_NODE)
    }

    /// Starts the data of a file. It goes to its place in the image while it is written.
    pub fn content(&mut self) -> ContentWriter<'_, W> {
        ContentWriter::new(self)
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// The name is not possible or taken, the parent is not a directory, or the attributes do not fit.
    pub fn add_file(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        content: Content,
    ) -> Result<NodeId, Ext4Error> {
        let kept = self.tree.runs.len();
        let body = self.tree.put_runs(content.runs.as_slice())?;
        let added = self.add(parent, name, &metadata, NodeKind::File, content.size, body);
        match added {
            Ok(_) => self.content_blocks += content.allocated() / BLOCK_BYTES,
            Err(_) => self.tree.runs.truncate(kept),
        }
        added
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_dir(&mut self, parent: NodeId, name: &[u8], metadata: Metadata) -> Result<NodeId, Ext4Error> {
        let body = Body::Children { parent: parent.0 };
        self.add(parent, name, &metadata, NodeKind::Directory, 0, body)
    }

    /// Adds a symbolic link to `target`, 1 to 4095 bytes without NUL, kept as it is.
    ///
    /// # Errors
    /// As [`Self::add_file`]; the target is not possible.
    pub fn add_symlink(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        target: &[u8],
    ) -> Result<NodeId, Ext4Error> {
        let refuse = |why| Err(Ext4Error::SymlinkTarget { name: shown(name), why });
        match target {
            [] => return refuse("its target is empty"),
            _ if target.len() > MOST_TARGET => return refuse("its target has more than 4095 bytes"),
            _ if target.contains(&0) => return refuse("its target holds a NUL"),
            _ => {}
        }
        let size = target.len() as u64;
        if target.len() < SHORT_TARGET {
            let body = self.tree.put_text(target)?;
            return self.add(parent, name, &metadata, NodeKind::Symlink, size, body);
        }
        let before = self.space.next();
        let mut block = [0; BLOCK];
        block[..target.len()].copy_from_slice(target);
        let mut runs = Vec::with_capacity(1);
        append(&mut self.space, &mut self.stream, &mut runs, 0, &block)?;
        let body = self.tree.put_runs(&runs)?;
        let added = self.add(parent, name, &metadata, NodeKind::Symlink, size, body);
        if added.is_err() {
            self.space.rewind(before);
        }
        added
    }

    /// Adds a character device; `major` up to 4095, `minor` up to 1048575.
    ///
    /// # Errors
    /// As [`Self::add_file`]; the number is larger.
    pub fn add_char_device(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        major: u32,
        minor: u32,
    ) -> Result<NodeId, Ext4Error> {
        self.add_device(parent, name, metadata, NodeKind::CharDevice, (major, minor))
    }

    /// Adds a block device; `major` up to 4095, `minor` up to 1048575.
    ///
    /// # Errors
    /// As [`Self::add_file`]; the number is larger.
    pub fn add_block_device(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        major: u32,
        minor: u32,
    ) -> Result<NodeId, Ext4Error> {
        self.add_device(parent, name, metadata, NodeKind::BlockDevice, (major, minor))
    }

    /// Adds a FIFO.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_fifo(&mut self, parent: NodeId, name: &[u8], metadata: Metadata) -> Result<NodeId, Ext4Error> {
        self.add(parent, name, &metadata, NodeKind::Fifo, 0, Body::Empty)
    }

    /// Adds a socket.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_socket(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<NodeId, Ext4Error> {
        self.add(parent, name, &metadata, NodeKind::Socket, 0, Body::Empty)
    }

    /// Gives a node that is not a directory one more name, of 65,000 at most.
    ///
    /// # Errors
    /// The name is not possible or taken, or the node is a directory or has too many names.
    pub fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), Ext4Error> {
        self.tree.link(parent.0, name, node.0)
    }

    /// Takes a name away from a node that is not a directory; without any name left, the node goes. The blocks of its
    /// data are free in the image then, but not written again.
    ///
    /// # Errors
    /// There is no such name, or it is a directory's.
    pub fn unlink(&mut self, parent: NodeId, name: &[u8]) -> Result<(), Ext4Error> {
        if let Some(gone) = self.tree.unlink(parent.0, name)?
            && gone.kind() == NodeKind::File
        {
            let mut single = [Run { logical: 0, start: 0, count: 0 }];
            let runs = self.tree.runs_of(&gone, &mut single);
            self.content_blocks -= runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        }
        Ok(())
    }

    /// Replaces a node's metadata; its kind stays.
    ///
    /// # Errors
    /// The attributes do not fit.
    pub fn set_metadata(&mut self, node: NodeId, metadata: Metadata) -> Result<(), Ext4Error> {
        self.tree.set_metadata(node.0, &metadata)
    }

    /// The node of that name in a directory.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.tree.lookup(parent.0, name).map(NodeId)
    }

    /// What a node is.
    pub fn kind(&self, node: NodeId) -> NodeKind {
        self.tree.nodes[node.0 as usize].kind()
    }

    /// Forgets data that turned out not to be wanted. Its blocks are free in the image, and taken again
    /// for the next data when nothing was written since.
    pub fn discard(&mut self, content: Content) {
        let Content { runs, .. } = content;
        if let ([first, ..], [.., last]) = (runs.as_slice(), runs.as_slice())
            && u64::from(last.start) + u64::from(last.count) == self.space.next()
        {
            self.space.rewind(first.start.into());
        }
    }

    /// Bytes that the data of the files added so far takes, in whole blocks; holes do not count.
    pub fn content_bytes(&self) -> u64 {
        self.content_blocks * BLOCK_BYTES
    }

    /// Writes everything that is not data and ends the image.
    ///
    /// # Errors
    /// The content does not fit the size, the size is not possible, a directory is too large, or the
    /// output fails.
    pub fn finish(self, size: Size) -> Result<Summary, Ext4Error> {
        finish::finish(self, size)
    }

    fn add_device(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        kind: NodeKind,
        (major, minor): (u32, u32),
    ) -> Result<NodeId, Ext4Error> {
        if major > 0xfff || minor > 0xf_ffff {
            return Err(Ext4Error::DeviceNumber { name: shown(name), major, minor });
        }
        self.add(parent, name, &metadata, kind, 0, Body::Device { major, minor })
    }

    fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: &Metadata,
        kind: NodeKind,
        size: u64,
        body: Body,
    ) -> Result<NodeId, Ext4Error> {
        self.tree.add(parent.0, name, kind, metadata, size, body).map(NodeId)
    }
}
