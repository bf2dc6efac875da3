//! Unpacks a module (`.ko`, `.ko.gz`, `.ko.xz`, `.ko.zst`) and checks that it is one.

use std::io::{self, Read};

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// <https://tukaani.org/xz/xz-file-format.txt>
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// The old `.lzma` format.
    Lzma,
    /// LZ4, in the legacy frame that the kernel's build makes or the present one.
    Lz4,
    /// lzop.
    Lzo,
}

impl Compression {
    /// Tells a packed file by its first bytes.
    pub fn detect(head: &[u8]) -> Option<Self> {
        let kinds: [(&[u8], Self); 8] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"BZh", Self::Bzip2),
            (b"\x5d\0\0", Self::Lzma),
            (b"\x02\x21\x4c\x18", Self::Lz4),
            (b"\x04\x22\x4d\x18", Self::Lz4),
            (b"\x89LZO", Self::Lzo),
        ];
        kinds.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, kind)| kind)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
        }
    }
}

/// Memory that unpacking may take beside its output, in bytes; `xz -9` needs 65 MiB.
pub(crate) const MEMORY: u64 = 128 << 20;
/// The same as a window's size, for zstd.
pub(crate) const WINDOW_LOG: u32 = 27;

/// The module in `packed`, at most `most` bytes, or what is wrong with it.
pub(crate) fn unpack_module(packed: Vec<u8>, most: u64) -> Result<Vec<u8>, String> {
    let bytes = match Compression::detect(&packed) {
        None => packed,
        Some(kind) => unpack(kind, &packed, most).map_err(|e| format!("cannot unpack it: {e}"))?,
    };
    if bytes.len() as u64 > most {
        return Err(format!("it is bigger than {most} bytes"));
    }
    // A relocatable ELF: e_type is ET_REL, elf(5).
    if !bytes.starts_with(b"\x7fELF") || bytes.get(16..18) != Some(&[1, 0]) {
        return Err("it is not a kernel module (a relocatable ELF file)".into());
    }
    Ok(bytes)
}

fn unpack(kind: Compression, packed: &[u8], most: u64) -> io::Result<Vec<u8>> {
    match kind {
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(packed), most),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)?;
            bounded(liblzma::read::XzDecoder::new_stream(packed, stream), most)
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(WINDOW_LOG)?;
            bounded(decoder, most)
        }
        other => Err(io::Error::other(format!("modules packed with {} are not supported", other.as_str()))),
    }
}

/// All of `reader`, or one byte more than `most`.
fn bounded(reader: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The release that a module was built for: the first word of `vermagic=` in its `.modinfo` section.
pub(crate) fn vermagic(module: &[u8]) -> Option<String> {
    let rest = modinfo(module, b"vermagic=")?;
    let word = rest.split(|b| *b == b' ').next()?;
    std::str::from_utf8(word).ok().filter(|word| !word.is_empty() && word.len() < 128).map(str::to_owned)
}

/// The value of `key` (with its `=`) in a module's `.modinfo` section: texts that each end with a zero byte.
pub(crate) fn modinfo<'a>(module: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut rest = module;
    loop {
        let end = rest.iter().position(|b| *b == 0)?;
        if let Some(value) = rest[..end].strip_prefix(key) {
            return Some(value);
        }
        rest = &rest[end + 1..];
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// The start of a module, then `extra`.
    pub(crate) fn module(extra: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 1;
        bytes.extend_from_slice(extra);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zst(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    #[test]
    fn every_packing_gives_the_module_back() {
        let plain = module(&[7; 5000]);
        for packed in [plain.clone(), gzip(&plain), xz(&plain), zst(&plain)] {
            assert_eq!(unpack_module(packed, 1 << 20).as_deref(), Ok(&plain[..]));
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let plain = module(&vec![0; 1 << 20]);
        for packed in [plain.clone(), gzip(&plain), xz(&plain), zst(&plain)] {
            assert!(unpack_module(packed, 4096).unwrap_err().contains("bigger than 4096"));
        }
    }

    #[test]
    fn what_is_not_a_module_is_refused() {
        let mut executable = module(b"");
        executable[16] = 2;
        for (bytes, word) in [
            (vec![], "not a kernel module"),
            (b"\x7fELF".to_vec(), "not a kernel module"),
            (executable, "not a kernel module"),
            (gzip(b"text"), "not a kernel module"),
            (gzip(&module(b""))[..20].to_vec(), "cannot unpack"),
            (xz(&module(b""))[..20].to_vec(), "cannot unpack"),
            (zst(&module(&[1; 100]))[..20].to_vec(), "cannot unpack"),
            (b"\x02\x21\x4c\x18xxxx".to_vec(), "lz4"),
        ] {
            let error = unpack_module(bytes, 1 << 20).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn the_release_is_read_from_the_module() {
        let bytes = module(b"license=GPL\0vermagic=6.1.0-56-cloud-amd64 SMP preempt mod_unload \0x");
        assert_eq!(vermagic(&bytes).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(vermagic(&module(b"\0vermagic=")), None);
        assert_eq!(vermagic(&module(b"\0vermagic= SMP\0")), None);
        assert_eq!(vermagic(b""), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in 0usize..5, bytes in prop::collection::vec(any::<u8>(), 0..512)
        ) {
            let magic: [&[u8]; 5] = [b"", b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x7fELF"];
            let bytes = [magic[kind], &bytes].concat();
            let _ = vermagic(&bytes);
            let _ = unpack_module(bytes, 1 << 16);
        }
    }
}
