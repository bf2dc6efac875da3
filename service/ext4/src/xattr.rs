//! Extended attributes: in the space after the inode, and what does not fit there in one block.

use crate::crc32c::crc32c;
use crate::error::shown;
use crate::layout::BLOCK;
use crate::le::{put16, put32};
use crate::{Ext4Error, Xattr, acl};
use std::borrow::Cow;

const MAGIC: u32 = 0xea02_0000;
/// Bytes after the inode's own fields.
pub(crate) const INLINE: usize = 96;
/// Before the entries in an inode: the magic number.
const INLINE_HEADER: usize = 4;
/// Before the entries in a block.
const BLOCK_HEADER: usize = 32;
/// Four zero bytes stand between entries and values.
const END_MARK: usize = 4;
const INLINE_ROOM: usize = INLINE - INLINE_HEADER - END_MARK;
const BLOCK_ROOM: usize = BLOCK - BLOCK_HEADER - END_MARK;
/// Inodes that can share one block (`EXT4_XATTR_REFCOUNT_MAX`).
pub(crate) const MOST_SHARERS: u32 = 1024;

/// The namespaces that we write, with the number that stands for them on disk. The two ACLs are whole
/// names, and the number alone says them.
const NAMESPACES: [(&[u8], u8, bool); 5] = [
    (b"user.", 1, false),
    (b"system.posix_acl_access", 2, true),
    (b"system.posix_acl_default", 3, true),
    (b"trusted.", 4, false),
    (b"security.", 6, false),
];

/// One attribute as ext4 names and stores it. The order is that of entries in a block.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attribute<'a> {
    namespace: u8,
    name_length: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl<'a> Attribute<'a> {
    fn new(xattr: &'a Xattr) -> Result<Self, Ext4Error> {
        let refuse = |why| Ext4Error::Xattr { name: shown(&xattr.name), why };
        let (prefix, namespace, whole) = NAMESPACES
            .into_iter()
            .find(
                |(prefix, _, whole)| {
                    if *whole { xattr.name == *prefix } else { xattr.name.starts_with(prefix) }
                },
            )
            .ok_or_else(|| refuse("its namespace is not user, trusted, security or system.posix_acl_*"))?;
        let name = &xattr.name[prefix.len()..];
        if name.is_empty() && !whole {
            return Err(refuse("nothing follows its namespace"));
        }
        if name.contains(&0) {
            return Err(refuse("its name holds a NUL"));
        }
        let name_length = match u8::try_from(name.len()) {
            Ok(length) if xattr.name.len() <= 255 => length,
            _ => return Err(refuse("its name has more than 255 bytes")),
        };
        let value = if whole {
            Cow::Owned(acl::to_disk(&xattr.value).map_err(refuse)?)
        } else {
            Cow::Borrowed(&xattr.value[..])
        };
        Ok(Self { namespace, name_length, name, value })
    }

    fn entry_size(&self) -> usize {
        16 + self.name.len().next_multiple_of(4)
    }

    fn value_size(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value_size()
    }

    /// `e_hash` of an entry in a block (kernel: `ext4_xattr_hash_entry`, with unsigned bytes).
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(name, |hash, bytes| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// The attributes of a node, sorted and checked, in a form of bytes by which equal ones are found:
/// [`Packed::read`] is the way back.
pub(crate) fn pack(xattrs: &[Xattr]) -> Result<Packed, Ext4Error> {
    let mut attributes = xattrs.iter().map(Attribute::new).collect::<Result<Vec<_>, _>>()?;
    attributes.sort_unstable();
    let key = |a: &Attribute| (a.namespace, a.name.to_vec());
    if attributes.windows(2).any(|pair| key(&pair[0]) == key(&pair[1])) {
        let mut names: Vec<_> = xattrs.iter().map(|x| &x.name).collect();
        names.sort_unstable();
        let twice =
            names.windows(2).find(|pair| pair[0] == pair[1]).map_or_else(String::new, |p| shown(p[0]));
        return Err(Ext4Error::Xattr { name: twice, why: "it is there twice" });
    }
    let (inline, block) = split(&attributes);
    let room = |part: &[&Attribute]| part.iter().map(|a| a.size()).sum::<usize>();
    if room(&block) > BLOCK_ROOM {
        let size = room(&inline) + room(&block);
        return Err(Ext4Error::XattrSpace { size, limit: INLINE_ROOM + BLOCK_ROOM });
    }
    let mut bytes = Vec::with_capacity(room(&inline) + room(&block));
    for attribute in &attributes {
        bytes.extend_from_slice(&[attribute.namespace, attribute.name_length]);
        bytes.extend_from_slice(&(attribute.value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(attribute.name);
        bytes.extend_from_slice(&attribute.value);
    }
    Ok(Packed { bytes, has_block: !block.is_empty() })
}

/// See [`pack`].
#[derive(Debug)]
pub(crate) struct Packed {
    pub bytes: Vec<u8>,
    /// Whether they need a block of their own.
    pub has_block: bool,
}

impl Packed {
    /// The attributes in packed bytes.
    fn read(mut bytes: &[u8]) -> Vec<Attribute<'_>> {
        let mut attributes = Vec::new();
        while let Some(([namespace, name_length, low, high], rest)) = bytes.split_first_chunk() {
            let (name, rest) = rest.split_at(usize::from(*name_length));
            let (value, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])));
            attributes.push(Attribute {
                namespace: *namespace,
                name_length: *name_length,
                name,
                value: Cow::Borrowed(value),
            });
            bytes = rest;
        }
        attributes
    }
}

