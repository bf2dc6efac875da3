//! gzip (RFC 1952) without its checksum: members one after the other, each a header, deflated data and a trailer.
//!
//! What comes out of a layer is hashed and held against its `diff_id`, and what goes in against its digest. The CRC-32
//! of the trailer would only be a weaker check of the same bytes, for a tenth of the time that inflating takes.

use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The only method that there is.
const DEFLATE: u8 = 8;
/// Bits of the header's flags (RFC 1952, section 2.3.1).
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;
/// CRC-32 and size.
const TRAILER: u64 = 8;

/// Inflates all members of a gzip stream.
pub(crate) struct Gunzip<R> {
    input: R,
    inflate: Decompress,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a member's header.
    Before,
    /// In its data.
    Data,
    End,
}

impl<R: BufRead> Gunzip<R> {
    /// Reads `input`, which must begin with a member's header.
    pub(crate) fn new(input: R) -> Self {
        Self { input, inflate: Decompress::new(false), place: Place::Before }
    }

    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.input.read_exact(&mut fixed)?;
        let [first, second, method, flags, ..] = fixed;
        if [first, second] != MAGIC || method != DEFLATE || flags & RESERVED != 0 {
            return Err(invalid("it has no valid gzip header"));
        }
        if flags & EXTRA != 0 {
            let mut length = [0; 2];
            self.input.read_exact(&mut length)?;
            self.skip(u16::from_le_bytes(length).into())?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                self.skip_text()?;
            }
        }
        if flags & HEADER_CRC != 0 {
            self.skip(2)?;
        }
        self.inflate.reset(false);
        Ok(())
    }

    /// Reads past text and the NUL after it.
    fn skip_text(&mut self) -> io::Result<()> {
        loop {
            let available = self.input.fill_buf()?;
            let (count, ended) = match available.iter().position(|byte| *byte == 0) {
                Some(end) => (end + 1, true),
                None => (available.len(), false),
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.consume(count);
            if ended {
                return Ok(());
            }
        }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        match io::copy(&mut (&mut self.input).take(count), &mut io::sink())? == count {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Inflates what is there. How many bytes came out; none also when a member ended.
    fn data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = self.input.fill_buf()?;
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let ended = input.is_empty();
        let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
        let read = (self.inflate.total_in() - read) as usize;
        let written = (self.inflate.total_out() - written) as usize;
        self.input.consume(read);
        match status.map_err(|_| invalid("its compressed data is damaged"))? {
            Status::StreamEnd => {
                self.skip(TRAILER)?;
                self.place = if self.input.fill_buf()?.is_empty() { Place::End } else { Place::Before };
            }
            _ if ended && written == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        Ok(written)
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.place {
                Place::Before => {
                    self.header()?;
                    self.place = Place::Data;
                }
                Place::Data => match self.data(buffer)? {
                    0 => {}
                    count => return Ok(count),
                },
                Place::End => return Ok(0),
            }
        }
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::{BufReader, Write};

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Everything, with so many bytes of input at a time.
    fn gunzip(data: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Gunzip::new(BufReader::with_capacity(piece, data)).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn headers_may_have_everything() {
        let header = GzBuilder::new().extra(vec![7; 300]).filename("a name").comment("a comment").mtime(1);
        let mut encoder = header.write(Vec::new(), Compression::fast());
        encoder.write_all(b"text").unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(gunzip(&packed, 1).unwrap(), b"text");
        assert_eq!(gunzip(&packed, 4096).unwrap(), b"text");
        // The checksum of the header, which nobody writes.
        let plain = gzip(b"text");
        let with_crc = [&plain[..3], &[HEADER_CRC], &plain[4..10], &[1, 2], &plain[10..]].concat();
        assert_eq!(gunzip(&with_crc, 3).unwrap(), b"text");
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let good = gzip(b"text");
        for (place, value) in [(0, 0), (1, 0), (2, 7), (3, 0x20), (3, 0x80)] {
            let mut bad = good.clone();
            bad[place] = value;
            assert_eq!(gunzip(&bad, 100).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {place}");
        }
        // Something after the last member that is no member.
        assert!(gunzip(&[&good[..], b"0123456789"].concat(), 100).is_err());
        // A block type that there is not (RFC 1951, section 3.2.3).
        assert_eq!(
            gunzip(&[&good[..10], &[0xff]].concat(), 100).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn no_end_is_the_right_one_but_the_last() {
        let data = [gzip(b"some text, some text"), gzip(b"more")].concat();
        let between = gzip(b"some text, some text").len();
        for length in (0..data.len()).filter(|length| *length != between) {
            let error = gunzip(&data[..length], 7).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn members_follow_each_other(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5000), 1..5), piece in 1usize..9000) {
            let packed: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
            prop_assert_eq!(gunzip(&packed, piece).unwrap(), parts.concat());
        }

        #[test]
        fn damage_is_judged_as_by_others_but_for_the_checksum(data in proptest::collection::vec(any::<u8>(), 0..300), place: proptest::sample::Index, value: u8) {
            let mut packed = gzip(&data);
            let place = place.index(packed.len());
            packed[place] = value;
            let mut theirs = Vec::new();
            if MultiGzDecoder::new(&packed[..]).read_to_end(&mut theirs).is_ok() {
                prop_assert_eq!(gunzip(&packed, 100).unwrap(), theirs);
            } else if let Ok(ours) = gunzip(&packed, 100) {
                // Their header parser checks nothing that this one does not: it was the trailer, or other data came out.
                prop_assert!(place >= packed.len() - TRAILER as usize || ours != data);
            }
        }
    }
}
