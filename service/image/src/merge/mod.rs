//! Merges layers newest first, so that what a newer layer hides is never written.
//!
//! The result is that of applying the layers oldest first (OCI image specification, layer.md, "Applying Changesets"),
//! each with overlayfs semantics, as containerd, Docker and podman unpack them:
//!
//! - A whiteout hides what *lower* layers have at its path, wherever it stands in its own layer; an opaque whiteout
//!   hides what they have inside its folder. A whiteout makes no folders.
//! - A directory over a directory keeps the children and takes the newer entry's metadata; anything else replaces
//!   what was there with all that was below it.
//! - A folder that no entry mentions is 0755, owned by root, of 1970.
//! - A folder of a newer layer replaces a file or symbolic link of a lower one; the link is not followed, because
//!   each layer stands for itself. A link in the *same* layer is followed, inside the image; an entry below
//!   any other non-directory of its layer is refused.
//! - When one layer has a path twice, the later entry wins; only a directory cannot become something else.
//! - A hard link means what its layer has at the target by then or, failing that, what lower layers have there,
//!   even where this layer whites it out. So its content may be hidden and still be wanted: those few are fetched by
//!   reading that layer once more.
//! - Names that start with `.wh..wh.` are AUFS's own and left out, as Docker does.
//!
//! Nothing here knows about archives or ext4: entries come from [`Entries`], and go to a [`Sink`].

mod claims;
mod links;
mod path;
mod sink;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use crate::{
    ImageError, Limits, Unsafe,
    entry::{Entries, Entry, Kind, Leaf},
    error::shorten,
};
use banger_ext4::Metadata;
use claims::Claims;
use links::missing;
pub(crate) use sink::Sink;
use std::collections::{HashMap, HashSet};

/// A layer's number, counted from the newest, which is 0.
type Age = u16;
type Path = Vec<u8>;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
const NOT_A_FOLDER: &str = "its layer has files below it and yet has it as something else than a folder";

/// What hides lower layers at a path: the newest layer that does.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// The path and everything below it.
    all: Option<Age>,
    /// Only what is below it.
    below: Option<Age>,
}

/// What is known of a directory.
#[derive(Debug, Clone, Copy)]
struct Directory {
    /// The layer that gave its metadata, if one did.
    described: Option<Age>,
    /// The last layer that mentioned it or something in it.
    used: Age,
}

/// What the current layer had at a path, that cannot be told from the tree.
#[derive(Debug, Clone)]
enum Seen<N> {
    /// This entry, which newer layers hide.
    Hidden(u64),
    /// A hidden name of this node, which is visible under another.
    Node(N),
    /// A hidden hard link to what lower layers have at this path.
    Lower(Path),
}

/// What a path means in the tree so far.
enum Occupant<N> {
    /// Nothing: the entry may have it.
    Free,
    /// A directory.
    Directory(N),
    /// Something else, of this layer.
    Mine(N),
    /// A hard link of this layer whose target has yet to come.
    Claim,
    /// Something of a newer layer, or a whiteout of one.
    Taken,
}

/// The merge of one image.
pub(crate) struct Merger<S: Sink> {
    sink: S,
    limits: Limits,
    age: Age,
    /// Entries of all layers so far.
    entries: u64,
    marks: HashMap<Path, Mark>,
    directories: HashMap<S::Node, Directory>,
    claims: Claims<S::Node>,

    // Of the current layer only.
    ordinal: u64,
    mine: HashSet<S::Node>,
    seen: HashMap<Path, Seen<S::Node>>,
    links: HashMap<Path, Path>,
    erased: HashSet<Path>,
    emptied: HashSet<Path>,
    /// The last parent, so that the entries of one folder do not each walk to it.
    parent: Option<(Path, S::Node)>,
}

impl<S: Sink> Merger<S> {
    pub(crate) fn new(sink: S, limits: Limits) -> Self {
        let root = Directory { described: None, used: 0 };
        Self {
            directories: HashMap::from([(sink.root(), root)]),
            sink,
            limits,
            age: 0,
            entries: 0,
            marks: HashMap::new(),
            claims: Claims::default(),
            ordinal: 0,
            mine: HashSet::new(),
            seen: HashMap::new(),
            links: HashMap::new(),
            erased: HashSet::new(),
            emptied: HashSet::new(),
            parent: None,
        }
    }

