//! The nodes and names of the image in memory, as small as can be: about a hundred bytes for a file.

use crate::error::shown;
use crate::extent::Run;
use crate::inode::{DiskTime, FIRST, ROOT, disk_time};
use crate::{Ext4Error, Metadata, NodeKind, xattr};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// Names that a file can have (`EXT4_LINK_MAX`); a directory with more subdirectories says 1 instead.
pub(crate) const MOST_LINKS: u16 = 65_000;

/// The root directory's place among the nodes.
pub(crate) const ROOT_NODE: u32 = 0;
/// The place kept for lost+found, which becomes one only when nobody else adds it.
pub(crate) const LOST_NODE: u32 = 1;

/// What a name that was taken away stands for.
const NOBODY: u32 = u32::MAX;

/// Where a node's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nowhere: it has none.
    Empty,
    /// In consecutive blocks from the start of the file on.
    Run { start: u32, count: u32 },
    /// In these many runs of [`Tree::runs`].
    Runs { first: u32, count: u32 },
    /// In the inode: the target of a short link, at this place in [`Tree::texts`].
    Text { at: u32 },
    /// A device number.
    Device { major: u32, minor: u32 },
    /// A directory that is not written yet.
    Children { parent: u32 },
}

/// One inode to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub size: u64,
    pub time: DiskTime,
    pub uid: u32,
    pub gid: u32,
    pub body: Body,
    /// One more than its place in [`Tree::sets`], or 0 without attributes.
    pub xattrs: u32,
    /// With the type bits.
    pub mode: u16,
    /// Names; for a directory "." and the ".." of its subdirectories too. 0 for a place not taken.
    pub links: u16,
}

impl Node {
    pub fn kind(&self) -> NodeKind {
        NodeKind::of_mode(self.mode)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub parent: u32,
    pub node: u32,
    at: u32,
    length: u8,
}

/// A set of attributes that some nodes have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    at: u32,
    length: u32,
    /// Whether it needs a block.
    pub has_block: bool,
}

/// All of it.
pub(crate) struct Tree {
    pub nodes: Vec<Node>,
    pub names: Vec<Name>,
    pub runs: Vec<Run>,
    pub sets: Vec<Set>,
    texts: Vec<u8>,
    bytes_of_names: Vec<u8>,
    bytes_of_sets: Vec<u8>,
    by_name: HashTable<u32>,
    by_set: HashTable<u32>,
    /// Keyed at random, against names chosen to collide; nothing in the image depends on it.
    hasher: RandomState,
}

/// The number of one more thing in a list.
fn next(length: usize, what: &'static str) -> Result<u32, Ext4Error> {
    u32::try_from(length).map_err(|_| Ext4Error::TooMany { what })
}

fn part(bytes: &[u8], at: u32, length: u32) -> &[u8] {
    let at = at as usize;
    &bytes[at..at + length as usize]
}

