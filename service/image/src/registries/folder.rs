//! The files that say something about registries, read again when one has changed.

use super::{Registries, certificates_beside};
use crate::ImageError;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A folder of `*.toml`, with the folder `certs.d` beside it.
#[derive(Debug)]
pub struct RegistriesFolder {
    folder: PathBuf,
    /// What was read last, and from which files.
    known: Mutex<Option<(Vec<Stamp>, Arc<Registries>)>>,
}

/// A file, and what shows that it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub path: PathBuf,
    /// Inode, size, and time of the last change of anything in nanoseconds; nothing when it is not there.
    state: Option<(u64, u64, i64, i64)>,
}

impl Stamp {
    pub(crate) fn of(path: PathBuf) -> Self {
        let state = fs::metadata(&path).ok().map(|m| (m.ino(), m.size(), m.ctime(), m.ctime_nsec()));
        Self { path, state }
    }
}

impl RegistriesFolder {
    /// The registries that the files of this folder describe; it need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// What the files say now.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] when one cannot be read or holds something wrong: what an administrator forbids
    /// must not be allowed by a typing error.
    pub fn current(&self) -> Result<Arc<Registries>, ImageError> {
        let files = files(&self.folder, "toml").map_err(|error| unreadable(&self.folder, &error))?;
        let stamps: Vec<Stamp> = files.into_iter().map(Stamp::of).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, registries)) = known.as_ref().filter(|(of, _)| *of == stamps) {
            return Ok(Arc::clone(registries));
        }
        let mut read = Vec::with_capacity(stamps.len());
        for Stamp { path, .. } in &stamps {
            let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            read.push((path.clone(), text));
        }
        let registries = Arc::new(Registries::read(read, certificates_beside(&self.folder))?);
        *known = Some((stamps, Arc::clone(&registries)));
        Ok(registries)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ImageError {
    ImageError::Configuration { path: path.into(), line: None, why: format!("it cannot be read: {error}") }
}

/// The files of a folder whose names end in `.extension`, in the order of their names; none when there is no folder.
/// Hidden ones are an editor's.
pub(super) fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_again_when_they_change() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("registries.d");
        let registries = RegistriesFolder::new(folder.clone());
        let short = || registries.current().unwrap().reference("x").unwrap().registry().to_owned();
        assert_eq!(short(), "docker.io", "no folder, no files");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("20.toml"), "short-name-default = 'b.example'").unwrap();
        fs::write(folder.join("10.toml"), "short-name-default = 'a.example'").unwrap();
        fs::write(folder.join("30.toml.bak"), "not TOML at all").unwrap();
        fs::write(folder.join(".#30.toml"), "not TOML at all").unwrap();
        assert_eq!(short(), "b.example");
        let same = registries.current().unwrap();
        assert!(Arc::ptr_eq(&same, &registries.current().unwrap()), "nothing changed, nothing read");
        fs::remove_file(folder.join("20.toml")).unwrap();
        assert_eq!(short(), "a.example");
        fs::write(folder.join("10.toml"), "\nshort-name-defalt = 'c.example'").unwrap();
        let error = registries.current().unwrap_err().to_string();
        assert!(error.contains("10.toml, line 2: unknown field"), "{error}");
        fs::write(folder.join("10.toml"), "short-name-default = 'c.example'").unwrap();
        assert_eq!(short(), "c.example");
    }

    #[test]
    fn certificates_of_a_host_are_found_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let of = root.path().join("certs.d/registry.example:5000");
        fs::create_dir_all(&of).unwrap();
        fs::write(of.join("ca.crt"), "x").unwrap();
        fs::write(of.join("client.key"), "x").unwrap();
        let registries = RegistriesFolder::new(root.path().join("registries.d"));
        let registries = registries.current().unwrap();
        let found = registries.connection("registry.example:5000", "app").certificates;
        assert_eq!(found.iter().map(|stamp| stamp.path.clone()).collect::<Vec<_>>(), [of.join("ca.crt")]);
        assert!(registries.connection("registry.example", "app").certificates.is_empty());
        fs::write(of.join("ca.crt"), "another").unwrap();
        assert_ne!(registries.connection("registry.example:5000", "app").certificates, found);
    }
}
