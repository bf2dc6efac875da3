//! What a volume holds at first: what an image has at a path, as a filesystem of its own. It is read out of one file and
//! written into another; nothing is mounted and nothing comes to be on the host.

use crate::{ImageError, Limits, Unsafe, archive::filesystem, error::shorten, manifest::limit};
use banger_ext4::{
    Content, Ext4Error, Metadata, NodeId, NodeKind, Options, Size, Timestamp, Writer,
    reader::{Data, Node, ReadAt, Reader},
};
use banger_model::Bytes;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io::{BufWriter, Seek, Write},
    path::Path,
};
use tokio_util::sync::CancellationToken;

/// What is copied at once.
const PIECE: usize = 256 << 10;
/// So many symbolic links may be on the way to a path (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// A volume to be made.
#[derive(Debug)]
pub struct Seed<'a> {
    /// The image's filesystem; none for an empty volume.
    pub rootfs: Option<&'a File>,
    /// An absolute path in it. What is not there, or is no folder, gives an empty volume.
    pub path: &'a str,
    /// Size of the volume.
    pub size: Bytes,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Where it is written to, for errors.
    pub on: &'a Path,
}

/// Writes the volume to `to`, an empty file. It belongs to whom, and may be entered by whom, the image's folder does.
///
/// # Errors
/// [`ImageError`] for a filesystem that cannot be read, for content that does not fit the size or the limits, what the
/// files say, and [`ImageError::Cancelled`].
pub fn seed(
    wanted: &Seed<'_>,
    to: &File,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<(), ImageError> {
    let options = Options {
        uuid: wanted.uuid,
        label: Vec::new(),
        expected: wanted.size.0,
        epoch: Timestamp::default(),
    };
    let out = BufWriter::with_capacity(1 << 20, to);
    let writer = Writer::new(out, options).map_err(|error| failed(error, wanted.on))?;
    let mut target = Target { writer, limits, cancel, on: wanted.on };
    if let Some(rootfs) = wanted.rootfs {
        let reader = Reader::open(rootfs).map_err(filesystem)?;
        if let Some(folder) = find(&reader, wanted.path)? {
            target.copy(&reader, &folder)?;
        }
    }
    target.writer.finish(Size::Exactly(wanted.size.0)).map_err(|error| failed(error, wanted.on))?;
    Ok(())
}

/// The folder at a path, links followed as in the guest; none where there is none.
fn find<R: ReadAt>(reader: &Reader<R>, path: &str) -> Result<Option<Node>, ImageError> {
    let root = reader.root().map_err(filesystem)?;
    let mut way = vec![root];
    let mut rest: VecDeque<Vec<u8>> = parts(path.as_bytes());
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        let Some(here) = way.last() else { return Ok(None) };
        if part == b".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let entries = reader.entries(here).map_err(filesystem)?;
        let Some(entry) = entries.iter().find(|entry| *entry.name == *part) else { return Ok(None) };
        let node = reader.node(entry.inode).map_err(filesystem)?;
        match node.kind {
            NodeKind::Directory => way.push(node),
            NodeKind::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(None);
                }
                let target = reader.target(&node).map_err(filesystem)?;
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                let mut longer = parts(&target);
                longer.extend(rest);
                rest = longer;
            }
            _ => return Ok(None),
        }
    }
    Ok(way.pop())
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

struct Target<'a, W: Write + Seek> {
    writer: Writer<W>,
    limits: &'a Limits,
    cancel: &'a CancellationToken,
    on: &'a Path,
}

