//! The files of an image layout in a folder, packed for the service.

use crate::{
    error::Error,
    pack::{self, Packed},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files that a layout may have; the service takes no more.
const MOST: usize = 65_536;

/// Packs the layout in `folder`.
///
/// # Errors
/// [`Error::Usage`] if it is not an image layout.
pub fn pack(folder: &Path) -> Result<Packed, Error> {
    if !folder.join("index.json").is_file() {
        return Err(Error::Usage(format!(
            "{} holds no index.json: it is not an image layout. Pack a root filesystem with \
             `tar -C {0} -c . | banger image import --name NAME -`",
            folder.display()
        )));
    }
    pack::pack(folder, files(folder)?)
}

/// The layout's files: the two at the top, and the blobs. Links and everything else are left alone.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found: Vec<PathBuf> = Vec::new();
    for name in ["oci-layout", "index.json"] {
        let path = folder.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            found.push(name.into());
        }
    }
    let top = found.len();
    for algorithm in folders(folder, Path::new("blobs"))? {
        for (name, kind) in entries(folder, &algorithm)? {
            if kind.is_file() {
                found.push(name);
            }
            if found.len() > MOST {
                let why = format!("{} has more than {MOST} files", folder.display());
                return Err(Error::Usage(why));
            }
        }
    }
    found[top..].sort();
    Ok(found)
}

fn folders(folder: &Path, below: &Path) -> Result<Vec<PathBuf>, Error> {
    if !fs::symlink_metadata(folder.join(below)).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Vec::new());
    }
    let all = entries(folder, below)?.into_iter();
    Ok(all.filter(|(_, kind)| kind.is_dir()).map(|(path, _)| path).collect())
}

fn entries(folder: &Path, below: &Path) -> Result<Vec<(PathBuf, fs::FileType)>, Error> {
    let here = folder.join(below);
    let failed = |e| Error::file("read", &here, e);
    fs::read_dir(&here)
        .and_then(|entries| {
            entries.map(|entry| entry.and_then(|e| Ok((below.join(e.file_name()), e.file_type()?)))).collect()
        })
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io};

    #[test]
    fn files_of_the_layout_travel_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("blobs/sha256")).unwrap();
        for path in ["oci-layout", "index.json", "blobs/sha256/bb", "blobs/sha256/aa", "other"] {
            fs::write(at(path), path).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", at("blobs/sha256/cc")).unwrap();
        std::os::unix::fs::symlink("/etc", at("blobs/sha512")).unwrap();
        let (stream, told) = pack(folder.path()).unwrap();
        let mut archive = tar::Archive::new(File::from(stream));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            assert_eq!(text, path);
            seen.push(path);
        }
        assert_eq!(seen, ["oci-layout", "index.json", "blobs/sha256/aa", "blobs/sha256/bb"]);
        assert!(told.blocking_recv().unwrap().is_ok());
    }

    #[test]
    fn another_folder_has_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = pack(folder.path()).unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains("tar -C"), "{error}");
    }
}
