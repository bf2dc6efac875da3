//! Files out of an archive: one behind the other in a scratch file, with an index in memory.

use crate::{KernelError, source::too_long};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};

/// How much is copied at a time.
const PIECE: usize = 64 << 10;

/// Files by their paths. Nothing of an archive is ever extracted by name to the host's filesystem.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    files: BTreeMap<String, Place>,
    end: u64,
}

/// Where a file lies in the scratch file.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

impl Scratch {
    /// Keeps files in `file`, which is empty and which nobody else has.
    pub(crate) fn new(file: File) -> Self {
        Self { file, files: BTreeMap::new(), end: 0 }
    }

    /// Keeps the `size` bytes of `from` as `path`. Of two files with one path the later counts.
    ///
    /// # Errors
    /// [`KernelError::Stream`] when `from` fails or ends early; [`KernelError::Io`] when there is no room.
    pub(crate) fn add(&mut self, path: String, from: &mut dyn Read, size: u64) -> Result<(), KernelError> {
        let mut buffer = vec![0; PIECE];
        let mut left = size;
        let mut to = &self.file;
        while left > 0 {
            let most = left.min(PIECE as u64) as usize;
            let read = from.read(&mut buffer[..most]).map_err(refused)?;
            if read == 0 {
                return Err(stream_error("it ends in the middle of a file"));
            }
            let write = |source| KernelError::Io { what: "keep what was unpacked".into(), source };
            to.write_all(&buffer[..read]).map_err(write)?;
            left -= read as u64;
        }
        self.files.insert(path, Place { offset: self.end, size });
        self.end += size;
        Ok(())
    }

    /// The paths, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The file at `path`, when there is one.
    ///
    /// # Errors
    /// When it is longer than `most` bytes, or the scratch file cannot be read.
    pub(crate) fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.files.get(path) else { return Ok(None) };
        if place.size > most {
            return Err(too_long(most));
        }
        let mut bytes = vec![0; place.size as usize];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(Some(bytes))
    }

    /// Copies the file at `path`, when there is one; tells its size.
    ///
    /// # Errors
    /// When one of the two files fails.
    pub(crate) fn copy(&self, path: &str, to: &mut impl Write) -> io::Result<u64> {
        let Some(place) = self.files.get(path) else { return Ok(0) };
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        while done < place.size {
            let most = (place.size - done).min(PIECE as u64) as usize;
            self.file.read_exact_at(&mut buffer[..most], place.offset + done)?;
            to.write_all(&buffer[..most])?;
            done += most as u64;
        }
        Ok(done)
    }
}

pub(crate) fn stream_error(why: impl Into<String>) -> KernelError {
    KernelError::Stream { why: why.into() }
}

pub(crate) fn refused(error: io::Error) -> KernelError {
    stream_error(error.to_string())
}