impl<W: Write + Seek> Target<'_, W> {
    /// Copies everything in a folder into the root.
    fn copy<R: ReadAt>(&mut self, reader: &Reader<R>, folder: &Node) -> Result<(), ImageError> {
        let on = self.on;
        let root = self.writer.root();
        self.writer.set_metadata(root, known(&folder.metadata)).map_err(|error| failed(error, on))?;
        let mut known_nodes: HashMap<u32, NodeId> = HashMap::new();
        let mut visited = HashSet::from([folder.inode]);
        let mut entries = 0;
        let mut open = vec![(root, reader.entries(folder).map_err(filesystem)?.into_iter())];
        while let Some((parent, rest)) = open.last_mut() {
            let parent = *parent;
            let Some(entry) = rest.next() else {
                open.pop();
                continue;
            };
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            entries += 1;
            limit("the number of files", entries, self.limits.entries)?;
            // The filesystem makes one for itself.
            if parent == root && *entry.name == *b"lost+found" {
                continue;
            }
            let node = reader.node(entry.inode).map_err(filesystem)?;
            if node.kind == NodeKind::Directory {
                if !visited.insert(node.inode) {
                    let why = format!("the directory {} has two names", shorten(&entry.name));
                    return Err(Unsafe::Document { what: "the filesystem", why }.into());
                }
                let made = self.writer.add_dir(parent, &entry.name, known(&node.metadata));
                let made = made.map_err(|error| failed(error, on))?;
                open.push((made, reader.entries(&node).map_err(filesystem)?.into_iter()));
                continue;
            }
            if let Some(first) = known_nodes.get(&node.inode) {
                self.writer.link(parent, &entry.name, *first).map_err(|error| failed(error, on))?;
                continue;
            }
            let made = self.leaf(reader, parent, &entry.name, &node)?;
            if node.links > 1 {
                known_nodes.insert(node.inode, made);
            }
        }
        Ok(())
    }

    fn leaf<R: ReadAt>(
        &mut self,
        reader: &Reader<R>,
        parent: NodeId,
        name: &[u8],
        node: &Node,
    ) -> Result<NodeId, ImageError> {
        let metadata = known(&node.metadata);
        let (major, minor) = node.device;
        let made = match node.kind {
            NodeKind::File => {
                let content = self.content(reader, node)?;
                self.writer.add_file(parent, name, metadata, content)
            }
            NodeKind::Symlink => {
                let target = reader.target(node).map_err(filesystem)?;
                self.writer.add_symlink(parent, name, metadata, &target)
            }
            NodeKind::CharDevice => self.writer.add_char_device(parent, name, metadata, major, minor),
            NodeKind::BlockDevice => self.writer.add_block_device(parent, name, metadata, major, minor),
            NodeKind::Fifo => self.writer.add_fifo(parent, name, metadata),
            NodeKind::Socket => self.writer.add_socket(parent, name, metadata),
            NodeKind::Directory => self.writer.add_dir(parent, name, metadata),
        };
        made.map_err(|error| failed(error, self.on))
    }

    fn content<R: ReadAt>(&mut self, reader: &Reader<R>, node: &Node) -> Result<Content, ImageError> {
        let on = self.on;
        let data = reader.data(node).map_err(filesystem)?;
        let mut content = self.writer.content();
        let write = |error: std::io::Error| ImageError::io("write", on, error);
        match data {
            Data::Inline(bytes) => content.write_all(&bytes).map_err(write)?,
            Data::Extents(extents) => {
                let mut at = 0;
                let mut buffer = vec![0; PIECE];
                for extent in extents {
                    content.hole(extent.offset - at).map_err(|error| failed(error, on))?;
                    let mut done = 0;
                    while done < extent.length {
                        if self.cancel.is_cancelled() {
                            return Err(ImageError::Cancelled);
                        }
                        let piece = (extent.length - done).min(PIECE as u64) as usize;
                        reader.read(&mut buffer[..piece], extent.place + done).map_err(filesystem)?;
                        content.write_all(&buffer[..piece]).map_err(write)?;
                        done += piece as u64;
                    }
                    at = extent.offset + extent.length;
                }
                content.hole(node.size - at).map_err(|error| failed(error, on))?;
            }
        }
        content.finish().map_err(|error| failed(error, on))
    }
}

/// Attributes that a guest's kernel made for the whole of its disk mean nothing on another.
fn known(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    metadata.mtime = metadata.mtime.clamped();
    metadata
}

