//! Writes the inode tables, as far as they are in use.

use crate::extent::{self, Root, Run};
use crate::finish::Placed;
use crate::groups::Groups;
use crate::inode::{EXTENTS_FLAG, INDEX_FLAG, Inode, JOURNAL, RESIZE, ROOT, device_map, disk_time};
use crate::layout::{BLOCK, BLOCK_BYTES, INODE_BYTES, INODES_PER_BLOCK};
use crate::plan::Plan;
use crate::tree::{Body, LOST_NODE, MOST_LINKS, Node, ROOT_NODE, Tree};
use crate::writer::Writer;
use crate::xattr::{INLINE, MOST_SHARERS, encode_inline};
use crate::{Ext4Error, NodeKind, journal};
use std::io::{Seek, Write};

/// An inode that is no node of the tree.
pub(crate) struct Reserved {
    pub size: u64,
    pub blocks: u64,
    pub map: [u8; 60],
    pub flags: u32,
}

/// The journal's inode.
pub(crate) fn journal_inode(plan: &Plan, map: Root, tree_blocks: u32) -> Reserved {
    let blocks = u64::from(journal::size(plan.blocks));
    Reserved { size: blocks * BLOCK_BYTES, blocks: blocks + u64::from(tree_blocks), map, flags: EXTENTS_FLAG }
}

/// Writes all inodes in use and counts them; `reserved` are the resize inode and the journal.
pub(crate) fn write<W: Write + Seek>(
    writer: &mut Writer<W>,
    plan: &Plan,
    placed: &Placed,
    groups: &mut Groups,
    [resize, journal]: [Reserved; 2],
    seed: u32,
) -> Result<(), Ext4Error> {
    let tree = &writer.tree;
    let epoch = disk_time(writer.options.epoch);
    let mut nodes = Nodes::new(tree, placed, epoch);
    let last = Tree::inode_number(tree.nodes.len() as u32 - 1);
    let mut block = [0; BLOCK];
    for number in 1..=last {
        let index = (number - 1) % plan.inodes_per_group;
        let slot = (index % INODES_PER_BLOCK * INODE_BYTES) as usize;
        if let Some(bytes) = block[slot..].first_chunk_mut() {
            let (used, directory) = match number {
                RESIZE => nodes.reserved(&resize, number, seed, bytes),
                JOURNAL => nodes.reserved(&journal, number, seed, bytes),
                ROOT => nodes.node(ROOT_NODE, seed, bytes),
                1..=10 => (true, false),
                _ => nodes.node(number - Tree::inode_number(LOST_NODE) + LOST_NODE, seed, bytes),
            };
            groups.count_inode(number, used, directory);
        }
        let full = (index + 1).is_multiple_of(INODES_PER_BLOCK);
        if full || number == last {
            let table = plan.tables[((number - 1) / plan.inodes_per_group) as usize].inode_table;
            writer.stream.write(u64::from(table + index / INODES_PER_BLOCK), &block)?;
            block.fill(0);
        }
    }
    Ok(())
}

/// Encodes inodes in rising order.
struct Nodes<'a> {
    tree: &'a Tree,
    placed: &'a Placed,
    created: (u32, u32),
    trees: std::slice::Iter<'a, (u32, Root, u32)>,
    next_tree: Option<&'a (u32, Root, u32)>,
    /// Inodes seen of each set of attributes: the blocks are shared out in order.
    sharers: Vec<u32>,
    /// The last set that was encoded, and its bytes: neighbours often have the same.
    inline: (u32, [u8; INLINE]),
}

impl<'a> Nodes<'a> {
    fn new(tree: &'a Tree, placed: &'a Placed, created: (u32, u32)) -> Self {
        let mut trees = placed.trees.iter();
        let next_tree = trees.next();
        let sharers = vec![0; tree.sets.len()];
        Self { tree, placed, created, trees, next_tree, sharers, inline: (0, [0; INLINE]) }
    }

    fn reserved(
        &self,
        inode: &Reserved,
        number: u32,
        seed: u32,
        bytes: &mut [u8; INODE_BYTES as usize],
    ) -> (bool, bool) {
        let encoded = Inode {
            mode: NodeKind::File.mode_bits() | 0o600,
            uid: 0,
            gid: 0,
            size: inode.size,
            links: 1,
            blocks: inode.blocks,
            flags: inode.flags,
            map: inode.map,
            time: self.created,
            created: self.created,
            xattr_block: 0,
            xattrs: &[0; INLINE],
        };
        encoded.encode(number, seed, bytes);
        (true, false)
    }

    /// Whether the place is taken, and by a directory.
    fn node(&mut self, place: u32, seed: u32, bytes: &mut [u8; INODE_BYTES as usize]) -> (bool, bool) {
        let node = &self.tree.nodes[place as usize];
        if node.links == 0 {
            return (false, false);
        }
        let kind = node.kind();
        let xattr_block = self.xattrs(node.xattrs);
        let (map, flags, blocks) = self.map(place, node, kind);
        let many = kind == NodeKind::Directory && node.links > MOST_LINKS;
        let inode = Inode {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: node.size,
            links: if many { 1 } else { node.links },
            blocks: blocks + u64::from(xattr_block != 0),
            flags,
            map,
            time: node.time,
            created: self.created,
            xattr_block,
            xattrs: &self.inline.1,
        };
        inode.encode(Tree::inode_number(place), seed, bytes);
        (true, kind == NodeKind::Directory)
    }

    /// `i_block`, flags and the number of blocks.
    fn map(&mut self, place: u32, node: &Node, kind: NodeKind) -> ([u8; 60], u32, u64) {
        match node.body {
            Body::Device { major, minor } => return (device_map(major, minor), 0, 0),
            Body::Text { at } => {
                let text = self.tree.text(at, node.size);
                let mut map = [0; 60];
                map[..text.len()].copy_from_slice(text);
                return (map, 0, 0);
            }
            _ if matches!(kind, NodeKind::Fifo | NodeKind::Socket) => return ([0; 60], 0, 0),
            _ => {}
        }
        let mut single = [Run { logical: 0, start: 0, count: 0 }];
        let runs = self.tree.runs_of(node, &mut single);
        let blocks: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        // Only our own lost+found has blocks and no index.
        let indexed = kind == NodeKind::Directory && blocks > 1 && place != LOST_NODE;
        let flags = EXTENTS_FLAG | if indexed { INDEX_FLAG } else { 0 };
        match self.next_tree {
            Some((with_tree, root, tree_blocks)) if *with_tree == place => {
                self.next_tree = self.trees.next();
                (*root, flags, blocks + u64::from(*tree_blocks))
            }
            _ => (extent::flat_root(runs), flags, blocks),
        }
    }

    /// Prepares the attributes of a set, and returns the block with those that do not fit.
    fn xattrs(&mut self, set: u32) -> u32 {
        if self.inline.0 != set {
            self.inline = (set, [0; INLINE]);
        }
        let Some(place) = set.checked_sub(1).map(|place| place as usize) else { return 0 };
        let packed = &self.tree.sets[place];
        if self.inline.1 == [0; INLINE] {
            encode_inline(self.tree.set(packed), &mut self.inline.1);
        }
        if !packed.has_block {
            return 0;
        }
        let turn = self.sharers[place] / MOST_SHARERS;
        self.sharers[place] += 1;
        self.placed.set_blocks[(self.placed.set_starts[place] + turn) as usize]
    }
}
