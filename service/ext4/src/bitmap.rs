//! Which blocks and inodes are in use.

use crate::layout::{BLOCK, GROUP_BLOCKS};

/// Bits of one group, one block large.
pub(crate) type Bitmap = [u8; BLOCK];

/// Sets `count` bits from `first` on; says whether one of them was set before.
pub(crate) fn set(bitmap: &mut [u8], first: u32, count: u32) -> bool {
    let mut clash = false;
    let (mut at, end) = (first, first + count);
    while at < end {
        let byte = &mut bitmap[(at / 8) as usize];
        let bits = (end - at).min(8 - at % 8);
        let mask = (((1u16 << bits) - 1) << (at % 8)) as u8;
        clash |= *byte & mask != 0;
        *byte |= mask;
        at += bits;
    }
    clash
}

/// Bits that are set.
pub(crate) fn ones(bitmap: &[u8]) -> u32 {
    bitmap.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum()
}

/// The blocks in use by anything but the heads of groups; a group that nothing uses has no bitmap.
pub(crate) struct Usage {
    groups: Vec<Option<Box<Bitmap>>>,
}

impl Usage {
    pub fn new(groups: u32) -> Self {
        Self { groups: (0..groups).map(|_| None).collect() }
    }

    /// Marks a run of blocks. Each block has one owner: anything else is a mistake in this crate.
    pub fn mark(&mut self, first: u32, count: u32) {
        let (mut at, mut rest) = (first, count);
        while rest > 0 {
            let (group, bit) = ((at / GROUP_BLOCKS) as usize, at % GROUP_BLOCKS);
            let part = rest.min(GROUP_BLOCKS - bit);
            let bitmap = self.groups[group].get_or_insert_with(|| Box::new([0; BLOCK]));
            let clash = set(&mut bitmap[..], bit, part);
            debug_assert!(!clash, "blocks {at}+{part} have two owners");
            rest -= part;
            at = at.wrapping_add(part);
        }
    }

    /// The bitmap of a group, if anything uses it.
    pub fn group(&self, group: u32) -> Option<&Bitmap> {
        self.groups[group as usize].as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_the_bits_asked_for(first in 0u32..300, count in 0u32..300) {
            let mut bitmap = [0; 80];
            prop_assert!(!set(&mut bitmap, first, count));
            for bit in 0..640 {
                let is = bitmap[bit as usize / 8] >> (bit % 8) & 1 == 1;
                prop_assert_eq!(is, (first..first + count).contains(&bit));
            }
            prop_assert_eq!(ones(&bitmap), count);
            prop_assert_eq!(set(&mut bitmap, first, count), count > 0);
        }
    }

    #[test]
    fn runs_cross_groups() {
        let mut usage = Usage::new(3);
        usage.mark(GROUP_BLOCKS - 3, GROUP_BLOCKS + 5);
        assert_eq!([0, 1, 2].map(|g| usage.group(g).map_or(0, |b| ones(b))), [3, GROUP_BLOCKS, 2]);
    }
}
