//! Hard links whose target has yet to come.

use super::{Age, Path};
use std::collections::BTreeMap;

/// A name that is taken by a hard link before its target is known.
#[derive(Debug, Clone)]
pub(super) struct Claim<N> {
    /// The layer of the link.
    pub age: Age,
    /// The folder of the link.
    pub directory: N,
    pub of: Of,
}

/// What a hard link waits for.
#[derive(Debug, Clone)]
pub(super) enum Of {
    /// The entry of this number in the current layer, which newer layers hide.
    Entry(u64),
    /// What lower layers have at this path.
    Lower(Path),
}

/// All of them, in the order of their paths, so that the same layers always give the same image.
#[derive(Debug)]
pub(super) struct Claims<N>(BTreeMap<Path, Claim<N>>);

impl<N> Default for Claims<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<N> Claims<N> {
    pub fn insert(&mut self, path: Path, claim: Claim<N>) {
        self.0.insert(path, claim);
    }

    pub fn get(&self, path: &[u8]) -> Option<&Claim<N>> {
        self.0.get(path)
    }

    pub fn age(&self, path: &[u8]) -> Option<Age> {
        self.0.get(path).map(|claim| claim.age)
    }

    pub fn remove(&mut self, path: &[u8]) -> Option<Claim<N>> {
        self.0.remove(path)
    }

    pub fn redirect(&mut self, path: &[u8], of: Of) {
        if let Some(claim) = self.0.get_mut(path) {
            claim.of = of;
        }
    }

    pub fn first(&self) -> Option<(&Path, &Claim<N>)> {
        self.0.first_key_value()
    }

    /// Whether any waits for an entry of the current layer.
    pub fn wanted(&self) -> bool {
        self.0.values().any(|claim| matches!(claim.of, Of::Entry(_)))
    }

    /// Takes out those that wait for entries of the current layer: by the entry's number, folder and path of each.
    pub fn take_wanted(&mut self) -> BTreeMap<u64, Vec<(N, Path)>> {
        let mut wanted: BTreeMap<u64, Vec<(N, Path)>> = BTreeMap::new();
        for (path, claim) in std::mem::take(&mut self.0) {
            match claim.of {
                Of::Entry(number) => wanted.entry(number).or_default().push((claim.directory, path)),
                Of::Lower(_) => {
                    self.0.insert(path, claim);
                }
            }
        }
        wanted
    }

    /// Links of layers newer than `age`, with the paths in lower layers that they wait for.
    pub fn of_newer_than(&self, age: Age) -> Vec<(Path, Path)> {
        let waiting = self.0.iter().filter(|(_, claim)| claim.age < age);
        waiting
            .filter_map(|(path, claim)| match &claim.of {
                Of::Lower(target) => Some((path.clone(), target.clone())),
                Of::Entry(_) => None,
            })
            .collect()
    }
}
