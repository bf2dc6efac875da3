//! What a kernel image is: told from its first bytes, so that a wrong file is refused with a sentence.

use crate::{Compression, KernelError, elf};
use std::io::{Read, Seek, SeekFrom};

/// The biggest kernel image, in bytes; distributions' are 5 to 20 MiB, one with debug symbols far more.
const MOST: u64 = 256 << 20;
/// The smallest that can be one: below it, a file holds no Linux.
const LEAST: u64 = 64 << 10;
/// How much of the start is read: every header looked at lies in it.
const HEAD: usize = 4096;

/// The kinds of kernel image that a VM can boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// An x86 bzImage, what distributions install as `vmlinuz`.
    /// <https://docs.kernel.org/arch/x86/boot.html>
    BzImage {
        /// Version of the boot protocol, for example 0x020f.
        protocol: u16,
        /// How the kernel inside is packed, where that can be told (protocol 2.08).
        payload: Option<Compression>,
    },
    /// An uncompressed 64-bit ELF with a PVH entry, what a build calls `vmlinux`.
    Elf,
}

/// A kernel image that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// What kind it is.
    pub format: ImageFormat,
    /// Its size in bytes.
    pub size: u64,
    /// The release that the image itself names, as `uname -r` would show it. An ELF is not searched for it.
    pub release: Option<String>,
}

impl KernelImage {
    /// Looks at a kernel image, from its start, wherever the file stands.
    ///
    /// # Errors
    /// [`KernelError::NotAKernel`] says what the file is instead; [`KernelError::Io`] when it cannot be read.
    pub fn inspect(file: &mut (impl Read + Seek)) -> Result<Self, KernelError> {
        let io = |source| KernelError::Io { what: "read the kernel image".into(), source };
        let size = file.seek(SeekFrom::End(0)).map_err(io)?;
        let head = read_at(file, 0, HEAD).map_err(io)?;
        if let Some(why) = not_a_kernel(&head, size) {
            return Err(KernelError::NotAKernel { why });
        }
        if head.starts_with(b"\x7fELF") {
            let note = |offset, most| read_at(file, offset, most).map_err(io);
            elf::check(&head, note)?;
            return Ok(Self { format: ImageFormat::Elf, size, release: None });
        }
        let setup = Setup::parse(&head)?;
        let payload = match setup.payload {
            Some(offset) => Compression::detect(&read_at(file, offset, 8).map_err(io)?),
            None => None,
        };
        let release = match setup.version {
            Some(offset) => release(&read_at(file, offset, 128).map_err(io)?),
            None => None,
        };
        Ok(Self { format: ImageFormat::BzImage { protocol: setup.protocol, payload }, size, release })
    }
}

/// The packed kernel of a bzImage that was inspected, and how it is packed; none in an ELF.
///
/// # Errors
/// [`KernelError::NotAKernel`] for a bzImage without one, [`KernelError::Io`].
pub(crate) fn payload(file: &mut (impl Read + Seek)) -> Result<Option<(Compression, Vec<u8>)>, KernelError> {
    let io = |source| KernelError::Io { what: "read the kernel image".into(), source };
    let refused = |why: &str| KernelError::NotAKernel { why: why.to_owned() };
    let head = read_at(file, 0, HEAD).map_err(io)?;
    if head.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let length = u64::from(u32_at(&head, 0x24c).unwrap_or(0));
    let Some(offset) = Setup::parse(&head)?.payload.filter(|_| length <= MOST) else {
        return Err(refused("its header does not tell where the packed kernel is (protocol 2.08)"));
    };
    let packed = read_at(file, offset, length as usize).map_err(io)?;
    match Compression::detect(&packed) {
        Some(kind) if packed.len() as u64 == length => Ok(Some((kind, packed))),
        Some(_) => Err(refused("the file ends before the packed kernel does")),
        None => Err(refused("its payload is packed in an unknown way")),
    }
}

/// Up to `most` bytes at `offset`; fewer when the file ends there.
fn read_at(file: &mut (impl Read + Seek), offset: u64, most: usize) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(most);
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why this cannot be a kernel, when that is plain to see.
fn not_a_kernel(head: &[u8], size: u64) -> Option<String> {
    let is = |what: &str| Some(what.to_owned());
    match head {
        [] => return is("the file is empty"),
        _ if size > MOST => return Some(format!("the file is {size} bytes, more than 256 MiB")),
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2' | b'7', ..] => {
            return is("the file is a cpio archive, an initrd perhaps");
        }
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => {
            return is("the file is a package or ar archive: unpack it and take its vmlinuz");
        }
        _ => {}
    }
    if let Some(packed) = Compression::detect(head) {
        let packed = packed.as_str();
        return Some(format!(
            "the file is compressed with {packed}: an initrd perhaps, or a kernel to unpack first"
        ));
    }
    if head.get(257..262) == Some(b"ustar") {
        return is("the file is a tar archive");
    }
    if size < LEAST {
        return Some(format!("the file is {size} bytes, too small for a kernel"));
    }
    if head.iter().all(|b| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~')) {
        return is("the file is text");
    }
    None
}

