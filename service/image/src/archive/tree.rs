//! A filesystem as a layer: every file of it, in order, as an archive.

use super::tar_writer::{Kind, TarWriter};
use crate::{ImageError, Limits, Unsafe, Unsupported, error::shorten, manifest::limit};
use banger_ext4::{
    NodeKind,
    reader::{Data, Entry, Extent, Node, ReadAt, ReadError, Reader},
};
use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    path::Path,
    vec::IntoIter,
};
use tokio_util::sync::CancellationToken;

/// Holes of at least so many bytes are worth telling; smaller ones are written as zeros.
const HOLE: u64 = 64 << 10;
/// The most parts that a sparse file may be told in: readers bound the map.
const MOST_PARTS: usize = 32 << 10;
/// What is copied at once.
const PIECE: usize = 256 << 10;
/// What the filesystem makes for itself; an empty one is no content.
const LOST: &[u8] = b"lost+found";
/// Names that mean something else in a layer.
const WHITEOUT: &[u8] = b".wh.";

/// Writes all of a filesystem, and tells `wrote` how many bytes of files so far.
pub(super) struct Layer<'a, R, W> {
    pub reader: &'a Reader<R>,
    pub tar: TarWriter<W>,
    pub limits: &'a Limits,
    pub cancel: &'a CancellationToken,
    /// Where the archive goes, for errors.
    pub on: &'a Path,
    pub wrote: &'a dyn Fn(u64),
    pub done: u64,
}

impl<R: ReadAt, W: Write> Layer<'_, R, W> {
    /// Writes it and answers what was written to.
    pub(super) fn write(mut self) -> Result<W, ImageError> {
        let root = self.reader.root().map_err(filesystem)?;
        self.header(b".", Kind::Directory, &root)?;
        let mut first_names: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut visited = HashSet::from([root.inode]);
        let mut entries = 0;
        let mut open: Vec<(Vec<u8>, IntoIter<Entry>)> = vec![(Vec::new(), self.names(&root)?)];
        while let Some((folder, rest)) = open.last_mut() {
            let Some(entry) = rest.next() else {
                open.pop();
                continue;
            };
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            entries += 1;
            limit("the number of files", entries, self.limits.entries)?;
            let path = match folder.as_slice() {
                b"" => entry.name.to_vec(),
                folder => [folder, b"/", &entry.name].concat(),
            };
            limit("the length of a path", path.len() as u64, self.limits.path.into())?;
            if entry.name.starts_with(WHITEOUT) {
                let why = "a name that begins with .wh. takes something away in an image's layer".to_owned();
                return Err(Unsupported::Entry { name: shorten(&path), why }.into());
            }
            let node = self.reader.node(entry.inode).map_err(filesystem)?;
            if node.kind == NodeKind::Directory {
                if !visited.insert(node.inode) {
                    return Err(broken("a directory has two names"));
                }
                let names = self.names(&node)?;
                if path == LOST && names.len() == 0 {
                    continue;
                }
                self.header(&path, Kind::Directory, &node)?;
                open.push((path, names));
                continue;
            }
            if let Some(first) = first_names.get(&node.inode) {
                let first = first.clone();
                self.header(&path, Kind::HardLink(&first), &node)?;
                continue;
            }
            self.leaf(&path, &node)?;
            if node.links > 1 {
                first_names.insert(node.inode, path);
            }
        }
        self.tar.finish().map_err(|e| self::failed(e, self.on))
    }

    fn names(&self, directory: &Node) -> Result<IntoIter<Entry>, ImageError> {
        Ok(self.reader.entries(directory).map_err(filesystem)?.into_iter())
    }

    fn header(&mut self, path: &[u8], kind: Kind<'_>, node: &Node) -> Result<(), ImageError> {
        self.tar.header(path, kind, &node.metadata).map_err(|e| failed(e, self.on))
    }

    fn leaf(&mut self, path: &[u8], node: &Node) -> Result<(), ImageError> {
        let (major, minor) = node.device;
        match node.kind {
            NodeKind::File => self.content(path, node),
            NodeKind::Symlink => {
                let target = self.reader.target(node).map_err(filesystem)?;
                self.header(path, Kind::Symlink(&target), node)
            }
            NodeKind::CharDevice => self.header(path, Kind::CharDevice(major, minor), node),
            NodeKind::BlockDevice => self.header(path, Kind::BlockDevice(major, minor), node),
            NodeKind::Fifo => self.header(path, Kind::Fifo, node),
            // An archive cannot hold a socket, and without the program that made it nobody could use it.
            NodeKind::Socket | NodeKind::Directory => Ok(()),
        }
    }

    fn content(&mut self, path: &[u8], node: &Node) -> Result<(), ImageError> {
        let extents = match self.reader.data(node).map_err(filesystem)? {
            Data::Inline(data) => {
                self.header(path, Kind::File(node.size), node)?;
                self.body(&data)?;
                return self.end_body(node.size);
            }
            Data::Extents(extents) => extents,
        };
        let stored: u64 = extents.iter().map(|extent| extent.length).sum();
        let parts: Vec<(u64, u64)> = extents.iter().map(|e| (e.offset, e.length)).collect();
        if node.size - stored >= HOLE && parts.len() <= MOST_PARTS {
            self.header(path, Kind::Sparse(node.size, &parts), node)?;
            for extent in &extents {
                self.copy(extent)?;
            }
            return self.end_body(stored);
        }
        self.header(path, Kind::File(node.size), node)?;
        let mut at = 0;
        for extent in &extents {
            self.zeros(extent.offset - at)?;
            self.copy(extent)?;
            at = extent.offset + extent.length;
        }
        self.zeros(node.size - at)?;
        self.end_body(node.size)
    }

    fn copy(&mut self, extent: &Extent) -> Result<(), ImageError> {
        let mut buffer = vec![0; extent.length.min(PIECE as u64) as usize];
        let mut at = 0;
        while at < extent.length {
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let piece = (extent.length - at).min(PIECE as u64) as usize;
            self.reader.read(&mut buffer[..piece], extent.place + at).map_err(filesystem)?;
            self.body(&buffer[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), ImageError> {
        let zeros = [0; 4096];
        while count > 0 {
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let piece = count.min(zeros.len() as u64) as usize;
            self.tar.body(&zeros[..piece]).map_err(|e| failed(e, self.on))?;
            count -= piece as u64;
        }
        Ok(())
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.tar.body(bytes).map_err(|e| failed(e, self.on))?;
        self.done += bytes.len() as u64;
        (self.wrote)(self.done);
        Ok(())
    }

    fn end_body(&mut self, bytes: u64) -> Result<(), ImageError> {
        self.tar.end_body(bytes).map_err(|e| failed(e, self.on))
    }
}

fn broken(why: &str) -> ImageError {
    Unsafe::Document { what: "the filesystem", why: why.to_owned() }.into()
}

/// What an error of the reader means for an image.
pub(crate) fn filesystem(error: ReadError) -> ImageError {
    match error {
        ReadError::Io(error) => error.downcast().unwrap_or_else(|error| broken(&error.to_string())),
        ReadError::Damaged(_) => broken(&error.to_string()),
        ReadError::NotExt4 | ReadError::Unclean { .. } | ReadError::Unsupported(_) => {
            Unsupported::Filesystem(error.to_string()).into()
        }
    }
}

fn failed(error: io::Error, on: &Path) -> ImageError {
    error.downcast().unwrap_or_else(|error| ImageError::io("write", on, error))
}
