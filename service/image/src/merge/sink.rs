//! Where merged entries go: the ext4 writer, or memory in tests.

use crate::{
    ImageError,
    entry::{Entries, Leaf},
};
use banger_ext4::Metadata;
use std::{fmt::Debug, hash::Hash};

/// A tree that only grows, but for names that one layer gives twice.
pub(crate) trait Sink {
    /// A node of the tree.
    type Node: Copy + Eq + Hash + Debug;

    /// The root directory.
    fn root(&self) -> Self::Node;

    /// The node of that name.
    fn lookup(&self, directory: Self::Node, name: &[u8]) -> Option<Self::Node>;

    /// Whether a node is a directory.
    fn is_directory(&self, node: Self::Node) -> bool;

    /// Adds a directory.
    fn add_directory(
        &mut self,
        parent: Self::Node,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<Self::Node, ImageError>;

    /// Adds anything else; a file's content is the current body of `entries`.
    fn add(
        &mut self,
        parent: Self::Node,
        name: &[u8],
        metadata: Metadata,
        leaf: &Leaf,
        entries: &mut dyn Entries,
    ) -> Result<Self::Node, ImageError>;

    /// Gives a node that is no directory one more name.
    fn link(&mut self, parent: Self::Node, name: &[u8], node: Self::Node) -> Result<(), ImageError>;

    /// Takes a name away from a node that is no directory.
    fn unlink(&mut self, parent: Self::Node, name: &[u8]) -> Result<(), ImageError>;

    /// Replaces a directory's metadata.
    fn set_metadata(&mut self, directory: Self::Node, metadata: Metadata) -> Result<(), ImageError>;
}
