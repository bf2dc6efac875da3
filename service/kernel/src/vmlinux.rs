//! The ELF inside a bzImage, for a VMM that unpacks nothing itself.
//!
//! <https://docs.kernel.org/arch/x86/boot.html>: `payload_offset` and `payload_length` of the setup header. The build puts the
//! size of the unpacked kernel behind the packed one, so what follows the end of a stream is left alone.

use crate::{
    Compression, KernelError, elf,
    image::{self, KernelImage},
    unpack::{MEMORY, WINDOW_LOG},
};
use std::io::{self, Read, Seek, Write};

/// The biggest ELF, in bytes; distributions' are 30 to 70 MiB.
const MOST_ELF: u64 = 512 << 20;
/// The most that a block of LZ4's legacy frame unpacks to.
const LEGACY_BLOCK: usize = 8 << 20;
/// The magic number of LZ4's legacy frame, which may also stand between two of them.
/// <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md#legacy-frame>
const LEGACY_MAGIC: u32 = 0x184c_2102;

/// Writes the ELF that a kernel image is, or holds, to `to`. The image may be a bzImage packed with gzip, xz, zstd or LZ4, or an ELF
/// already.
///
/// # Errors
/// [`KernelError::NotAKernel`] says why there is none; [`KernelError::Io`] when it cannot be written.
pub fn extract_vmlinux(file: &mut (impl Read + Seek), to: &mut impl Write) -> Result<u64, KernelError> {
    let image = KernelImage::inspect(file)?;
    let packed = image::payload(file)?;
    let Some((kind, packed)) = packed else {
        return copy_elf(file, image.size, to);
    };
    let mut checked = Checked { head: Vec::new(), written: 0, to, failed: None };
    let unpacked = unpack_to(kind, &packed, &mut checked);
    let Checked { head, written, failed, .. } = checked;
    if let Some(error) = failed {
        return Err(KernelError::Io { what: "write the unpacked kernel".into(), source: error });
    }
    unpacked.map_err(|error| {
        refused(format!("its payload, packed with {}, is damaged: {error}", kind.as_str()))
    })?;
    if !head.starts_with(b"\x7fELF") {
        return Err(refused("its payload is not an ELF".into()));
    }
    elf::check(&head, |offset, most| {
        let from = usize::try_from(offset).ok().and_then(|offset| head.get(offset..)).unwrap_or_default();
        Ok(from[..most.min(from.len())].to_vec())
    })?;
    Ok(written)
}

fn refused(why: String) -> KernelError {
    KernelError::NotAKernel { why }
}

fn copy_elf(file: &mut (impl Read + Seek), size: u64, to: &mut impl Write) -> Result<u64, KernelError> {
    let io = |source| KernelError::Io { what: "copy the kernel image".into(), source };
    file.rewind().map_err(io)?;
    io::copy(&mut file.take(size), to).map_err(io)
}

/// Passes an ELF on, and keeps as much of it as its check looks at.
struct Checked<'a, W> {
    head: Vec<u8>,
    written: u64,
    to: &'a mut W,
    failed: Option<io::Error>,
}

/// How much of an ELF is kept: the notes of a kernel lie behind its code, which is smaller.
const KEPT: usize = 64 << 20;

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > MOST_ELF {
            return Err(io::Error::other("it is bigger than 512 MiB when unpacked"));
        }
        if let Err(error) = self.to.write_all(bytes) {
            let told = io::Error::new(error.kind(), "cannot be written");
            self.failed = Some(error);
            return Err(told);
        }
        let room = KEPT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unpack_to(kind: Compression, packed: &[u8], to: &mut impl Write) -> io::Result<()> {
    match kind {
        Compression::Gzip => io::copy(&mut flate2::read::GzDecoder::new(packed), to).map(drop),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, 0)?;
            io::copy(&mut liblzma::bufread::XzDecoder::new_stream(packed, stream), to).map(drop)
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?.single_frame();
            decoder.window_log_max(WINDOW_LOG)?;
            io::copy(&mut decoder, to).map(drop)
        }
        Compression::Lz4 => unpack_lz4(packed, to),
        Compression::Bzip2 | Compression::Lzma | Compression::Lzo => {
            Err(io::Error::other("this packing is not supported"))
        }
    }
}

