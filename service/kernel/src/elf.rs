//! Whether an ELF file is a kernel: one that a virtual machine can enter, and not just any program.

use crate::{
    KernelError,
    image::{u16_at, u32_at},
};

/// The most program headers looked at; `vmlinux` has 5.
const MOST_SEGMENTS: u16 = 64;
/// The most of one segment of notes that is read, in bytes.
const MOST_NOTES: usize = 4096;
/// `p_type` of a segment of notes, elf(5).
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: where a hypervisor enters (PVH),
/// <https://xenbits.xen.org/docs/unstable/misc/pvh.html>.
const PHYS32_ENTRY: u32 = 18;

/// Checks that the file whose first bytes are `head` is a 64-bit x86 kernel with a PVH entry, the only way into an
/// ELF kernel. `read` gives up to so many bytes at an offset.
pub(crate) fn check(
    head: &[u8],
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, KernelError>,
) -> Result<(), KernelError> {
    let refused = |why: &str| Err(KernelError::NotAKernel { why: why.to_owned() });
    if head.get(4..6) != Some(&[2, 1]) {
        return refused("the file is an ELF, but not a 64-bit little-endian one");
    }
    if !matches!(u16_at(head, 16), Some(2 | 3)) {
        return refused("the file is an ELF, but not an executable one: a module or object file");
    }
    if u16_at(head, 18) != Some(62) {
        return refused("the file is an ELF for another processor");
    }
    for (offset, size) in notes(head) {
        if has_entry(&read(offset, size)?) {
            return Ok(());
        }
    }
    refused("the file is an ELF without a PVH entry: a program, or a kernel built without CONFIG_PVH")
}

/// Offset and size of each segment of notes, as far as the program headers lie in `head`.
fn notes(head: &[u8]) -> Vec<(u64, usize)> {
    let start = u64_at(head, 32).and_then(|start| usize::try_from(start).ok());
    let (Some(start), Some(size), Some(count)) = (start, u16_at(head, 54), u16_at(head, 56)) else {
        return Vec::new();
    };
    (0..usize::from(count.min(MOST_SEGMENTS)))
        .filter_map(|n| head.get(start.checked_add(n * usize::from(size))?..))
        .filter(|segment| u32_at(segment, 0) == Some(PT_NOTE))
        .filter_map(|segment| Some((u64_at(segment, 8)?, u64_at(segment, 32)?)))
        .map(|(offset, size)| (offset, usize::try_from(size).map_or(MOST_NOTES, |size| size.min(MOST_NOTES))))
        .collect()
}

/// Whether one of the notes is Xen's for the entry. A note is sizes of name and data, type, then name and data,
/// each padded to 4.
fn has_entry(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(data), Some(kind)) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8)) {
        if kind == PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let padded = |size: u32| (size as usize).next_multiple_of(4);
        match notes.get(12 + padded(name) + padded(data)..) {
            Some(rest) => notes = rest,
            None => return false,
        }
    }
    false
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(class: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut image = vec![0u8; 128 << 10];
        image[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        image[16..18].copy_from_slice(&kind.to_le_bytes());
        image[18..20].copy_from_slice(&machine.to_le_bytes());
        image
    }

    /// The least that is taken for an ELF kernel: two segments, of which the second is of notes.
    pub(crate) fn kernel() -> Vec<u8> {
        let mut image = header(2, 2, 62);
        image[32] = 64;
        image[54] = 56;
        image[56] = 2;
        image[64] = 1;
        image[120] = PT_NOTE as u8;
        image[128..130].copy_from_slice(&0x2000u16.to_le_bytes());
        image[152] = 52;
        // "Linux", 4 bytes, type 257; then "Xen", 8 bytes.
        let notes = &mut image[0x2000..];
        (notes[0], notes[4], notes[9]) = (6, 4, 1);
        notes[12..18].copy_from_slice(b"Linux\0");
        (notes[24], notes[28], notes[32]) = (4, 8, PHYS32_ENTRY as u8);
        notes[36..40].copy_from_slice(b"Xen\0");
        image
    }

    fn check_bytes(image: &[u8]) -> Result<(), KernelError> {
        let from = |offset: u64| image.get(usize::try_from(offset).ok()?..);
        check(&image[..image.len().min(4096)], |offset, most| {
            Ok(from(offset).unwrap_or(&[]).iter().copied().take(most).collect())
        })
    }

    #[test]
    fn a_kernel_is_known_by_its_entry() {
        let image = kernel();
        check_bytes(&image).unwrap();
        let mut pie = image.clone();
        pie[16] = 3;
        check_bytes(&pie).unwrap();
    }

    #[test]
    fn other_elf_files_are_refused_by_name() {
        let mut program = kernel();
        program[0x2000 + 32] = 1;
        let mut cut = kernel();
        cut.truncate(0x2000 + 20);
        for (bytes, word) in [
            (header(1, 2, 3), "64-bit"),
            (header(2, 1, 62), "module"),
            (header(2, 2, 183), "another processor"),
            (header(2, 2, 62), "a program"),
            (program, "a program"),
            (cut, "a program"),
            (b"\x7fELF".to_vec(), "64-bit"),
        ] {
            let error = check_bytes(&bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            fields in prop::collection::vec(any::<u8>(), 32..200),
            notes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut image = kernel();
            image[32..fields.len()].copy_from_slice(&fields[32..]);
            image[0x2000..0x2000 + notes.len()].copy_from_slice(&notes);
            let _ = check_bytes(&image);
            let _ = check_bytes(&fields);
            let _ = has_entry(&notes);
        }
    }
}
