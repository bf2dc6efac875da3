//! A kernel's modules, the folder that holds `modules.dep`, packed for the service.

use crate::{
    error::Error,
    pack::{self, Packed},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The endings of a module's name, as kmod reads them.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// Packs the modules in `folder`.
///
/// # Errors
/// [`Error::Usage`] if it is not a folder of modules.
pub fn pack(folder: &Path) -> Result<Packed, Error> {
    if !folder.join("modules.dep").is_file() {
        return Err(Error::Usage(format!(
            "{} holds no modules.dep: give the folder of one kernel's modules, such as /lib/modules/$(uname -r), \
             and run depmod if it lacks the file",
            folder.display()
        )));
    }
    pack::pack(folder, files(folder)?)
}

/// The modules and their indexes below `folder`, in order. `build` and `source`, which lead to a kernel's
/// sources, are symbolic links and left alone with everything else.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let here = folder.join(&below);
        for entry in fs::read_dir(&here).map_err(|e| Error::file("read", &here, e))? {
            let entry = entry.map_err(|e| Error::file("read", &here, e))?;
            let kind = entry.file_type().map_err(|e| Error::file("read", entry.path(), e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let index = name.starts_with("modules.") && below.as_os_str().is_empty();
            if kind.is_dir() {
                folders.push(below.join(entry.file_name()));
            } else if kind.is_file() && (index || ENDINGS.iter().any(|ending| name.ends_with(ending))) {
                found.push(below.join(entry.file_name()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read};

    #[test]
    fn modules_and_indexes_travel_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("kernel/net")).unwrap();
        for path in
            ["modules.dep", "modules.order", "kernel/net/a.ko", "kernel/net/b.ko.xz", "kernel/net/readme"]
        {
            fs::write(at(path), path).unwrap();
        }
        std::os::unix::fs::symlink("/usr/src", at("build")).unwrap();
        let (stream, _told) = pack(folder.path()).unwrap();
        let mut archive = tar::Archive::new(File::from(stream));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, path);
            seen.push(path);
        }
        assert_eq!(seen, ["kernel/net/a.ko", "kernel/net/b.ko.xz", "modules.dep", "modules.order"]);
    }

    #[test]
    fn a_folder_without_modules_has_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = pack(folder.path()).unwrap_err().to_string();
        assert!(error.contains("modules.dep") && error.contains("depmod"), "{error}");
    }

    #[test]
    fn a_service_that_stops_reading_is_no_failure_here() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("modules.dep"), vec![0; 1 << 20]).unwrap();
        let (stream, told) = pack(folder.path()).unwrap();
        drop(stream);
        assert!(told.blocking_recv().unwrap().is_ok());
    }
}