/// Unpacks a legacy frame: blocks, each with its packed size before it.
fn unpack_lz4(packed: &[u8], to: &mut impl Write) -> io::Result<()> {
    let mut rest = packed;
    if take_number(&mut rest) != Some(LEGACY_MAGIC) {
        return Err(io::Error::other("it is no legacy frame"));
    }
    let mut block = vec![0; LEGACY_BLOCK];
    // The last four bytes are the unpacked size.
    while rest.len() > 4 {
        let size = match take_number(&mut rest) {
            Some(LEGACY_MAGIC) | None => continue,
            Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
        };
        let (piece, after) = rest.split_at_checked(size).ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = lz4_flex::block::decompress_into(piece, &mut block).map_err(io::Error::other)?;
        to.write_all(&block[..length])?;
        rest = after;
    }
    Ok(())
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        elf::tests::kernel,
        unpack::tests::{xz, zst},
    };
    use proptest::prelude::*;
    use std::io::Cursor;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut frame = LEGACY_MAGIC.to_le_bytes().to_vec();
        for block in bytes.chunks(LEGACY_BLOCK) {
            let packed = lz4_flex::block::compress(block);
            frame.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            frame.extend(packed);
        }
        frame
    }

    /// A bzImage around a packed kernel, with the size behind it as the build puts it there.
    fn bzimage(packed: &[u8], size: usize) -> Vec<u8> {
        let mut image = vec![0u8; 16 << 10];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x211] = 1;
        image[0x236] = 1;
        image[0x248..0x24c].copy_from_slice(&4096u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len() + 4).unwrap().to_le_bytes());
        image.truncate(1024 + 4096);
        image.extend_from_slice(packed);
        image.extend_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        // What is linked behind the payload.
        image.resize(image.len() + (128 << 10), 0x90);
        image
    }

    fn extract(image: Vec<u8>) -> Result<Vec<u8>, KernelError> {
        let mut out = Vec::new();
        extract_vmlinux(&mut Cursor::new(image), &mut out).map(|_| out)
    }

    #[test]
    fn every_packing_gives_the_kernel_back() {
        let plain = kernel();
        for packed in [gzip(&plain), xz(&plain), zst(&plain), lz4(&plain)] {
            assert!(extract(bzimage(&packed, plain.len())).unwrap() == plain);
        }
        assert!(extract(plain.clone()).unwrap() == plain, "an ELF is one already");
    }

    #[test]
    fn lz4_goes_on_over_its_blocks() {
        let mut plain = kernel();
        plain.resize(LEGACY_BLOCK * 2 + 77, 3);
        assert!(extract(bzimage(&lz4(&plain), plain.len())).unwrap() == plain);
    }

    #[test]
    fn a_payload_that_is_no_kernel_is_refused_with_a_reason() {
        let plain = kernel();
        let mut cut = lz4(&plain);
        cut.truncate(cut.len() - 100);
        let mut damaged = gzip(&plain);
        damaged.truncate(100);
        for (packed, word) in [
            (cut, "damaged"),
            (damaged, "damaged"),
            (gzip(b"text"), "not an ELF"),
            (b"BZh9xxxx".to_vec(), "not supported"),
            (lz4(&[0; 4096]), "not an ELF"),
        ] {
            // The image ends where the payload does, as a cut file would.
            let mut image = bzimage(&packed, 0);
            image.resize(image.len().max(128 << 10), 0);
            let error = extract(image).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_full_disk_is_not_the_kernels_fault() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let image = bzimage(&lz4(&kernel()), 0);
        let error = extract_vmlinux(&mut Cursor::new(image), &mut Full).unwrap_err();
        assert!(matches!(error, KernelError::Io { .. }), "{error}");
    }

    /// The kernel of the machine that the tests run on, if it has one that may be read.
    #[test]
    fn a_distributions_kernel_is_one_with_an_entry() {
        let found = std::fs::read_dir("/boot").into_iter().flatten().flatten();
        for entry in found.filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-")) {
            let Ok(mut file) = std::fs::File::open(entry.path()) else { continue };
            let mut out = Vec::new();
            let size = extract_vmlinux(&mut file, &mut out).unwrap();
            assert_eq!(size, out.len() as u64);
            assert!(size > 10 << 20, "{size}");
            println!("{}: {size} bytes", entry.path().display());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(
            kind in 0usize..6, bytes in prop::collection::vec(any::<u8>(), 0..600)
        ) {
            let magic: [&[u8]; 6] = [
                b"", b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\x7fELF",
            ];
            let _ = extract(bzimage(&[magic[kind], &bytes].concat(), 0));
        }

        #[test]
        fn any_lz4_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut out = Vec::new();
            let mut frame = lz4(&bytes);
            frame.extend([0; 4]);
            unpack_lz4(&frame, &mut out).unwrap();
            prop_assert_eq!(out, bytes);
        }
    }
}