pub(crate) fn u16_at(head: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(head.get(offset..offset + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(head: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(head.get(offset..offset + 4)?.try_into().ok()?))
}

/// What the setup header of a bzImage tells.
struct Setup {
    protocol: u16,
    /// Offset of the packed kernel in the file.
    payload: Option<u64>,
    /// Offset of the version's text in the file.
    version: Option<u64>,
}

impl Setup {
    /// Reads the header at 0x1f1: <https://docs.kernel.org/arch/x86/boot.html#details-of-header-fields>.
    fn parse(head: &[u8]) -> Result<Self, KernelError> {
        let refused = |why: &str| KernelError::NotAKernel { why: why.to_owned() };
        if head.get(56..60) == Some(b"ARMd") {
            return Err(refused("the file is a kernel for 64-bit ARM"));
        }
        if u16_at(head, 0x1fe) != Some(0xaa55) || head.get(0x202..0x206) != Some(b"HdrS") {
            return Err(refused("the file has neither a bzImage's header nor an ELF's"));
        }
        let protocol = u16_at(head, 0x206).unwrap_or(0);
        let loaded_high = head.get(0x211).is_some_and(|flags| flags & 1 == 1);
        if protocol < 0x0200 || !loaded_high {
            return Err(refused("the file is a kernel from before Linux 1.3.73 or a zImage"));
        }
        // XLF_KERNEL_64 of xloadflags, since protocol 2.12.
        if protocol >= 0x020c && u16_at(head, 0x236).is_some_and(|flags| flags & 1 == 0) {
            return Err(refused("the file is a 32-bit kernel"));
        }
        // 0 means 4, for the oldest boot loaders' sake.
        let sectors = match head.get(0x1f1) {
            Some(0) | None => 4,
            Some(n) => u64::from(*n),
        };
        let payload = match u32_at(head, 0x248) {
            Some(offset) if protocol >= 0x0208 && offset != 0 => {
                Some((sectors + 1) * 512 + u64::from(offset))
            }
            _ => None,
        };
        let version = match u16_at(head, 0x20e) {
            Some(offset) if offset != 0 => Some(u64::from(offset) + 0x200),
            _ => None,
        };
        Ok(Self { protocol, payload, version })
    }
}

/// The release out of a version text such as `6.1.0-56-cloud-amd64 (builder@host) #1 SMP ...`.
fn release(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|b| matches!(b, b' ' | 0))?;
    let word = std::str::from_utf8(&text[..end]).ok()?;
    let printable = word.bytes().all(|b| b.is_ascii_graphic());
    // 65 bytes with the final NUL: __NEW_UTS_LEN.
    (printable && !word.is_empty() && word.len() <= 64).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn bzimage(protocol: u16, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0u8; 128 << 10];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x211] = 1;
        image[0x236] = 1;
        image[0x248..0x24c].copy_from_slice(&4096u32.to_le_bytes());
        image[0x500..0x51a].copy_from_slice(b"6.1.0-test (a@b) #1 SMP x\0");
        image[1024 + 4096..][..payload.len()].copy_from_slice(payload);
        image
    }

    fn inspect(bytes: Vec<u8>) -> Result<KernelImage, KernelError> {
        KernelImage::inspect(&mut Cursor::new(bytes))
    }

    #[test]
    fn kernels_are_recognised() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
        let image = inspect(bzimage(0x020f, &zstd)).unwrap();
        let payload = Some(Compression::Zstd);
        assert_eq!(image.format, ImageFormat::BzImage { protocol: 0x020f, payload });
        assert_eq!(image.release.as_deref(), Some("6.1.0-test"));
        assert_eq!(image.size, 128 << 10);
        let old = inspect(bzimage(0x0206, &zstd)).unwrap();
        assert_eq!(old.format, ImageFormat::BzImage { protocol: 0x0206, payload: None });
        assert_eq!(inspect(elf::tests::kernel()).unwrap().format, ImageFormat::Elf);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let mut zimage = bzimage(0x020f, b"");
        zimage[0x211] = 0;
        let mut small = bzimage(0x020f, b"");
        small[0x236] = 0;
        let mut arm = vec![0u8; 128 << 10];
        arm[56..60].copy_from_slice(b"ARMd");
        let mut tar = vec![0u8; 128 << 10];
        tar[257..262].copy_from_slice(b"ustar");
        let long = |start: &[u8]| [start, &vec![0; 128 << 10]].concat();
        for (bytes, word) in [
            (vec![], "empty"),
            (b"MZ".to_vec(), "too small"),
            (vec![b'x'; 128 << 10], "text"),
            (long(b"070701"), "initrd"),
            (long(b"\x1f\x8b\x08"), "gzip"),
            (long(&[0x28, 0xb5, 0x2f, 0xfd]), "zstd"),
            (long(b"\xfd7zXZ\0"), "xz"),
            (long(b"!<arch>\n"), "package"),
            (tar, "tar"),
            (arm, "ARM"),
            (zimage, "zImage"),
            (bzimage(0x0100, b""), "zImage"),
            (vec![0; 128 << 10], "neither"),
            (small, "32-bit"),
            (long(b"\x7fELF"), "64-bit"),
        ] {
            let error = inspect(bytes).unwrap_err().to_string();
            assert!(error.starts_with("not a bootable kernel") && error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MOST + 1).unwrap();
        let error = KernelImage::inspect(&mut &file).unwrap_err().to_string();
        assert!(error.contains("256 MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            head in prop::collection::vec(any::<u8>(), 0x280),
            pad in 0usize..70_000,
        ) {
            let mut image = bzimage(0x020f, b"");
            image[..0x1fe].copy_from_slice(&head[..0x1fe]);
            image[0x206..0x280].copy_from_slice(&head[0x206..]);
            image.truncate(pad + 0x280);
            let _ = inspect(image);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = release(&bytes);
            let _ = Setup::parse(&bytes);
            prop_assert!(inspect(bytes).is_err());
        }
    }
}
