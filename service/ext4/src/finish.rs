//! Ends the image: everything that is not data, in the order in which it lies on disk as far as possible.

use crate::bitmap::Usage;
use crate::content::append;
use crate::crc32c::crc32c;
use crate::directory::{Directory, Entry};
use crate::extent::{self, Root, Run};
use crate::groups::Groups;
use crate::inode::{JOURNAL, ROOT, disk_time, inode_seed};
use crate::layout::{BLOCK, BLOCK_BYTES, INODES_PER_BLOCK, Space};
use crate::plan::{Plan, plan};
use crate::stream::Stream;
use crate::superblock::{Superblock, hash_seed};
use crate::tree::{Body, LOST_NODE, Tree};
use crate::writer::Writer;
use crate::xattr::{MOST_SHARERS, encode_block};
use crate::{Ext4Error, Size, Summary, journal, resize, tables};
use std::io::{Seek, Write};

/// Blocks that lost+found has from the start: 16 KiB, as mke2fs makes it.
const LOST_BLOCKS: u32 = 4;

/// What was placed and is needed again when the inodes are written.
pub(crate) struct Placed {
    /// Extents of files that need a tree, by rising node: what stands in the inode, and the tree's blocks.
    pub trees: Vec<(u32, Root, u32)>,
    /// For each set of attributes the place in `set_blocks` of its first block.
    pub set_starts: Vec<u32>,
    /// Blocks of attributes; each is shared by up to 1,024 inodes in order.
    pub set_blocks: Vec<u32>,
    /// The block that lists the reserved descriptor blocks.
    pub resize: u32,
    /// Blocks in use that no runs of a node tell of.
    others: Vec<Run>,
}

/// See [`Writer::finish`].
pub(crate) fn finish<W: Write + Seek>(mut writer: Writer<W>, size: Size) -> Result<Summary, Ext4Error> {
    let epoch = disk_time(writer.options.epoch);
    writer.tree.add_lost_and_found(epoch)?;
    let uuid = writer.options.effective_uuid();
    let seed = crc32c(!0, &uuid);
    let hash_seed = hash_seed(uuid);

    write_directories(&mut writer, seed, hash_seed)?;
    let placed = place_rest(&mut writer, seed)?;
    let inodes = Tree::inode_number(writer.tree.nodes.len() as u32 - 1);
    let plan = plan(size, inodes, writer.reservation, &writer.space)?;
    let usage = usage(&writer.tree, &placed, &plan);

    let journal_root = write_journal(&mut writer, &plan, uuid, seed)?;
    let mut groups = Groups::new(&plan);
    let reserved = [
        resize::inode(&plan, placed.resize),
        tables::journal_inode(&plan, journal_root, u32::from(plan.journal_tree.is_some())),
    ];
    tables::write(&mut writer, &plan, &placed, &mut groups, reserved, seed)?;
    groups.write_bitmaps(&mut writer.stream, &plan, &usage, seed)?;

    let superblock = Superblock {
        options: &writer.options,
        uuid,
        hash_seed,
        blocks: plan.blocks,
        free_blocks: groups.free_blocks(),
        inodes: plan.inodes_per_group * plan.groups,
        free_inodes: groups.free_inodes(),
        inodes_per_group: plan.inodes_per_group,
        reserved_descriptor_blocks: plan.heads.reserved,
        journal_map: journal_root,
        journal_bytes: u64::from(journal::size(plan.blocks)) * BLOCK_BYTES,
    };
    let summary = Summary {
        size: plan.blocks * BLOCK_BYTES,
        content: writer.content_bytes(),
        blocks_used: superblock.blocks - superblock.free_blocks,
        inodes_used: u64::from(superblock.inodes - superblock.free_inodes),
    };
    groups.write_heads(&mut writer.stream, &plan, &superblock, seed)?;
    resize::write(&mut writer.stream, &plan, placed.resize)?;
    writer.stream.finish(summary.size)?;
    Ok(summary)
}

/// Writes the blocks of all directories and notes in their nodes where they are.
fn write_directories<W: Write + Seek>(
    writer: &mut Writer<W>,
    seed: u32,
    hash_seed: [u32; 4],
) -> Result<(), Ext4Error> {
    let children = writer.tree.children();
    let mut runs = Vec::new();
    for number in 0..writer.tree.nodes.len() as u32 {
        let tree = &writer.tree;
        let node = &tree.nodes[number as usize];
        let (Body::Children { parent }, 1..) = (node.body, node.links) else { continue };
        let inode = Tree::inode_number(number);
        let directory = Directory {
            inode,
            parent: if inode == ROOT { ROOT } else { Tree::inode_number(parent) },
            seed: inode_seed(seed, inode),
            hash_seed,
            least_blocks: if number == LOST_NODE { LOST_BLOCKS } else { 1 },
        };
        let entry = |place: &u32| {
            let name = &tree.names[*place as usize];
            Entry {
                name: tree.name(name),
                inode: Tree::inode_number(name.node),
                kind: tree.nodes[name.node as usize].kind(),
            }
        };
        let entries: Vec<Entry> = children.of(number).iter().map(entry).collect();
        runs.clear();
        let mut blocks = 0;
        directory.write(&entries, |block| {
            append(&mut writer.space, &mut writer.stream, &mut runs, blocks, block)?;
            blocks += 1;
            Ok(())
        })?;
        let body = writer.tree.put_runs(&runs)?;
        let node = &mut writer.tree.nodes[number as usize];
        (node.body, node.size) = (body, u64::from(blocks) * BLOCK_BYTES);
    }
    Ok(())
}