    /// Merges the next older layer. When this answers `true`, the same layer has to be given to
    /// [`Merger::again`] before the next one.
    pub(crate) fn layer(&mut self, entries: &mut dyn Entries) -> Result<bool, ImageError> {
        while let Some(entry) = entries.next()? {
            self.ordinal += 1;
            self.entries += 1;
            let (value, limit) = (self.entries, self.limits.entries);
            if value > limit {
                return Err(Unsafe::Limit { what: "the number of files in all layers", value, limit }.into());
            }
            self.entry(entry, entries)?;
        }
        self.settle()?;
        match self.claims.wanted() {
            true => Ok(true),
            false => {
                self.next_layer();
                Ok(false)
            }
        }
    }

    /// The tree, when the last layer is merged.
    pub(crate) fn finish(self) -> Result<S, ImageError> {
        match self.claims.first() {
            Some((path, _)) => Err(missing(path)),
            None => Ok(self.sink),
        }
    }

    fn next_layer(&mut self) {
        self.age += 1;
        self.ordinal = 0;
        self.mine.clear();
        self.seen.clear();
        self.links.clear();
        self.erased.clear();
        self.emptied.clear();
        self.parent = None;
    }

    fn entry(&mut self, entry: Entry, entries: &mut dyn Entries) -> Result<(), ImageError> {
        if entry.path.is_empty() {
            return Err(refused(b"", "it has no name"));
        }
        let path = path::normal(&entry.path, &self.limits)?;
        if path.split(|b| *b == b'/').any(|part| part.starts_with(AUFS) && part != OPAQUE) {
            return Ok(());
        }
        let path = path::follow(&path, &self.links, &self.limits)?;
        let (parent, name) = path::split(&path);
        if path::ancestors(&path).any(|folder| path::split(folder).1.starts_with(WHITEOUT)) {
            return Err(refused(&path, "it lies below a whiteout"));
        }
        if name == OPAQUE {
            self.marks.entry(parent.to_vec()).or_default().below.get_or_insert(self.age);
            self.emptied.insert(parent.to_vec());
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused(&path, "it is a whiteout of nothing"));
            }
            let hidden = join(parent, hidden);
            self.hide(&hidden);
            self.erased.insert(hidden);
            return Ok(());
        }
        match entry.kind {
            Kind::Directory => self.directory(&path, entry.metadata),
            _ if path.is_empty() => Err(refused(&entry.path, "the root must be a directory")),
            Kind::HardLink(target) => self.hard_link(&path, &target),
            Kind::Leaf(leaf) => self.leaf(&path, entry.metadata, leaf, entries),
        }
    }

    fn directory(&mut self, path: &[u8], metadata: Metadata) -> Result<(), ImageError> {
        let age = self.age;
        if path.is_empty() {
            let root = self.sink.root();
            return self.describe(root, metadata);
        }
        let (parent, name) = path::split(path);
        let parent = self.parent(parent)?;
        match parent.map(|parent| (parent, self.occupant(parent, path))) {
            None | Some((_, Occupant::Taken)) => {}
            Some((_, Occupant::Directory(node))) => self.describe(node, metadata)?,
            Some((parent, other)) => {
                if !matches!(other, Occupant::Free) {
                    // What this layer had here before had replaced what lower layers have.
                    self.hide(path);
                }
                self.give_way(other, parent, path)?;
                let node = self.sink.add_directory(parent, name, metadata)?;
                self.directories.insert(node, Directory { described: Some(age), used: age });
            }
        }
        self.seen.remove(path);
        self.links.remove(path);
        Ok(())
    }

    /// Gives a directory its metadata unless a newer layer has.
    fn describe(&mut self, node: S::Node, metadata: Metadata) -> Result<(), ImageError> {
        let age = self.age;
        let directory = self.directories.entry(node).or_insert(Directory { described: None, used: age });
        directory.used = age;
        if directory.described.is_some_and(|newer| newer < age) {
            return Ok(());
        }
        directory.described = Some(age);
        self.sink.set_metadata(node, metadata)
    }

    fn leaf(
        &mut self,
        path: &[u8],
        metadata: Metadata,
        leaf: Leaf,
        entries: &mut dyn Entries,
    ) -> Result<(), ImageError> {
        let parent = self.parent(path::split(path).0)?;
        match self.place(parent, path)? {
            Some((parent, occupant)) => {
                self.give_way(occupant, parent, path)?;
                let node = self.sink.add(parent, path::split(path).1, metadata, &leaf, entries)?;
                self.mine.insert(node);
                self.seen.remove(path);
            }
            None => {
                self.seen.insert(path.to_vec(), Seen::Hidden(self.ordinal));
            }
        }
        match leaf {
            Leaf::Symlink(target) => self.links.insert(path.to_vec(), target),
            _ => self.links.remove(path),
        };
        Ok(())
    }

    /// Where a non-directory goes, or `None` when newer layers hide it.
    #[allow(clippy::type_complexity)]
    fn place(
        &mut self,
        parent: Option<S::Node>,
        path: &[u8],
    ) -> Result<Option<(S::Node, Occupant<S::Node>)>, ImageError> {
        let Some(parent) = parent else { return Ok(None) };
        match self.occupant(parent, path) {
            Occupant::Taken => Ok(None),
            Occupant::Directory(node) => {
                if self.directories.get(&node).is_some_and(|d| d.used == self.age) {
                    return Err(refused(path, "it replaces a directory of its own layer"));
                }
                // The newer directory stays, and what lower layers have here is gone.
                self.hide(path);
                Ok(None)
            }
            occupant => Ok(Some((parent, occupant))),
        }
    }

    /// Hides what lower layers have at `path` and below it.
    fn hide(&mut self, path: &[u8]) {
        self.marks.entry(path.to_vec()).or_default().all.get_or_insert(self.age);
    }

    fn occupant(&self, parent: S::Node, path: &[u8]) -> Occupant<S::Node> {
        let (folder, name) = path::split(path);
        if !self.marks.is_empty() {
            let hides = |mark: Option<Age>| mark.is_some_and(|newer| newer < self.age);
            let all = self.marks.get(path).and_then(|mark| mark.all);
            let below = self.marks.get(folder).and_then(|mark| mark.below);
            if hides(all) || hides(below) {
                return Occupant::Taken;
            }
        }
        match self.sink.lookup(parent, name) {
            Some(node) if self.sink.is_directory(node) => Occupant::Directory(node),
            Some(node) if self.mine.contains(&node) => Occupant::Mine(node),
            Some(_) => Occupant::Taken,
            None => match self.claims.age(path) {
                Some(age) if age == self.age => Occupant::Claim,
                Some(_) => Occupant::Taken,
                None => Occupant::Free,
            },
        }
    }

    /// Removes what this layer had at `path` before.
    fn give_way(
        &mut self,
        occupant: Occupant<S::Node>,
        parent: S::Node,
        path: &[u8],
    ) -> Result<(), ImageError> {
        match occupant {
            Occupant::Mine(_) => self.sink.unlink(parent, path::split(path).1),
            Occupant::Claim => {
                self.claims.remove(path);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The folder at `path`, made where it is missing; `None` when newer layers hide it.
    fn parent(&mut self, path: &[u8]) -> Result<Option<S::Node>, ImageError> {
        if let Some((last, node)) = &self.parent
            && last == path
        {
            return Ok(Some(*node));
        }
        let mut node = self.sink.root();
        for folder in path::ancestors(path).chain((!path.is_empty()).then_some(path)) {
            if self.seen.contains_key(folder) {
                return Err(refused(folder, NOT_A_FOLDER));
            }
            node = match self.occupant(node, folder) {
                Occupant::Taken => return self.hidden_below(folder, path),
                Occupant::Mine(_) | Occupant::Claim => {
                    return Err(refused(folder, NOT_A_FOLDER));
                }
                Occupant::Directory(node) => node,
                Occupant::Free => {
                    self.sink.add_directory(node, path::split(folder).1, Metadata::default())?
                }
            };
            let unknown = Directory { described: None, used: self.age };
            self.directories.entry(node).or_insert(unknown).used = self.age;
        }
        self.parent = Some((path.to_vec(), node));
        Ok(Some(node))
    }

    /// Nothing can be told from the tree below `folder`; what this layer had there itself can.
    fn hidden_below(&self, folder: &[u8], path: &[u8]) -> Result<Option<S::Node>, ImageError> {
        let below = |other: &&[u8]| other.len() > folder.len();
        match path::ancestors(path).chain([path]).filter(below).find(|other| self.seen.contains_key(*other)) {
            Some(other) => Err(refused(other, NOT_A_FOLDER)),
            None => Ok(None),
        }
    }
}

fn join(parent: &[u8], name: &[u8]) -> Path {
    match parent {
        b"" => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}

fn refused(path: &[u8], why: &'static str) -> ImageError {
    Unsafe::Entry { name: shorten(path), why }.into()
}
