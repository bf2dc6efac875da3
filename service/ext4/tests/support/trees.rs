//! Random trees: how they are made, written, and what they must look like when read back.

use super::reader::Seen;
use banger_ext4::{Ext4Error, Metadata, NodeId, NodeKind, Options, Size, Summary, Timestamp, Writer, Xattr};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Seek, Write};

/// A part of a file.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes { length: usize, seed: u8 },
    Zeros { length: usize },
    Hole { length: u64 },
}

#[derive(Debug, Clone)]
pub enum What {
    File(Vec<Piece>),
    Directory,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    /// One more name of an earlier node, counted modulo how many there are.
    Link(usize),
}

/// A node, under a directory counted modulo how many there are.
#[derive(Debug, Clone)]
pub struct Item {
    pub parent: usize,
    pub name: Vec<u8>,
    pub metadata: Metadata,
    pub what: What,
}

pub fn options() -> Options {
    Options {
        uuid: *b"0123456789abcdef",
        label: b"tests".to_vec(),
        expected: 64 << 20,
        epoch: Timestamp { seconds: 1_700_000_000, nanoseconds: 5 },
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b });
    vec(byte, 1..=255).prop_map(|name| if name == b"." || name == b".." { b"dots".to_vec() } else { name })
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        3 => (0usize..20_000, 1u8..).prop_map(|(length, seed)| Piece::Bytes { length, seed }),
        1 => (0usize..20_000).prop_map(|length| Piece::Zeros { length }),
        1 => (0u64..200_000).prop_map(|length| Piece::Hole { length }),
        1 => (0u64..1 << 40).prop_map(|length| Piece::Hole { length }),
    ]
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let name = prop_oneof![
        "user\\.[a-z]{1,20}".prop_map(String::into_bytes),
        "security\\.[a-z]{1,20}".prop_map(String::into_bytes),
        "trusted\\.[a-z]{1,200}".prop_map(String::into_bytes),
        vec(1u8.., 1..20).prop_map(|rest| [b"user.", &rest[..]].concat()),
    ];
    prop_oneof![
        3 => Just(Vec::new()),
        2 => btree_map(name.clone(), vec(any::<u8>(), 0..30), 1..3).prop_map(to_xattrs),
        1 => btree_map(name, vec(any::<u8>(), 0..500), 1..6).prop_map(to_xattrs),
    ]
}

fn to_xattrs(map: BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Xattr> {
    map.into_iter().map(|(name, value)| Xattr { name, value }).collect()
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let seconds =
        prop_oneof![any::<u32>().prop_map(i64::from), any::<i64>(), -5_000_000_000i64..20_000_000_000];
    let mtime =
        (seconds, 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds });
    (0u16..=0o7777, any::<u32>(), any::<u32>(), mtime, xattrs())
        .prop_map(|(mode, uid, gid, mtime, xattrs)| Metadata { mode, uid, gid, mtime, xattrs })
}

fn what() -> impl Strategy<Value = What> {
    let device = || (0u32..4096, 0u32..1 << 20);
    prop_oneof![
        8 => vec(piece(), 0..8).prop_map(What::File),
        // Enough pieces for a tree of extents.
        1 => vec(piece(), 60..120).prop_map(What::File),
        4 => Just(What::Directory),
        2 => vec(1u8.., 1..100).prop_map(What::Symlink),
        1 => vec(1u8.., 1..=4095).prop_map(What::Symlink),
        1 => device().prop_map(|(major, minor)| What::Char(major, minor)),
        1 => device().prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
        1 => Just(What::Socket),
        2 => any::<usize>().prop_map(What::Link),
    ]
}

pub fn items(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Item>> {
    let parent = prop_oneof![any::<usize>(), Just(0)];
    let item = (parent, name(), metadata(), what()).prop_map(|(parent, name, metadata, what)| Item {
        parent,
        name,
        metadata,
        what,
    });
    vec(item, count)
}

/// Data that differs from block to block, and is never zero for a whole one.
pub fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| ((i / 4096 + i) as u8).wrapping_mul(seed | 1).wrapping_add(seed)).collect()
}

