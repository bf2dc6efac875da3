//! A tree in memory, layers in memory, and the naive way to merge: oldest first, in a tree, as the specification tells it.

use super::*;
use std::collections::BTreeMap;

/// A layer as a list of entries with bodies.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(pub Vec<(Entry, Vec<u8>)>);

/// Reads a [`Layer`].
pub(super) struct Reader<'a> {
    layer: &'a Layer,
    next: usize,
}

impl Layer {
    pub fn reader(&self) -> Reader<'_> {
        Reader { layer: self, next: 0 }
    }
}

impl Entries for Reader<'_> {
    fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        self.next += 1;
        Ok(self.layer.0.get(self.next - 1).map(|(entry, _)| entry.clone()))
    }

    fn copy_body(&mut self, into: &mut dyn crate::entry::BodySink) -> Result<(), ImageError> {
        into.data(&self.layer.0[self.next - 1].1)
    }
}

/// What both ways must agree on: for each path its kind, metadata, content and the first path of the same node.
pub(super) type Listing = BTreeMap<String, (Kind, Metadata, Vec<u8>, String)>;

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    metadata: Metadata,
    body: Vec<u8>,
}

/// A tree in memory.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    names: BTreeMap<(usize, Vec<u8>), usize>,
    /// Bytes of bodies that went in, to prove that what is hidden is not read.
    pub written: usize,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { kind: Kind::Directory, metadata: Metadata::default(), body: Vec::new() };
        Self { nodes: vec![root], names: BTreeMap::new(), written: 0 }
    }
}

impl crate::entry::BodySink for Vec<u8> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), ImageError> {
        self.resize(self.len() + length as usize, 0);
        Ok(())
    }
}

impl Tree {
    fn put(&mut self, parent: usize, name: &[u8], node: Node) -> usize {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        assert!(self.nodes[parent].kind == Kind::Directory);
        assert!(self.names.insert((parent, name.to_vec()), number).is_none(), "a name twice");
        number
    }

    pub fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        let mut first = BTreeMap::new();
        self.list(0, String::new(), &mut listing, &mut first);
        listing
    }

    fn list(&self, at: usize, path: String, listing: &mut Listing, first: &mut BTreeMap<usize, String>) {
        let node = &self.nodes[at];
        let same = first.entry(at).or_insert_with(|| path.clone()).clone();
        listing.insert(path.clone(), (node.kind.clone(), node.metadata.clone(), node.body.clone(), same));
        for ((_, name), child) in self.names.range((at, vec![])..(at + 1, vec![])) {
            self.list(*child, format!("{path}/{}", String::from_utf8_lossy(name)), listing, first);
        }
    }
}

impl Sink for Tree {
    type Node = usize;

    fn root(&self) -> usize {
        0
    }

    fn lookup(&self, directory: usize, name: &[u8]) -> Option<usize> {
        self.names.get(&(directory, name.to_vec())).copied()
    }

    fn is_directory(&self, node: usize) -> bool {
        self.nodes[node].kind == Kind::Directory
    }

    fn add_directory(&mut self, parent: usize, name: &[u8], metadata: Metadata) -> Result<usize, ImageError> {
        Ok(self.put(parent, name, Node { kind: Kind::Directory, metadata, body: Vec::new() }))
    }

    fn add(
        &mut self,
        parent: usize,
        name: &[u8],
        metadata: Metadata,
        leaf: &Leaf,
        entries: &mut dyn Entries,
    ) -> Result<usize, ImageError> {
        let mut body = Vec::new();
        if *leaf == Leaf::File {
            entries.copy_body(&mut body)?;
        }
        self.written += body.len();
        Ok(self.put(parent, name, Node { kind: Kind::Leaf(leaf.clone()), metadata, body }))
    }

    fn link(&mut self, parent: usize, name: &[u8], node: usize) -> Result<(), ImageError> {
        assert!(self.nodes[node].kind != Kind::Directory);
        assert!(self.names.insert((parent, name.to_vec()), node).is_none(), "a name twice");
        Ok(())
    }

    fn unlink(&mut self, parent: usize, name: &[u8]) -> Result<(), ImageError> {
        let node = self.names.remove(&(parent, name.to_vec())).expect("only what is there is removed");
        assert!(self.nodes[node].kind != Kind::Directory);
        Ok(())
    }

    fn set_metadata(&mut self, directory: usize, metadata: Metadata) -> Result<(), ImageError> {
        self.nodes[directory].metadata = metadata;
        Ok(())
    }
}

/// Merges newest first; `layers` are oldest first. Also tells how many layers were read twice.
pub(super) fn merged(layers: &[Layer]) -> Result<(Tree, usize), ImageError> {
    let mut merger = Merger::new(Tree::default(), Limits::default());
    let mut again = 0;
    for layer in layers.iter().rev() {
        if merger.layer(&mut layer.reader())? {
            merger.again(&mut layer.reader())?;
            again += 1;
        }
    }
    Ok((merger.finish()?, again))
}

/// The naive way. Paths to nodes; a node is a number, so that hard links show.
#[derive(Debug, Clone)]
pub(super) struct Naive {
    names: BTreeMap<Path, usize>,
    nodes: Vec<Node>,
}

impl Default for Naive {
    fn default() -> Self {
        let root = Node { kind: Kind::Directory, metadata: Metadata::default(), body: Vec::new() };
        Self { names: BTreeMap::from([(Vec::new(), 0)]), nodes: vec![root] }
    }
}