fn failed(error: Ext4Error, on: &Path) -> ImageError {
    crate::rootfs::failed(error, on, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_ext4::Xattr;

    /// A filesystem with `/data` and links to it.
    fn image() -> File {
        let file = tempfile::tempfile().unwrap();
        let options = Options { uuid: [1; 16], label: Vec::new(), expected: 0, epoch: Timestamp::default() };
        let mut writer = Writer::new(&file, options).unwrap();
        let root = writer.root();
        let owned = |mode| Metadata { mode, uid: 7, gid: 8, ..Metadata::default() };
        let data = writer.add_dir(root, b"data", owned(0o2750)).unwrap();
        let mut content = writer.content();
        content.write_all(b"hello").unwrap();
        content.hole(1 << 20).unwrap();
        content.write_all(b"end").unwrap();
        let content = content.finish().unwrap();
        let value = Xattr { name: b"user.a".to_vec(), value: b"b".to_vec() };
        let with = Metadata { xattrs: vec![value], ..owned(0o4711) };
        let node = writer.add_file(data, b"file", with, content).unwrap();
        let inner = writer.add_dir(data, b"inner", owned(0o700)).unwrap();
        writer.link(inner, b"again", node).unwrap();
        writer.add_symlink(inner, b"link", owned(0o777), b"../file").unwrap();
        writer.add_fifo(inner, b"fifo", owned(0o600)).unwrap();
        writer.add_symlink(root, b"absolute", owned(0o777), b"/usr/../data").unwrap();
        let usr = writer.add_dir(root, b"usr", owned(0o755)).unwrap();
        writer.add_symlink(usr, b"up", owned(0o777), b"../../../data/./inner/..").unwrap();
        writer.add_symlink(root, b"loop", owned(0o777), b"loop").unwrap();
        writer.finish(Size::AtLeast(0)).unwrap();
        file
    }

    fn seeded(path: &str) -> (File, Reader<File>) {
        let image = image();
        let to = tempfile::tempfile().unwrap();
        let on = Path::new("volume");
        let wanted = Seed { rootfs: Some(&image), path, size: Bytes::mib(64), uuid: [2; 16], on };
        seed(&wanted, &to, &Limits::default(), &CancellationToken::new()).unwrap();
        (to.try_clone().unwrap(), Reader::open(to).unwrap())
    }

    fn names(reader: &Reader<File>, node: &Node) -> Vec<String> {
        let entries = reader.entries(node).unwrap();
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
    }

    #[test]
    fn a_folder_is_the_volumes_root_with_all_that_is_in_it() {
        for path in ["/data", "/data/", "/absolute", "/usr/up", "//usr/./up/."] {
            let (file, reader) = seeded(path);
            assert_eq!(file.metadata().unwrap().len(), 64 << 20, "{path}");
            let root = reader.root().unwrap();
            let about = &root.metadata;
            assert_eq!((about.mode, about.uid, about.gid), (0o2750, 7, 8), "{path}");
            assert_eq!(names(&reader, &root), ["file", "inner", "lost+found"], "{path}");
            let node = |name: &[u8], folder: &Node| {
                let entries = reader.entries(folder).unwrap();
                reader.node(entries.iter().find(|entry| *entry.name == *name).unwrap().inode).unwrap()
            };
            let (plain, inner) = (node(b"file", &root), node(b"inner", &root));
            assert_eq!((plain.size, plain.links, plain.metadata.mode), ((1 << 20) + 8, 2, 0o4711));
            assert_eq!(plain.metadata.xattrs[0].name, b"user.a");
            assert_eq!(node(b"again", &inner).inode, plain.inode, "a hard link stays one");
            assert_eq!(reader.target(&node(b"link", &inner)).unwrap(), b"../file");
            assert_eq!(node(b"fifo", &inner).kind, NodeKind::Fifo);
            let Data::Extents(extents) = reader.data(&plain).unwrap() else { panic!("inline") };
            assert!(extents.iter().map(|extent| extent.length).sum::<u64>() < 64 << 10, "holes stay holes");
        }
    }

    #[test]
    fn what_is_no_folder_gives_an_empty_volume() {
        for path in ["/none", "/data/none/more", "/data/file", "/loop", "/data/file/.."] {
            let (_, reader) = seeded(path);
            let root = reader.root().unwrap();
            assert_eq!(names(&reader, &root), ["lost+found"], "{path}");
            assert_eq!((root.metadata.mode, root.metadata.uid), (0o755, 0), "{path}");
        }
    }

    #[test]
    fn limits_cancellation_and_size_are_kept() {
        let image = image();
        let on = Path::new("volume");
        let try_with = |limits: &Limits, size, cancel: &CancellationToken| {
            let wanted = Seed { rootfs: Some(&image), path: "/data", size, uuid: [2; 16], on };
            seed(&wanted, &tempfile::tempfile().unwrap(), limits, cancel)
        };
        let few = Limits { entries: 2, ..Limits::default() };
        assert!(try_with(&few, Bytes::mib(64), &CancellationToken::new()).is_err());
        assert!(try_with(&Limits::default(), Bytes::mib(1), &CancellationToken::new()).is_err());
        let cancel = CancellationToken::new();
        cancel.cancel();
        let cancelled = try_with(&Limits::default(), Bytes::mib(64), &cancel);
        assert!(matches!(cancelled, Err(ImageError::Cancelled)));
    }
}