/// What the data of a file must read as: its size, and the bytes that are not zero.
#[derive(Debug, Default)]
pub struct Expected {
    pub size: u64,
    pub bytes: BTreeMap<u64, Vec<u8>>,
}

/// What each path must be.
#[derive(Debug)]
pub struct Node {
    pub metadata: Metadata,
    pub what: What,
    pub data: Expected,
    pub links: u64,
}

/// The tree that was written.
#[derive(Debug, Default)]
pub struct Model {
    pub paths: BTreeMap<Vec<u8>, usize>,
    pub nodes: Vec<Node>,
}

const MOST: u64 = u32::MAX as u64 * 4096;

/// Writes the items that are possible, and tells what is in the image now.
pub fn write<W: Write + Seek>(writer: &mut Writer<W>, items: &[Item]) -> Result<Model, Ext4Error> {
    let mut model = Model::default();
    let mut ids: Vec<NodeId> = vec![writer.root()];
    let mut directories = vec![(writer.root(), 0, Vec::new())];
    let root = Metadata { mode: 0o1751, uid: 70_000, ..Metadata::default() };
    writer.set_metadata(writer.root(), root.clone())?;
    model.nodes.push(Node { metadata: root, what: What::Directory, data: Expected::default(), links: 2 });
    model.paths.insert(Vec::new(), 0);
    for item in items {
        let (parent, parent_node, parent_path) = directories[item.parent % directories.len()].clone();
        let mut path: Vec<u8> = parent_path;
        path.push(b'/');
        path.extend_from_slice(&item.name);
        let (name, metadata) = (&item.name[..], item.metadata.clone());
        let mut data = Expected::default();
        let added = match &item.what {
            What::File(pieces) => {
                let mut content = writer.content();
                for piece in pieces {
                    put(&mut content, piece, &mut data)?;
                }
                let content = content.finish()?;
                writer.add_file(parent, name, metadata, content)
            }
            What::Directory => writer.add_dir(parent, name, metadata),
            What::Symlink(target) => writer.add_symlink(parent, name, metadata, target),
            What::Char(major, minor) => writer.add_char_device(parent, name, metadata, *major, *minor),
            What::Block(major, minor) => writer.add_block_device(parent, name, metadata, *major, *minor),
            What::Fifo => writer.add_fifo(parent, name, metadata),
            What::Socket => writer.add_socket(parent, name, metadata),
            What::Link(target) => {
                let target = target % ids.len();
                match writer.link(parent, name, ids[target]) {
                    Ok(()) => {
                        model.nodes[target].links += 1;
                        model.paths.insert(path, target);
                    }
                    Err(Ext4Error::LinkToDirectory { .. } | Ext4Error::Exists { .. }) => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
        };
        let id = match added {
            Ok(id) => id,
            Err(Ext4Error::Exists { .. }) => continue,
            Err(error) => return Err(error),
        };
        assert_eq!(writer.lookup(parent, name), Some(id));
        let directory = matches!(item.what, What::Directory);
        if directory {
            assert_eq!(writer.kind(id), NodeKind::Directory);
            directories.push((id, model.nodes.len(), path.clone()));
            model.nodes[parent_node].links += 1;
        }
        model.paths.insert(path, model.nodes.len());
        ids.push(id);
        let links = if directory { 2 } else { 1 };
        model.nodes.push(Node { metadata: item.metadata.clone(), what: item.what.clone(), data, links });
    }
    Ok(model)
}

fn put<W: Write + Seek>(
    content: &mut banger_ext4::ContentWriter<'_, W>,
    piece: &Piece,
    expected: &mut Expected,
) -> Result<(), Ext4Error> {
    match piece {
        Piece::Bytes { length, seed } => {
            let data = bytes(*length, *seed);
            // In uneven parts, as a decompressor gives them.
            for part in data.chunks(7001) {
                content.write_all(part)?;
            }
            expected.bytes.insert(expected.size, data);
            expected.size += *length as u64;
        }
        Piece::Zeros { length } => {
            content.write_all(&vec![0; *length])?;
            expected.size += *length as u64;
        }
        Piece::Hole { length } => match content.hole(*length) {
            Ok(()) => expected.size += length,
            Err(Ext4Error::FileTooLarge { .. }) => assert!(expected.size + length > MOST),
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

/// Compares what was read with what was written.
pub fn compare(model: &Model, seen: &BTreeMap<Vec<u8>, Seen>) {
    let lost = &b"/lost+found"[..];
    let expected: Vec<_> = model
        .paths
        .keys()
        .map(Vec::as_slice)
        .chain([lost])
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(seen.keys().map(Vec::as_slice).collect::<Vec<_>>(), expected);
    let mut inodes = BTreeMap::new();
    for (path, place) in &model.paths {
        let (node, seen) = (&model.nodes[*place], &seen[path]);
        assert_eq!(*inodes.entry(place).or_insert(seen.inode), seen.inode, "names of one node");
        compare_node(node, seen, path.is_empty() as u64);
    }
    let distinct: std::collections::BTreeSet<_> = inodes.values().collect();
    assert_eq!(distinct.len(), inodes.len());
}

fn compare_node(node: &Node, seen: &Seen, lost_and_found: u64) {
    let kind = match node.what {
        What::File(_) | What::Link(_) => 0o100_000,
        What::Directory => 0o040_000,
        What::Symlink(_) => 0o120_000,
        What::Char(..) => 0o020_000,
        What::Block(..) => 0o060_000,
        What::Fifo => 0o010_000,
        What::Socket => 0o140_000,
    };
    let metadata = &node.metadata;
    assert_eq!(seen.mode, kind | metadata.mode);
    assert_eq!((seen.uid, seen.gid), (metadata.uid, metadata.gid));
    let time = metadata.mtime.clamped();
    assert_eq!((seen.seconds, seen.nanoseconds), (time.seconds, time.nanoseconds));
    assert_eq!(u64::from(seen.links), node.links + lost_and_found);
    let xattrs: BTreeMap<Vec<u8>, &[u8]> = seen
        .xattrs
        .iter()
        .map(|((namespace, name), value)| {
            let prefix = ["", "user.", "", "", "trusted.", "", "security."][usize::from(*namespace)];
            ([prefix.as_bytes(), name].concat(), &value[..])
        })
        .collect();
    let expected: BTreeMap<_, _> = metadata.xattrs.iter().map(|x| (x.name.clone(), &x.value[..])).collect();
    assert_eq!(xattrs, expected);
    match &node.what {
        What::File(_) => compare_data(&node.data, seen),
        What::Symlink(target) => assert_eq!(&seen.data[0].1, target),
        What::Char(major, minor) | What::Block(major, minor) => {
            let old = *major < 256 && *minor < 256;
            let new = minor & 0xff | major << 8 | (minor >> 8) << 20;
            assert_eq!(seen.device, if old { (major << 8 | minor, 0) } else { (0, new) });
        }
        _ => {}
    }
}

/// Every byte is there, and no block is taken that is all zero.
fn compare_data(expected: &Expected, seen: &Seen) {
    assert_eq!(seen.size, expected.size);
    let mut want: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (start, bytes) in &expected.bytes {
        for (i, byte) in bytes.iter().enumerate() {
            let at = start + i as u64;
            let block = want.entry(at / 4096).or_insert_with(|| vec![0; 4096]);
            block[(at % 4096) as usize] = *byte;
        }
    }
    let mut have = BTreeMap::new();
    for (start, bytes) in &seen.data {
        for (i, block) in bytes.chunks(4096).enumerate() {
            let mut block = block.to_vec();
            block.resize(4096, 0);
            assert!(have.insert(start / 4096 + i as u64, block).is_none());
        }
    }
    want.retain(|_, block| block.iter().any(|byte| *byte != 0));
    assert!(want == have, "data differs: {:?} {:?}", want.keys(), have.keys());
}

/// Writes a tree into a new file and ends it.
pub fn image(items: &[Item], size: Size, path: &std::path::Path) -> Result<(Model, Summary), Ext4Error> {
    let mut writer = Writer::new(std::fs::File::create(path)?, options())?;
    let model = write(&mut writer, items)?;
    Ok((model, writer.finish(size)?))
}
