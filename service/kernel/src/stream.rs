//! Modules that a client hands over as a tar stream of the folder that holds `modules.dep`.
//!
//! The stream is hostile until shown otherwise: nothing of it is extracted. Files that can be modules go one
//! after the other into a scratch file, and an index in memory says where each is.

use crate::{KernelError, ModuleSource, index::module_name, select::MOST_MODULE, source::too_long};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};
use tar::EntryType;

/// The longest stream, in bytes. A distribution's modules are up to 1 GiB, unpacked.
const MOST_STREAM: u64 = 4 << 30;
/// The most entries; distributions have 4,000 to 10,000.
const MOST_ENTRIES: u64 = 100_000;
/// The longest path, in bytes.
const MOST_PATH: usize = 512;
/// The longest extended header, in bytes.
const MOST_EXTENSION: u64 = 64 << 10;

/// Modules out of a tar stream. Its entries may be in the folder itself (`./modules.dep`) or in folders above
/// it (`6.1.0/modules.dep`, `lib/modules/6.1.0/modules.dep`).
#[derive(Debug)]
pub struct ModuleTar {
    scratch: File,
    files: HashMap<String, Place>,
    /// The folder of `modules.dep` in the stream, with a final `/`, or nothing.
    folder: String,
}

/// Where a file lies in the scratch file.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

impl ModuleTar {
    /// Reads the stream to its end. Modules and the two index files go to `scratch`, an empty file that nobody
    /// else has; everything else is passed over.
    ///
    /// # Errors
    /// [`KernelError::Stream`] when it is no tar stream, holds no `modules.dep` or more than one, or is beyond a
    /// bound; [`KernelError::Io`] when `scratch` cannot be written.
    pub fn receive(stream: impl Read, scratch: File) -> Result<Self, KernelError> {
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(Bounded { inner: stream, left: MOST_STREAM });
        let mut entries = 0;
        let mut end = 0;
        let mut long_path: Option<Vec<u8>> = None;
        // Raw: the tar crate would read extended headers of any length into memory.
        for entry in archive.entries().map_err(refused)?.raw(true) {
            let mut entry = entry.map_err(refused)?;
            entries += 1;
            if entries > MOST_ENTRIES {
                return Err(stream_error(format!("it has more than {MOST_ENTRIES} entries")));
            }
            match entry.header().entry_type() {
                EntryType::GNULongName => {
                    let mut path = extension(&mut entry)?;
                    path.retain(|b| *b != 0);
                    long_path = Some(path);
                }
                EntryType::XHeader => {
                    if let Some(path) = pax_path(&extension(&mut entry)?)? {
                        long_path = Some(path);
                    }
                }
                EntryType::GNULongLink => {}
                EntryType::Regular | EntryType::Continuous => {
                    let path = long_path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                    let size = entry.size();
                    let Some(path) = wanted(&path).filter(|_| size <= MOST_MODULE) else { continue };
                    copy(&mut entry, &scratch, size)?;
                    files.insert(path, Place { offset: end, size });
                    end += size;
                }
                _ => long_path = None,
            }
        }
        let folder = folder_of_index(&files)?;
        Ok(Self { scratch, files, folder })
    }
}

impl ModuleSource for ModuleTar {
    fn kernel(&self) -> String {
        let folder = self.folder.trim_end_matches('/');
        match folder.rsplit('/').next() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => "being imported".to_owned(),
        }
    }

    fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.files.get(&format!("{}{path}", self.folder)) else { return Ok(None) };
        if place.size > most {
            return Err(too_long(most));
        }
        // At most MOST_MODULE, which receive() saw to.
        let mut bytes = vec![0; place.size as usize];
        self.scratch.read_exact_at(&mut bytes, place.offset)?;
        Ok(Some(bytes))
    }
}

/// The path of an entry that is taken, without a leading `./`.
fn wanted(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_prefix("./").unwrap_or(path);
    let module = module_name(path).is_some();
    let index = ["modules.dep", "modules.builtin"]
        .iter()
        .any(|name| path.strip_suffix(name).is_some_and(|folder| folder.is_empty() || folder.ends_with('/')));
    let clean = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (path.len() <= MOST_PATH && clean && (module || index)).then(|| path.to_owned())
}

/// Where `modules.dep` is.
fn folder_of_index(files: &HashMap<String, Place>) -> Result<String, KernelError> {
    let mut folders = files
        .keys()
        .filter_map(|path| path.strip_suffix("modules.dep"))
        .filter(|folder| !folder.ends_with("."));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_owned()),
        (None, _) => Err(stream_error("it has no modules.dep: hand over the folder /lib/modules/<release>")),
        (Some(_), Some(_)) => Err(stream_error("it has the modules of more than one kernel")),
    }
}

/// The whole of an extended header.
fn extension(entry: &mut impl Read) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    entry.take(MOST_EXTENSION + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > MOST_EXTENSION {
        return Err(stream_error(format!("it has an extended header of more than {MOST_EXTENSION} bytes")));
    }
    Ok(bytes)
}

/// The `path` record of a PAX header (pax(1), "length key=value\n").
fn pax_path(header: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
    let mut path = None;
    for record in tar::PaxExtensions::new(header) {
        let record = record.map_err(refused)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" => return Err(stream_error("it has a file with an extended size")),
            _ => {}
        }
    }
    Ok(path)
}

/// Copies one entry's `size` bytes to the end of the scratch file.
fn copy(entry: &mut impl Read, mut scratch: &File, size: u64) -> Result<(), KernelError> {
    let mut buffer = [0; 64 << 10];
    let mut left = size;
    while left > 0 {
        let most = buffer.len().min(left as usize);
        let read = entry.read(&mut buffer[..most]).map_err(refused)?;
        if read == 0 {
            return Err(stream_error("it ends in the middle of a file"));
        }
        let write = |source| KernelError::Io { what: "keep the stream of modules".into(), source };
        scratch.write_all(&buffer[..read]).map_err(write)?;
        left -= read as u64;
    }
    Ok(())
}

fn stream_error(why: impl Into<String>) -> KernelError {
    KernelError::Stream { why: why.into() }
}

fn refused(error: io::Error) -> KernelError {
    stream_error(error.to_string())
}

/// A reader that fails instead of passing its bound.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(format!("it is longer than {MOST_STREAM} bytes")))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