/// Which attributes stay in the inode: in order, as many as fit.
fn split<'b, 'a>(attributes: &'b [Attribute<'a>]) -> (Vec<&'b Attribute<'a>>, Vec<&'b Attribute<'a>>) {
    let mut room = INLINE_ROOM;
    attributes.iter().partition(|attribute| {
        let fits = attribute.size() <= room;
        if fits {
            room -= attribute.size();
        }
        fits
    })
}

/// Writes the part that stays in the inode; nothing at all when there is none.
pub(crate) fn encode_inline(packed: &[u8], space: &mut [u8; INLINE]) {
    let attributes = Packed::read(packed);
    let (inline, _) = split(&attributes);
    if !inline.is_empty() {
        put32(space, 0, MAGIC);
        encode_entries(&inline, &mut space[INLINE_HEADER..], 0, |_| 0);
    }
}

/// The block with the rest, for `sharers` inodes, to be written as number `block`.
pub(crate) fn encode_block(packed: &[u8], sharers: u32, block: u32, seed: u32) -> [u8; BLOCK] {
    let attributes = Packed::read(packed);
    let (_, rest) = split(&attributes);
    let mut bytes = [0; BLOCK];
    put32(&mut bytes, 0, MAGIC);
    put32(&mut bytes, 4, sharers);
    put32(&mut bytes, 8, 1);
    let hash = rest.iter().fold(0u32, |hash, attribute| hash.rotate_left(16) ^ attribute.hash());
    put32(&mut bytes, 12, hash);
    encode_entries(&rest, &mut bytes[BLOCK_HEADER..], BLOCK_HEADER, |attribute| attribute.hash());
    let checksum = crc32c(crc32c(seed, &u64::from(block).to_le_bytes()), &bytes);
    put32(&mut bytes, 16, checksum);
    bytes
}

/// Entries from the front of `space`, values from its end. Values are found by their offset, counted from
/// `base` bytes before `space`.
fn encode_entries(
    attributes: &[&Attribute],
    space: &mut [u8],
    base: usize,
    hash: impl Fn(&Attribute) -> u32,
) {
    let (mut at, mut end) = (0, space.len());
    for attribute in attributes {
        space[at] = attribute.name_length;
        space[at + 1] = attribute.namespace;
        if !attribute.value.is_empty() {
            end -= attribute.value_size();
            space[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
            put16(space, at + 2, (base + end) as u16);
        }
        put32(space, at + 8, attribute.value.len() as u32);
        put32(space, at + 12, hash(attribute));
        space[at + 16..at + 16 + attribute.name.len()].copy_from_slice(attribute.name);
        at += attribute.entry_size();
    }
    debug_assert!(at + END_MARK <= end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
    }

    #[test]
    fn a_capability_stays_in_the_inode() {
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let packed = pack(&[xattr("security.capability", &capability)]).unwrap();
        assert!(!packed.has_block);
        let mut space = [0; INLINE];
        encode_inline(&packed.bytes, &mut space);
        assert_eq!(space[..4], MAGIC.to_le_bytes());
        assert_eq!(space[4..20], [10, 6, 72, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&space[20..30], b"capability");
        assert_eq!(space[4 + 72..], capability);
    }

    #[test]
    fn order_does_not_matter() {
        let (a, b) = (xattr("user.b", b"1"), xattr("user.a", &[7; 200]));
        let forward = pack(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(forward.bytes, pack(&[b, a]).unwrap().bytes);
        assert!(forward.has_block);
    }

    #[test]
    fn refuses_what_cannot_be_stored() {
        let long = format!("user.{}", "x".repeat(251));
        for name in
            ["user.", "user", "", "system.data", "btrfs.x", "system.posix_acl_accessx", &long, "user.a\0"]
        {
            assert!(matches!(pack(&[xattr(name, b"")]), Err(Ext4Error::Xattr { .. })), "{name:?}");
        }
        let twice = [xattr("user.a", b"1"), xattr("user.b", b""), xattr("user.a", b"2")];
        assert!(matches!(pack(&twice), Err(Ext4Error::Xattr { name, .. }) if name == "user.a"));
        assert!(matches!(pack(&[xattr("user.a", &[1; 4050])]), Err(Ext4Error::XattrSpace { .. })));
        assert!(pack(&[xattr("user.a", &[1; 4040])]).is_ok());
        assert!(matches!(pack(&[xattr("user.a", &[1; 70_000])]), Err(Ext4Error::XattrSpace { .. })));
    }

    proptest! {
        #[test]
        fn packing_is_reversible(pairs in proptest::collection::btree_map("[a-z]{1,9}", any::<Vec<u8>>(), 0..6)) {
            let xattrs: Vec<_> = pairs.iter().map(|(k, v)| xattr(&format!("user.{k}"), v)).collect();
            let packed = pack(&xattrs).unwrap();
            let mut back: Vec<_> =
                Packed::read(&packed.bytes).iter().map(|a| (a.name.to_vec(), a.value.to_vec())).collect();
            back.sort();
            let expected: Vec<_> = pairs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            prop_assert_eq!(back, expected);
        }
    }
}
