//! What is packed inside a package, unpacked as it comes and within bounds.

use crate::{
    Compression, KernelError,
    scratch::stream_error,
    stream::MOST_STREAM,
    unpack::{MEMORY, WINDOW_LOG},
};
use std::{
    cell::Cell,
    io::{self, BufReader, Cursor, Read},
    rc::Rc,
};

/// Unpacked bytes for each packed one; kernels and modules reach 10.
const RATIO: u64 = 100;
/// The ratio does not matter below this many unpacked bytes.
const RATIO_FROM: u64 = 64 << 20;

/// `stream` unpacked, whatever it is packed with.
///
/// # Errors
/// [`KernelError::Stream`] for a packing that is not supported.
pub(super) fn unpacked<'a>(mut stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, KernelError> {
    let failed = |error: io::Error| stream_error(error.to_string());
    let mut head = Vec::new();
    stream.by_ref().take(8).read_to_end(&mut head).map_err(failed)?;
    let kind = Compression::detect(&head);
    let packed = Rc::new(Cell::new(0));
    let counted = Counted { inner: Cursor::new(head).chain(stream), count: packed.clone() };
    let buffered = BufReader::with_capacity(128 << 10, counted);
    let inner: Box<dyn Read + 'a> = match kind {
        None => Box::new(buffered),
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Some(Compression::Xz) => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED);
            let decoder = decoder.map_err(|error| stream_error(error.to_string()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, decoder))
        }
        Some(Compression::Lzma) => {
            let decoder = liblzma::stream::Stream::new_lzma_decoder(MEMORY);
            let decoder = decoder.map_err(|error| stream_error(error.to_string()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, decoder))
        }
        Some(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed)?;
            decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
        Some(other) => {
            let other = other.as_str();
            return Err(stream_error(format!(
                "its content is packed with {other}, which is not supported: take its files, or pack it anew"
            )));
        }
    };
    Ok(Box::new(Bounded { inner, packed, unpacked: 0 }))
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// Fails rather than pass its bounds.
struct Bounded<R> {
    inner: R,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.unpacked += read as u64;
        if self.unpacked > MOST_STREAM {
            return Err(io::Error::other(format!("it unpacks to more than {MOST_STREAM} bytes")));
        }
        if self.unpacked > RATIO_FROM && self.unpacked / RATIO > self.packed.get() {
            return Err(io::Error::other(format!("it unpacks to more than {RATIO} times its size")));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::tests::{xz, zst};
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn lzma(bytes: &[u8]) -> Vec<u8> {
        let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(packed: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut stream = unpacked(packed).map_err(|e| e.to_string())?;
        stream.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn every_packing_gives_the_bytes_back() {
        let plain = b"what is in it, and more of it".repeat(1000);
        for packed in [plain.clone(), gzip(&plain), xz(&plain), lzma(&plain), zst(&plain)] {
            assert!(all(&packed).unwrap() == plain);
        }
        assert_eq!(all(b"").unwrap(), b"");
        assert!(all(b"BZh9xxxxxxx").unwrap_err().contains("bzip2"));
    }

    #[test]
    fn a_bomb_is_refused_before_it_has_gone_off() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        io::copy(&mut io::repeat(0).take(RATIO_FROM + (8 << 20)), &mut encoder).unwrap();
        let bomb = encoder.finish().unwrap();
        let mut out = 0;
        let mut stream = unpacked(&bomb[..]).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let error = loop {
            match stream.read(&mut buffer) {
                Ok(0) => panic!("it went off"),
                Ok(read) => out += read as u64,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("100 times"), "{error}");
        assert!(out <= RATIO_FROM);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in 0usize..5, bytes in prop::collection::vec(any::<u8>(), 0..512)
        ) {
            let magic: [&[u8]; 5] = [b"", b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x5d\0\0"];
            let _ = all(&[magic[kind], &bytes].concat());
        }
    }
}
