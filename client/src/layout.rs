//! An image layout in a folder as the stream that the service takes: a tar of its files. The user's own process reads
//! them, so that no path of theirs crosses the bus.

use crate::error::Error;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeWriter},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
};
use tokio::sync::oneshot;

/// Files that a layout may have; the service takes no more.
const MOST: usize = 65_536;

/// Packs `folder` on a thread of its own: the reading end of the stream, and how the packing ends.
///
/// # Errors
/// [`Error::Usage`] if it is not an image layout.
pub fn pack(folder: &Path) -> Result<(OwnedFd, oneshot::Receiver<Result<(), Error>>), Error> {
    if !folder.join("index.json").is_file() {
        return Err(Error::Usage(format!(
            "{} holds no index.json: it is not an image layout. Pack a root filesystem with \
             `tar -C {0} -c . | banger image import --name NAME -`",
            folder.display()
        )));
    }
    let files = files(folder)?;
    let (read, write) = io::pipe().map_err(|e| Error::file("make", "a pipe", e))?;
    let folder = folder.to_owned();
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        // Whoever no longer listens does not want to know.
        let _ = tell.send(write_all(&folder, &files, write));
    });
    Ok((read.into(), told))
}

fn write_all(folder: &Path, files: &[PathBuf], to: PipeWriter) -> Result<(), Error> {
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, to));
    let appended = files.iter().try_for_each(|file| {
        let path = folder.join(file);
        let failed = |e| Error::file("pack", &path, e);
        append(&mut tar, &path, file).map_err(failed)
    });
    let packed = match appended {
        Ok(()) => tar
            .into_inner()
            .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error))
            .map(drop)
            .map_err(|e| Error::file("pack", folder, e)),
        Err(error) => {
            // Dropping it would end the stream as if it were whole. So it stays open, and the job is cancelled.
            std::mem::forget(tar);
            Err(error)
        }
    };
    match packed {
        // The service had enough; its job tells why.
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        packed => packed,
    }
}

fn append<W: io::Write>(tar: &mut tar::Builder<W>, path: &Path, name: &Path) -> io::Result<()> {
    // A link that took a file's place meanwhile is not followed.
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file: File = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(metadata.len());
    header.set_mode(0o644);
    tar.append_data(&mut header, name, file)
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

    #[test]
    fn a_link_is_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        assert!(append(&mut tar, &link, Path::new("link")).is_err());
    }
}