impl Tree {
    /// A root directory and the place of lost+found.
    pub fn new() -> Self {
        let node = |links| Node {
            size: 0,
            time: (0, 0),
            uid: 0,
            gid: 0,
            body: Body::Children { parent: ROOT_NODE },
            xattrs: 0,
            mode: NodeKind::Directory.mode_bits() | 0o755,
            links,
        };
        Self {
            nodes: vec![node(2), node(0)],
            names: Vec::new(),
            runs: Vec::new(),
            sets: Vec::new(),
            texts: Vec::new(),
            bytes_of_names: Vec::new(),
            bytes_of_sets: Vec::new(),
            by_name: HashTable::new(),
            by_set: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// The inode number of a node: in the order of creation.
    pub fn inode_number(node: u32) -> u32 {
        if node == ROOT_NODE { ROOT } else { node - LOST_NODE + FIRST }
    }

    /// Adds a node under a name. Nothing is changed when it fails.
    pub fn add(
        &mut self,
        parent: u32,
        name: &[u8],
        kind: NodeKind,
        metadata: &Metadata,
        size: u64,
        body: Body,
    ) -> Result<u32, Ext4Error> {
        self.check_name(parent, name)?;
        let node = next(self.nodes.len(), "files")?;
        if node >= u32::MAX - FIRST {
            return Err(Ext4Error::TooMany { what: "files" });
        }
        let xattrs = self.intern(metadata)?;
        self.put_name(parent, name, node)?;
        let links = if kind == NodeKind::Directory { 2 } else { 1 };
        self.nodes.push(Node {
            size,
            time: disk_time(metadata.mtime),
            uid: metadata.uid,
            gid: metadata.gid,
            body,
            xattrs,
            mode: kind.mode_bits() | metadata.mode & 0o7777,
            links,
        });
        if kind == NodeKind::Directory {
            self.count_subdirectory(parent);
        }
        Ok(node)
    }

    /// Makes the place kept for lost+found one, unless the root has an entry of that name.
    pub fn add_lost_and_found(&mut self, time: DiskTime) -> Result<(), Ext4Error> {
        let name = b"lost+found";
        if self.lookup(ROOT_NODE, name).is_some() {
            return Ok(());
        }
        self.put_name(ROOT_NODE, name, LOST_NODE)?;
        self.count_subdirectory(ROOT_NODE);
        let node = &mut self.nodes[LOST_NODE as usize];
        (node.mode, node.links, node.time) = (NodeKind::Directory.mode_bits() | 0o700, 2, time);
        Ok(())
    }

    /// Adds one more name for a node.
    pub fn link(&mut self, parent: u32, name: &[u8], node: u32) -> Result<(), Ext4Error> {
        self.check_name(parent, name)?;
        let target = &self.nodes[node as usize];
        if target.kind() == NodeKind::Directory {
            return Err(Ext4Error::LinkToDirectory { name: shown(name) });
        }
        if target.links >= MOST_LINKS {
            return Err(Ext4Error::TooManyLinks { name: shown(name), limit: MOST_LINKS.into() });
        }
        self.put_name(parent, name, node)?;
        self.nodes[node as usize].links += 1;
        Ok(())
    }

    /// Takes a name away, and with its last name the node; returns what the node's body was then.
    pub fn unlink(&mut self, parent: u32, name: &[u8]) -> Result<Option<Node>, Ext4Error> {
        let hash = self.hash_name(parent, name);
        let place = self.by_name.find(hash, |i| self.is_name(*i, parent, name)).copied();
        let Some(place) = place else { return Err(Ext4Error::Missing { name: shown(name) }) };
        let number = self.names[place as usize].node;
        if self.nodes[number as usize].kind() == NodeKind::Directory {
            return Err(Ext4Error::LinkToDirectory { name: shown(name) });
        }
        if let Ok(entry) = self.by_name.find_entry(hash, |i| *i == place) {
            entry.remove();
        }
        self.names[place as usize].node = NOBODY;
        let node = &mut self.nodes[number as usize];
        node.links -= 1;
        if node.links > 0 {
            return Ok(None);
        }
        let gone = *node;
        (node.size, node.body, node.xattrs) = (0, Body::Empty, 0);
        Ok(Some(gone))
    }

    /// Replaces a node's metadata.
    pub fn set_metadata(&mut self, node: u32, metadata: &Metadata) -> Result<(), Ext4Error> {
        let xattrs = self.intern(metadata)?;
        let node = &mut self.nodes[node as usize];
        node.time = disk_time(metadata.mtime);
        (node.uid, node.gid, node.xattrs) = (metadata.uid, metadata.gid, xattrs);
        node.mode = node.mode & !0o7777 | metadata.mode & 0o7777;
        Ok(())
    }

    /// The node of that name.
    pub fn lookup(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let found = self.by_name.find(self.hash_name(parent, name), |i| self.is_name(*i, parent, name))?;
        Some(self.names[*found as usize].node)
    }

    /// The bytes of a name.
    pub fn name(&self, name: &Name) -> &[u8] {
        part(&self.bytes_of_names, name.at, name.length.into())
    }

    /// Keeps the target of a short link.
    pub fn put_text(&mut self, text: &[u8]) -> Result<Body, Ext4Error> {
        let at = next(self.texts.len(), "symbolic links")?;
        self.texts.extend_from_slice(text);
        Ok(Body::Text { at })
    }

    /// The target of a short link.
    pub fn text(&self, at: u32, length: u64) -> &[u8] {
        part(&self.texts, at, length as u32)
    }

    /// Keeps the runs of a file.
    pub fn put_runs(&mut self, runs: &[Run]) -> Result<Body, Ext4Error> {
        Ok(match runs {
            [] => Body::Empty,
            [Run { logical: 0, start, count }] => Body::Run { start: *start, count: *count },
            _ => {
                let first = next(self.runs.len(), "extents")?;
                self.runs.extend_from_slice(runs);
                Body::Runs { first, count: runs.len() as u32 }
            }
        })
    }

    /// The runs of a node; `single` is the space for one.
    pub fn runs_of<'a>(&'a self, node: &Node, single: &'a mut [Run; 1]) -> &'a [Run] {
        match node.body {
            Body::Run { start, count } => {
                *single = [Run { logical: 0, start, count }];
                single
            }
            Body::Runs { first, count } => &self.runs[first as usize..(first + count) as usize],
            _ => &[],
        }
    }

    /// The packed attributes of a set.
    pub fn set(&self, set: &Set) -> &[u8] {
        part(&self.bytes_of_sets, set.at, set.length)
    }

    /// The names of each directory, in the order of creation: `result.of(node)` are places in `names`.
    pub fn children(&self) -> Children {
        let mut ends = vec![0u32; self.nodes.len() + 1];
        let taken = || (0..).zip(&self.names).filter(|(_, name)| name.node != NOBODY);
        for (_, name) in taken() {
            ends[name.parent as usize + 1] += 1;
        }
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let mut places = ends.clone();
        let mut order = vec![0; self.names.len()];
        for (i, name) in taken() {
            let place = &mut places[name.parent as usize];
            order[*place as usize] = i;
            *place += 1;
        }
        Children { ends, order }
    }

    fn check_name(&self, parent: u32, name: &[u8]) -> Result<(), Ext4Error> {
        let refuse = |why| Err(Ext4Error::Name { name: shown(name), why });
        match name {
            [] => return refuse("it is empty"),
            b"." | b".." => return refuse("\".\" and \"..\" are there already"),
            _ if name.len() > 255 => return refuse("it has more than 255 bytes"),
            _ if name.contains(&b'/') => return refuse("it holds a slash"),
            _ if name.contains(&0) => return refuse("it holds a NUL"),
            _ => {}
        }
        if self.nodes[parent as usize].kind() != NodeKind::Directory {
            return Err(Ext4Error::NotADirectory { name: shown(name) });
        }
        if self.lookup(parent, name).is_some() {
            return Err(Ext4Error::Exists { name: shown(name) });
        }
        Ok(())
    }

    fn put_name(&mut self, parent: u32, name: &[u8], node: u32) -> Result<(), Ext4Error> {
        let at = next(self.bytes_of_names.len(), "names")?;
        let place = next(self.names.len(), "names")?;
        self.bytes_of_names.extend_from_slice(name);
        self.names.push(Name { parent, node, at, length: name.len() as u8 });
        let hash = self.hash_name(parent, name);
        let (names, bytes, hasher) = (&self.names, &self.bytes_of_names, &self.hasher);
        self.by_name.insert_unique(hash, place, |i| {
            let name = &names[*i as usize];
            hasher.hash_one((name.parent, part(bytes, name.at, name.length.into())))
        });
        Ok(())
    }

    fn count_subdirectory(&mut self, parent: u32) {
        let links = &mut self.nodes[parent as usize].links;
        *links = links.saturating_add(1);
    }

    /// The number of the set with these attributes; sets are kept once.
    fn intern(&mut self, metadata: &Metadata) -> Result<u32, Ext4Error> {
        if metadata.xattrs.is_empty() {
            return Ok(0);
        }
        let packed = xattr::pack(&metadata.xattrs)?;
        let hash = self.hasher.hash_one(&packed.bytes[..]);
        if let Some(place) = self.by_set.find(hash, |i| self.set(&self.sets[*i as usize]) == packed.bytes) {
            return Ok(*place + 1);
        }
        let place = next(self.sets.len() + 1, "sets of extended attributes")? - 1;
        let at = next(self.bytes_of_sets.len(), "extended attributes")?;
        let length = packed.bytes.len() as u32;
        self.bytes_of_sets.extend_from_slice(&packed.bytes);
        self.sets.push(Set { at, length, has_block: packed.has_block });
        let (sets, bytes, hasher) = (&self.sets, &self.bytes_of_sets, &self.hasher);
        self.by_set.insert_unique(hash, place, |i| {
            let set = &sets[*i as usize];
            hasher.hash_one(part(bytes, set.at, set.length))
        });
        Ok(place + 1)
    }

    fn hash_name(&self, parent: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn is_name(&self, place: u32, parent: u32, name: &[u8]) -> bool {
        let candidate = &self.names[place as usize];
        candidate.parent == parent && self.name(candidate) == name
    }
}

/// See [`Tree::children`].
pub(crate) struct Children {
    ends: Vec<u32>,
    order: Vec<u32>,
}

impl Children {
    /// The places in `names` of a directory's entries.
    pub fn of(&self, node: u32) -> &[u32] {
        let Range { start, end } = self.ends[node as usize] as usize..self.ends[node as usize + 1] as usize;
        &self.order[start..end]
    }
}
