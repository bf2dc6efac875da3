//! The output: writes that follow each other become one large one.

use crate::layout::{BLOCK, BLOCK_BYTES};
use std::io::{self, Seek, SeekFrom, Write};

/// Bytes gathered before they go out.
const GATHER: usize = 1 << 20;

/// Writes blocks by number through a buffer.
pub(crate) struct Stream<W> {
    out: W,
    /// The buffer, and a block more: what is gathered begins where memory is aligned to a block, as writing without
    /// the page cache wants it.
    memory: Vec<u8>,
    first: usize,
    /// Bytes in the buffer.
    gathered: usize,
    /// Where the buffer's first byte belongs.
    start: u64,
    /// Where `out` is.
    position: u64,
    /// One past the last byte written.
    end: u64,
}

impl<W: Write + Seek> Stream<W> {
    /// Begins at the start of `out`.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.seek(SeekFrom::Start(0))?;
        let memory = vec![0; GATHER + BLOCK];
        let first = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Ok(Self { out, memory, first, gathered: 0, start: 0, position: 0, end: 0 })
    }

    /// Writes whole blocks from `block` on.
    pub fn write(&mut self, block: u64, mut data: &[u8]) -> io::Result<()> {
        let at = block * BLOCK_BYTES;
        let buffered = self.start + self.gathered as u64;
        if (self.start..buffered).contains(&at) {
            // What follows was given back and is written anew.
            self.gathered = (at - self.start) as usize;
        } else if at != buffered {
            self.flush()?;
            self.start = at;
        }
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(GATHER - self.gathered));
            let to = self.first + self.gathered;
            self.memory[to..to + now.len()].copy_from_slice(now);
            self.gathered += now.len();
            if self.gathered == GATHER {
                self.flush()?;
            }
            data = later;
        }
        Ok(())
    }

    /// Writes what is gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.gathered == 0 {
            return Ok(());
        }
        if self.position != self.start {
            self.out.seek(SeekFrom::Start(self.start))?;
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.out.write_all(&self.memory[self.first..self.first + gathered])?;
        self.start += gathered as u64;
        self.position = self.start;
        self.end = self.end.max(self.position);
        Ok(())
    }

    /// Makes the output `size` bytes long, if it is shorter, and hands everything out.
    pub fn finish(mut self, size: u64) -> io::Result<()> {
        self.flush()?;
        if self.end < size {
            self.out.seek(SeekFrom::Start(size - 1))?;
            self.out.write_all(&[0])?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn last_write_wins(writes in proptest::collection::vec((0u64..40, 1usize..8, 1u8..), 1..60)) {
            let mut image = Cursor::new(Vec::new());
            let mut stream = Stream::new(&mut image).unwrap();
            let mut expected = vec![0; 64 * 4096];
            let mut next = 0;
            for (block, count, fill) in writes {
                // Mostly in sequence, as the writer does it.
                let block = if fill % 3 == 0 || next > 50 {
                    stream.flush().unwrap();
                    block
                } else {
                    next
                };
                let data = vec![fill; count * 4096];
                stream.write(block, &data).unwrap();
                let from = block as usize * 4096;
                expected[from..from + data.len()].copy_from_slice(&data);
                next = block + count as u64;
            }
            stream.finish(64 * 4096).unwrap();
            prop_assert_eq!(image.get_ref().len(), expected.len());
            prop_assert!(image.into_inner() == expected);
        }
    }

    #[test]
    fn writes_may_be_larger_than_the_buffer() {
        let mut image = Cursor::new(Vec::new());
        let mut stream = Stream::new(&mut image).unwrap();
        let data: Vec<u8> = (0..3 * GATHER).map(|i| (i / 4096 + i) as u8).collect();
        stream.write(0, &data[..GATHER + 4096]).unwrap();
        stream.write(GATHER as u64 / BLOCK_BYTES + 1, &data[GATHER + 4096..GATHER + 8192]).unwrap();
        stream.write(GATHER as u64 / BLOCK_BYTES + 2, &data[GATHER + 8192..]).unwrap();
        stream.finish(0).unwrap();
        assert!(image.into_inner() == data);
    }

    #[test]
    fn what_is_written_again_replaces_what_was_gathered_from_there_on() {
        let mut image = Cursor::new(Vec::new());
        let mut stream = Stream::new(&mut image).unwrap();
        stream.write(0, &[1; 3 * 4096]).unwrap();
        stream.write(1, &[2; 4096]).unwrap();
        stream.finish(4 * 4096).unwrap();
        let expected = [[1; 4096], [2; 4096], [0; 4096], [0; 4096]].concat();
        assert!(image.into_inner() == expected);
    }
}
