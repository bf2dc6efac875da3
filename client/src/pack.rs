//! A folder's files as the stream that the service takes: a tar. The user's own process reads them, so that no path of
//! theirs crosses the bus.

use crate::error::Error;
use std::{
    fs::{File, OpenOptions},
    io::{self, PipeWriter},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
};
use tokio::sync::oneshot;

/// The reading end of a stream, and how the packing ends.
pub type Packed = (OwnedFd, oneshot::Receiver<Result<(), Error>>);

/// Packs these files below `folder`, in this order, on a thread of its own.
///
/// # Errors
/// [`Error::File`] if there can be no pipe.
pub fn pack(folder: &Path, files: Vec<PathBuf>) -> Result<Packed, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        assert!(append(&mut tar, &link, Path::new("link")).is_err());
    }
}
