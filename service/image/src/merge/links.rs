//! Hard links, whose target may be in a lower layer, and may be hidden.

use super::{
    Merger, Occupant, Seen, Sink,
    claims::{Claim, Of},
    path, refused,
};
use crate::{
    ImageError,
    entry::{Entries, Kind},
};

impl<S: Sink> Merger<S> {
    /// Fetches the entries of the current layer that newer layers hide and hard links want.
    pub(crate) fn again(&mut self, entries: &mut dyn Entries) -> Result<(), ImageError> {
        let mut wanted = self.claims.take_wanted();
        let mut ordinal = 0;
        while !wanted.is_empty() {
            let Some(entry) = entries.next()? else { break };
            ordinal += 1;
            let (Some(links), Kind::Leaf(leaf)) = (wanted.remove(&ordinal), &entry.kind) else { continue };
            let mut node = None;
            for (directory, path) in links {
                let name = path::split(&path).1;
                match node {
                    Some(node) => self.sink.link(directory, name, node)?,
                    None => {
                        node = Some(self.sink.add(directory, name, entry.metadata.clone(), leaf, entries)?)
                    }
                }
            }
        }
        self.next_layer();
        Ok(())
    }

    /// An entry that is a hard link.
    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), ImageError> {
        let target = path::follow(&path::normal(target, &self.limits)?, &self.links, &self.limits)?;
        if target == path {
            return Err(refused(path, "it is a hard link to itself"));
        }
        let parent = self.parent(path::split(path).0)?;
        let of = match self.find(&target)? {
            Some(seen) => seen,
            None => Seen::Lower(target.clone()),
        };
        match self.place(parent, path)? {
            Some((parent, occupant)) => {
                // A second header for a link that is there already changes nothing.
                if !matches!((&occupant, &of), (Occupant::Mine(a), Seen::Node(b)) if a == b) {
                    self.give_way(occupant, parent, path)?;
                    self.link(parent, path, of)?;
                }
                self.seen.remove(path);
            }
            None => {
                self.seen.insert(path.to_vec(), of);
            }
        }
        // A link to a symbolic link is one.
        match self.links.get(&target).cloned() {
            Some(followed) => self.links.insert(path.to_vec(), followed),
            None => self.links.remove(path),
        };
        Ok(())
    }

    fn link(&mut self, parent: S::Node, path: &[u8], of: Seen<S::Node>) -> Result<(), ImageError> {
        let of = match of {
            Seen::Node(node) => return self.sink.link(parent, path::split(path).1, node),
            Seen::Hidden(ordinal) => Of::Entry(ordinal),
            Seen::Lower(target) => Of::Lower(target),
        };
        self.claims.insert(path.to_vec(), Claim { age: self.age, directory: parent, of });
        Ok(())
    }

    /// What the current layer has at `path`, for a hard link; `None` when it has nothing.
    fn find(&self, path: &[u8]) -> Result<Option<Seen<S::Node>>, ImageError> {
        if let Some(seen) = self.seen.get(path) {
            return Ok(Some(seen.clone()));
        }
        if let Some(claim) = self.claims.get(path)
            && claim.age == self.age
        {
            return Ok(Some(match &claim.of {
                Of::Entry(ordinal) => Seen::Hidden(*ordinal),
                Of::Lower(target) => Seen::Lower(target.clone()),
            }));
        }
        match self.visible(path) {
            Some(node) if self.sink.is_directory(node) => {
                match self.directories.get(&node).is_some_and(|d| d.used == self.age) {
                    true => Err(refused(path, "a hard link leads to it, and it is a directory")),
                    false => Ok(None),
                }
            }
            Some(node) if self.mine.contains(&node) => Ok(Some(Seen::Node(node))),
            _ => Ok(None),
        }
    }

    fn visible(&self, path: &[u8]) -> Option<S::Node> {
        path.split(|b| *b == b'/').try_fold(self.sink.root(), |node, name| {
            match self.sink.is_directory(node) {
                true => self.sink.lookup(node, name),
                false => None,
            }
        })
    }

    /// Ends a layer: hard links of newer layers find their targets in it, or learn that they have to look deeper.
    pub(super) fn settle(&mut self) -> Result<(), ImageError> {
        for (path, target) in self.claims.of_newer_than(self.age) {
            match self.find(&target)? {
                Some(Seen::Node(node)) => {
                    if let Some(claim) = self.claims.remove(&path) {
                        self.sink.link(claim.directory, path::split(&path).1, node)?;
                    }
                }
                Some(Seen::Hidden(ordinal)) => self.claims.redirect(&path, Of::Entry(ordinal)),
                Some(Seen::Lower(deeper)) => self.claims.redirect(&path, Of::Lower(deeper)),
                None => {
                    let covered = path::ancestors(&target).any(|folder| {
                        self.erased.contains(folder)
                            || self.emptied.contains(folder)
                            || matches!(self.find(folder), Ok(Some(_)))
                    });
                    if covered || self.erased.contains(&target) || self.emptied.contains(b"" as &[u8]) {
                        return Err(missing(&path));
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn missing(path: &[u8]) -> ImageError {
    refused(path, "it is a hard link to a file that is not there")
}