impl Naive {
    pub fn apply(layers: &[Layer]) -> Result<Listing, ImageError> {
        let mut tree = Self::default();
        for layer in layers {
            tree.layer(layer)?;
        }
        let mut listing = Listing::new();
        let mut first = BTreeMap::new();
        // In the order of a walk: a folder before its content, siblings by name.
        let mut paths: Vec<&Path> = tree.names.keys().collect();
        paths.sort_by_key(|path| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>());
        for path in paths {
            let number = tree.names[path];
            let node = &tree.nodes[number];
            let text = match path.as_slice() {
                b"" => String::new(),
                path => format!("/{}", String::from_utf8_lossy(path)),
            };
            let same = first.entry(number).or_insert_with(|| text.clone()).clone();
            listing.insert(text, (node.kind.clone(), node.metadata.clone(), node.body.clone(), same));
        }
        Ok(listing)
    }

    fn remove(&mut self, path: &[u8], itself: bool) {
        let below = match path {
            b"" => Vec::new(),
            path => [path, b"/"].concat(),
        };
        self.names.retain(|p, _| {
            let is_below = p.starts_with(&below) && p != path;
            !(is_below || itself && p == path && !p.is_empty())
        });
    }

    /// What a layer does to a tree: its whiteouts first, because they are about lower layers only, then its entries
    /// in order. `own` is what the layer itself has made so far.
    fn layer(&mut self, layer: &Layer) -> Result<(), ImageError> {
        let lower = self.clone();
        let limits = Limits::default();
        let mut own: BTreeMap<Path, usize> = BTreeMap::new();
        let mut links: HashMap<Path, Path> = HashMap::new();
        // Whiteouts need the layer's links for their folders, which are known only in order: two rounds.
        for whiteouts in [true, false] {
            links.clear();
            for (entry, body) in &layer.0 {
                let path = path::follow(&path::normal(&entry.path, &limits)?, &links, &limits)?;
                if path.split(|b| *b == b'/').any(|p| p.starts_with(AUFS) && p != OPAQUE) {
                    continue;
                }
                let (parent, name) = path::split(&path);
                if name.starts_with(WHITEOUT) {
                    match name {
                        _ if !whiteouts => {}
                        OPAQUE => self.remove(parent, false),
                        name => self.remove(&join(parent, &name[WHITEOUT.len()..]), true),
                    }
                    continue;
                }
                match &entry.kind {
                    Kind::Leaf(Leaf::Symlink(target)) => {
                        links.insert(path.clone(), target.clone());
                    }
                    Kind::HardLink(target) => {
                        let target = path::follow(&path::normal(target, &limits)?, &links, &limits)?;
                        match links.get(&target).cloned() {
                            Some(followed) => links.insert(path.clone(), followed),
                            None => links.remove(&path),
                        };
                    }
                    _ => {
                        links.remove(&path);
                    }
                }
                if !whiteouts {
                    self.put(&lower, &mut own, &path, entry, body, &links)?;
                }
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        lower: &Naive,
        own: &mut BTreeMap<Path, usize>,
        path: &[u8],
        entry: &Entry,
        body: &[u8],
        links: &HashMap<Path, Path>,
    ) -> Result<(), ImageError> {
        let limits = Limits::default();
        let is_directory = |tree: &Self, node: usize| tree.nodes[node].kind == Kind::Directory;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(refused(path, "root"));
            }
            self.nodes.push(Node {
                kind: Kind::Directory,
                metadata: entry.metadata.clone(),
                body: Vec::new(),
            });
            self.names.insert(Vec::new(), self.nodes.len() - 1);
            return Ok(());
        }
        for folder in path::ancestors(path) {
            match (self.names.get(folder).copied(), own.get(folder)) {
                (Some(node), _) if is_directory(self, node) => {
                    own.insert(folder.to_vec(), node);
                }
                (_, Some(_)) => return Err(refused(path, "below a file of its layer")),
                _ => {
                    self.remove(folder, true);
                    self.nodes.push(Node {
                        kind: Kind::Directory,
                        metadata: Metadata::default(),
                        body: Vec::new(),
                    });
                    self.names.insert(folder.to_vec(), self.nodes.len() - 1);
                    own.insert(folder.to_vec(), self.nodes.len() - 1);
                }
            }
        }
        let number = match &entry.kind {
            Kind::HardLink(target) => {
                let target = path::follow(&path::normal(target, &limits)?, links, &limits)?;
                if target == path {
                    return Err(refused(path, "itself"));
                }
                // What the layer has, or what was below the layer before its whiteouts.
                let node = own.get(&target).or(lower.names.get(&target)).copied();
                match node.filter(|node| !is_directory(self, *node)) {
                    Some(node) => node,
                    None => return Err(missing(path)),
                }
            }
            kind => {
                let (kind, metadata, body) = (kind.clone(), entry.metadata.clone(), body.to_vec());
                self.nodes.push(Node { kind, metadata, body });
                self.nodes.len() - 1
            }
        };
        let was_directory = self.names.get(path).is_some_and(|node| is_directory(self, *node));
        match (entry.kind == Kind::Directory, was_directory) {
            (true, true) => {}
            (false, true) if own.contains_key(path) => {
                return Err(refused(path, "over a directory of its layer"));
            }
            _ => self.remove(path, true),
        }
        self.names.insert(path.to_vec(), number);
        own.insert(path.to_vec(), number);
        Ok(())
    }
}
