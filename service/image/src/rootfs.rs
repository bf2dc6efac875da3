//! The ext4 image as the place where merged entries go.

use crate::{
    ImageError, Unsupported,
    entry::{self, BodySink, Leaf},
    error::shorten,
    merge::Sink,
};
use banger_ext4::{ContentWriter, Ext4Error, Metadata, NodeId, NodeKind, Writer};
use banger_model::Bytes;
use std::{
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The largest filesystem of 4 KiB blocks: 16 TiB.
pub(crate) const LARGEST: Bytes = Bytes::gib(16 << 10);

/// How many names have been put into a filesystem, to be read while it is written. One that is taken away again by its
/// own layer stays counted, so it never goes back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries(Arc<AtomicU64>);

impl Entries {
    pub(crate) fn written(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A filesystem that is being written.
pub(crate) struct Rootfs<W: Write + Seek> {
    pub writer: Writer<W>,
    path: PathBuf,
    entries: Entries,
}

impl<W: Write + Seek> Rootfs<W> {
    /// Fills `writer`, whose output is the file `path`, and counts what it puts in.
    pub(crate) fn new(writer: Writer<W>, path: &Path, entries: Entries) -> Self {
        Self { writer, path: path.to_owned(), entries }
    }
}

/// What an error of the writer means for the image.
pub(crate) fn failed(error: Ext4Error, path: &Path, name: String) -> ImageError {
    match error {
        Ext4Error::Io(error) => ImageError::io("write", path, error),
        Ext4Error::NoSpace { size, needed } | Ext4Error::TooSmall { size, least: needed } => {
            ImageError::InvalidSize { size: Bytes(size), least: Bytes(needed), most: LARGEST }
        }
        Ext4Error::TooLarge { size, limit } => {
            ImageError::InvalidSize { size: Bytes(size), least: Bytes(0), most: Bytes(limit) }
        }
        other => Unsupported::Entry { name, why: other.to_string() }.into(),
    }
}

/// The namespaces of extended attributes that ext4 has (xattr(7)). Others, which a layer may have from another
/// system, mean nothing to Linux and are left out.
fn known_attributes(mut metadata: Metadata) -> Metadata {
    metadata.xattrs.retain(|x| {
        let known =
            [b"user." as &[u8], b"trusted.", b"security."].iter().any(|space| x.name.starts_with(space));
        known || matches!(x.name.as_slice(), b"system.posix_acl_access" | b"system.posix_acl_default")
    });
    metadata
}

/// Hands a body to the writer.
struct Body<'a, 'w, W: Write + Seek> {
    content: &'a mut ContentWriter<'w, W>,
    path: &'a Path,
    name: &'a [u8],
}

impl<W: Write + Seek> BodySink for Body<'_, '_, W> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.content.write_all(bytes).map_err(|error| match error.downcast::<Ext4Error>() {
            Ok(error) => failed(error, self.path, shorten(self.name)),
            Err(error) => ImageError::io("write", self.path, error),
        })
    }

    fn hole(&mut self, length: u64) -> Result<(), ImageError> {
        self.content.hole(length).map_err(|error| failed(error, self.path, shorten(self.name)))
    }
}

impl<W: Write + Seek> Sink for Rootfs<W> {
    type Node = NodeId;

    fn root(&self) -> NodeId {
        self.writer.root()
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.writer.lookup(directory, name)
    }

    fn is_directory(&self, node: NodeId) -> bool {
        self.writer.kind(node) == NodeKind::Directory
    }

    fn add_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<NodeId, ImageError> {
        self.entries.one_more();
        self.writer
            .add_dir(parent, name, known_attributes(metadata))
            .map_err(|e| failed(e, &self.path, shorten(name)))
    }

    fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
        leaf: &Leaf,
        entries: &mut dyn entry::Entries,
    ) -> Result<NodeId, ImageError> {
        self.entries.one_more();
        let metadata = known_attributes(metadata);
        let writer = &mut self.writer;
        match leaf {
            Leaf::File => {
                let mut content = writer.content();
                entries.copy_body(&mut Body { content: &mut content, path: &self.path, name })?;
                let content = match content.finish() {
                    Ok(content) => content,
                    Err(error) => return Err(failed(error, &self.path, shorten(name))),
                };
                writer.add_file(parent, name, metadata, content)
            }
            Leaf::Symlink(target) => writer.add_symlink(parent, name, metadata, target),
            Leaf::CharDevice(major, minor) => writer.add_char_device(parent, name, metadata, *major, *minor),
            Leaf::BlockDevice(major, minor) => {
                writer.add_block_device(parent, name, metadata, *major, *minor)
            }
            Leaf::Fifo => writer.add_fifo(parent, name, metadata),
        }
        .map_err(|e| failed(e, &self.path, shorten(name)))
    }

    fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), ImageError> {
        self.entries.one_more();
        self.writer.link(parent, name, node).map_err(|e| failed(e, &self.path, shorten(name)))
    }

    fn unlink(&mut self, parent: NodeId, name: &[u8]) -> Result<(), ImageError> {
        self.writer.unlink(parent, name).map_err(|e| failed(e, &self.path, shorten(name)))
    }

    fn set_metadata(&mut self, directory: NodeId, metadata: Metadata) -> Result<(), ImageError> {
        self.writer
            .set_metadata(directory, known_attributes(metadata))
            .map_err(|e| failed(e, &self.path, String::new()))
    }
}