/// Places single blocks and notes that they are in use.
struct Singles<'a, W> {
    space: &'a mut Space,
    stream: &'a mut Stream<W>,
    taken: Vec<Run>,
}

impl<W: Write + Seek> Singles<'_, W> {
    /// A place for one more block.
    fn take(&mut self) -> Result<u32, Ext4Error> {
        let (start, count) = self.space.take(1)?;
        // They belong to no one file, but as if they did, neighbours become one run.
        let logical = self.taken.last().map_or(0, |last| last.logical + last.count);
        extent::push(&mut self.taken, Run { logical, start, count });
        Ok(start)
    }

    fn write(&mut self, place: u32, block: &[u8; BLOCK]) -> Result<(), Ext4Error> {
        Ok(self.stream.write(place.into(), block)?)
    }
}

/// Writes extent trees and blocks of attributes, and finds a place for the list of reserved blocks.
fn place_rest<W: Write + Seek>(writer: &mut Writer<W>, seed: u32) -> Result<Placed, Ext4Error> {
    let Writer { space, stream, tree, .. } = writer;
    let mut singles = Singles { space, stream, taken: Vec::new() };

    let mut trees = Vec::new();
    let mut users = vec![0; tree.sets.len()];
    for (number, node) in (0..).zip(&tree.nodes) {
        if let Some(set) = node.xattrs.checked_sub(1) {
            users[set as usize] += 1;
        }
        let mut single = [Run { logical: 0, start: 0, count: 0 }];
        let runs = tree.runs_of(node, &mut single);
        if extent::needs_tree(runs) {
            let mut blocks = 0;
            let root = extent::tree(runs, inode_seed(seed, Tree::inode_number(number)), |block| {
                blocks += 1;
                let place = singles.take()?;
                singles.write(place, block).map(|()| place)
            })?;
            trees.push((number, root, blocks));
        }
    }

    let (mut set_starts, mut set_blocks) = (Vec::with_capacity(users.len()), Vec::new());
    for (set, users) in tree.sets.iter().zip(users) {
        set_starts.push(set_blocks.len() as u32);
        for from in (0..if set.has_block { users } else { 0 }).step_by(MOST_SHARERS as usize) {
            let place = singles.take()?;
            let sharers = MOST_SHARERS.min(users - from);
            singles.write(place, &encode_block(tree.set(set), sharers, place, seed))?;
            set_blocks.push(place);
        }
    }
    let resize = singles.take()?;
    Ok(Placed { trees, set_starts, set_blocks, resize, others: singles.taken })
}

/// Every block in use but the heads of groups. Data that belongs to no file is free.
fn usage(tree: &Tree, placed: &Placed, plan: &Plan) -> Usage {
    let mut usage = Usage::new(plan.groups);
    for node in tree.nodes.iter().filter(|node| node.links > 0) {
        let mut single = [Run { logical: 0, start: 0, count: 0 }];
        for run in tree.runs_of(node, &mut single) {
            usage.mark(run.start, run.count);
        }
    }
    for run in placed.others.iter().chain(&plan.journal) {
        usage.mark(run.start, run.count);
    }
    for tables in &plan.tables {
        usage.mark(tables.block_bitmap, 1);
        usage.mark(tables.inode_bitmap, 1);
        usage.mark(tables.inode_table, plan.inodes_per_group / INODES_PER_BLOCK);
    }
    if let Some(block) = plan.journal_tree {
        usage.mark(block, 1);
    }
    usage
}

/// Writes what of the journal is not zero, and returns what stands in its inode.
fn write_journal<W: Write + Seek>(
    writer: &mut Writer<W>,
    plan: &Plan,
    uuid: [u8; 16],
    seed: u32,
) -> Result<Root, Ext4Error> {
    let stream = &mut writer.stream;
    let blocks = journal::size(plan.blocks);
    if let Some(first) = plan.journal.first() {
        stream.write(first.start.into(), &journal::superblock(blocks, uuid))?;
    }
    match plan.journal_tree {
        None => Ok(extent::flat_root(&plan.journal)),
        Some(place) => extent::tree(&plan.journal, inode_seed(seed, JOURNAL), |block| {
            stream.write(place.into(), block)?;
            Ok(place)
        }),
    }
}
