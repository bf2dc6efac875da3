//! Modules that a client hands over as a tar stream of the folder that holds `modules.dep`.
//!
//! The stream is hostile until shown otherwise: nothing of it is extracted. Files that can be modules go one
//! after the other into a scratch file, and an index in memory says where each is.

use crate::{
    KernelError, ModuleSource,
    index::module_name,
    scratch::{Scratch, stream_error},
    select::MOST_MODULE,
    tarball::each_file,
};
use std::{
    fs::File,
    io::{self, Read},
};

/// The longest stream, in bytes. A distribution's modules are up to 1 GiB, unpacked.
pub(crate) const MOST_STREAM: u64 = 4 << 30;
/// The longest path, in bytes.
const MOST_PATH: usize = 512;

/// Modules out of a tar stream. Its entries may be in the folder itself (`./modules.dep`) or in folders above
/// it (`6.1.0/modules.dep`, `lib/modules/6.1.0/modules.dep`).
#[derive(Debug)]
pub struct ModuleTar {
    files: Scratch,
    /// The folder of `modules.dep` in the stream, with a final `/`, or nothing.
    folder: String,
}

impl ModuleTar {
    /// Reads the stream to its end. Modules and the two index files go to `scratch`, an empty file that nobody
    /// else has; everything else is passed over.
    ///
    /// # Errors
    /// [`KernelError::Stream`] when it is no tar stream, holds no `modules.dep` or more than one, or is beyond a
    /// bound; [`KernelError::Io`] when `scratch` cannot be written.
    pub fn receive(stream: impl Read, scratch: File) -> Result<Self, KernelError> {
        let mut files = Scratch::new(scratch);
        each_file(Bounded { inner: stream, left: MOST_STREAM }, &mut |path, size, from| match wanted(path)
            .filter(|_| size <= MOST_MODULE)
        {
            Some(path) => files.add(path, from, size),
            None => Ok(()),
        })?;
        let folder = folder_of_index(&files)?;
        Ok(Self { files, folder })
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
        self.files.read(&format!("{}{path}", self.folder), most)
    }
}

/// The path of an entry that is taken, without a leading `./`.
pub(crate) fn wanted(path: &[u8]) -> Option<String> {
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
fn folder_of_index(files: &Scratch) -> Result<String, KernelError> {
    let mut folders = files
        .paths()
        .filter_map(|path| path.strip_suffix("modules.dep"))
        .filter(|folder| !folder.ends_with("."));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_owned()),
        (None, _) => Err(stream_error("it has no modules.dep: hand over the folder /lib/modules/<release>")),
        (Some(_), Some(_)) => Err(stream_error("it has the modules of more than one kernel")),
    }
}

/// A reader that fails instead of passing its bound.
pub(crate) struct Bounded<R> {
    pub(crate) inner: R,
    pub(crate) left: u64,
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
