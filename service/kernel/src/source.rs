//! Where modules come from: a folder such as `/lib/modules/<release>`, or a stream ([`crate::ModuleTar`]).

use crate::KernelError;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A kernel's modules.
pub trait ModuleSource {
    /// Which kernel they belong to, for errors: the release as far as it is known.
    fn kernel(&self) -> String;

    /// The file at `path` (relative, without dots), or `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, is not a regular file or is longer than `most` bytes.
    fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>>;
}

/// The modules in a folder that only the host's administrator can change.
#[derive(Debug, Clone)]
pub struct ModuleFolder {
    path: PathBuf,
}

impl ModuleFolder {
    /// The folder that holds `modules.dep`.
    ///
    /// # Errors
    /// [`KernelError::Io`] when there is no such folder.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let io = |source| KernelError::Io { what: format!("open the modules in {}", path.display()), source };
        if !path.metadata().map_err(io)?.is_dir() {
            return Err(io(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: path.to_owned() })
    }
}

impl ModuleSource for ModuleFolder {
    fn kernel(&self) -> String {
        match self.path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => self.path.display().to_string(),
        }
    }

    fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path.join(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(too_long(most));
        }
        Ok(Some(bytes))
    }
}

/// What a source says of a file that is too long.
pub(crate) fn too_long(most: u64) -> io::Error {
    io::Error::other(format!("longer than {most} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_reads_files_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kernel")).unwrap();
        std::fs::write(dir.path().join("kernel/a.ko"), "12345").unwrap();
        let folder = ModuleFolder::open(dir.path()).unwrap();
        assert_eq!(folder.read("kernel/a.ko", 5).unwrap().as_deref(), Some(&b"12345"[..]));
        assert!(folder.read("kernel/a.ko", 4).unwrap_err().to_string().contains("longer than 4"));
        assert!(folder.read("kernel", 4).is_err());
        assert_eq!(folder.read("kernel/b.ko", 5).unwrap(), None);
        assert!(ModuleFolder::open(&dir.path().join("kernel/a.ko")).is_err());
        assert!(ModuleFolder::open(&dir.path().join("none")).is_err());
    }
}
