//! The files of an image archive by name, whatever their order.

use super::{
    open::{Input, nobody},
    outer, refused,
    region::{Region, Staging},
};
use crate::{
    Digest, ImageError, Limits, Progress, Unsafe,
    entry::{BodySink, Entries, Entry, Kind, Leaf},
    error::shorten,
    manifest::{Descriptor, limit},
    tar::Archive,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Links from one file to another until the content must come.
const MOST_LINKS: usize = 8;

/// What an archive has.
#[derive(Debug)]
pub(super) struct Members {
    named: HashMap<String, Member>,
}

#[derive(Debug)]
enum Member {
    File(Region),
    Link(String),
}

impl Members {
    /// Reads an archive's headers, and of a pipe also its files.
    pub(super) fn read(
        input: Input,
        staging: &Path,
        limits: &Limits,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Self, ImageError> {
        let mut members = Self { named: HashMap::new() };
        match input {
            Input::File(file) => {
                let size = Region::whole(Arc::clone(&file))?.size();
                let input = BufReader::new(At { file: Arc::clone(&file), at: 0 });
                let mut archive = Archive::new(input, nobody(), *limits);
                members.collect(&mut archive, limits, cancel, |archive| {
                    let (offset, length) = archive.seek_body()?;
                    match offset.checked_add(length) {
                        Some(end) if end <= size => Ok(Region::new(Arc::clone(&file), offset, length)),
                        _ => Err(refused("it ends early")),
                    }
                })?;
            }
            Input::Stream(stream) => {
                let mut staged = Staging::new(staging, limits.compressed)?;
                let mut archive =
                    Archive::new(BufReader::with_capacity(256 << 10, stream), nobody(), *limits);
                members.collect(&mut archive, limits, cancel, |archive| {
                    let from = staged.at();
                    archive.copy_body(&mut Copy { staged: &mut staged, cancel, progress })?;
                    Ok(staged.since(from))
                })?;
                // What writes into the pipe is not to be surprised by its end.
                let mut rest = archive.into_inner().take(limits.extension.0);
                io::copy(&mut rest, &mut io::sink()).map_err(|e| {
                    outer(e.downcast().unwrap_or_else(|e| refused(format!("it cannot be read: {e}"))))
                })?;
            }
        }
        Ok(members)
    }

    fn collect<A: Entries>(
        &mut self,
        archive: &mut A,
        limits: &Limits,
        cancel: &CancellationToken,
        mut body: impl FnMut(&mut A) -> Result<Region, ImageError>,
    ) -> Result<(), ImageError> {
        let mut count = 0;
        while let Some(entry) = archive.next().map_err(outer)? {
            if cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            count += 1;
            limit("the number of files in the archive", count, limits.members)?;
            let name = name(&entry.path, limits)?;
            let member = match entry.kind {
                Kind::Directory => continue,
                Kind::Leaf(Leaf::File) => Member::File(body(archive).map_err(outer)?),
                Kind::Leaf(Leaf::Symlink(ref target)) => Member::Link(beside(&entry, &name, target)?),
                Kind::HardLink(ref target) => Member::Link(self::name(target, limits)?),
                Kind::Leaf(_) => return Err(entry_refused(&entry.path, "an image archive has no devices")),
            };
            if self.named.insert(name, member).is_some() {
                return Err(entry_refused(&entry.path, "the archive has it twice"));
            }
        }
        Ok(())
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// The file of this name, links followed.
    pub(super) fn get(&self, name: &str) -> Result<Region, ImageError> {
        let mut at = name;
        for _ in 0..=MOST_LINKS {
            match self.named.get(at) {
                Some(Member::File(region)) => return Ok(region.clone()),
                Some(Member::Link(target)) => at = target,
                None => return Err(refused(format!("it has no file {:?}", shorten(at.as_bytes())))),
            }
        }
        Err(entry_refused(name.as_bytes(), "it is a circle of links"))
    }

    /// The blob that a descriptor names, as image layouts keep them. It is checked when it is read.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Region, ImageError> {
        let Descriptor { digest, size } = descriptor;
        let region = self.get(&blob_name(digest))?;
        match region.size() == *size {
            true => Ok(region.expecting(digest.clone())),
            false => Err(ImageError::DigestMismatch {
                what: format!("blob {} of the archive", digest.short()),
                expected: digest.clone(),
                actual: format!("{} bytes instead of {size}", region.size()),
            }),
        }
    }
}

/// Where an image layout keeps a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn entry_refused(name: &[u8], why: &'static str) -> ImageError {
    Unsafe::Entry { name: shorten(name), why }.into()
}

/// A name without `./` and doubled slashes.
fn name(path: &[u8], limits: &Limits) -> Result<String, ImageError> {
    limit("the length of a path", path.len() as u64, limits.path.into())?;
    let Ok(text) = std::str::from_utf8(path) else { return Err(entry_refused(path, "its name is not text")) };
    if text.starts_with('/') {
        return Err(entry_refused(path, "its name begins with a slash"));
    }
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.contains(&"..") {
        true => Err(entry_refused(path, "it has \"..\" in it")),
        false => Ok(parts.join("/")),
    }
}

/// What a symbolic link means, counted from the folder that it stands in and never above the archive.
fn beside(entry: &Entry, name: &str, target: &[u8]) -> Result<String, ImageError> {
    const OUTSIDE: &str = "it is a link out of the archive";
    let refused = || entry_refused(&entry.path, OUTSIDE);
    let target = std::str::from_utf8(target).map_err(|_| refused())?;
    if target.starts_with('/') {
        return Err(refused());
    }
    let mut parts: Vec<_> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(refused)?),
            other => parts.push(other),
        }
    }
    Ok(parts.join("/"))
}

/// Puts the body of an entry into the staging file.
struct Copy<'a> {
    staged: &'a mut Staging,
    cancel: &'a CancellationToken,
    progress: &'a dyn Progress,
}

impl BodySink for Copy<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.staged.append(bytes, self.cancel)?;
        self.progress.advance(self.staged.at());
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), ImageError> {
        match length {
            0 => Ok(()),
            _ => Err(refused("it has a sparse file, and blobs are not")),
        }
    }
}

/// A file that is read at a place of this reader's own: the descriptor's place is its owner's.
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        let limits = Limits::default();
        for (path, plain) in [("./a//b", "a/b"), ("a/./b/", "a/b"), ("blobs/sha256/x", "blobs/sha256/x")] {
            assert_eq!(name(path.as_bytes(), &limits).unwrap(), plain);
        }
        for bad in [&b"/etc/passwd"[..], b"../x", b"a/../b", b"\xff"] {
            assert!(matches!(name(bad, &limits), Err(ImageError::Unsafe(Unsafe::Entry { .. }))), "{bad:?}");
        }
        assert!(name(&[b'a'; 5000], &limits).is_err());
    }

    #[test]
    fn links_lead_to_files_of_the_archive_and_end() {
        let entry = Entry {
            path: b"id/layer.tar".to_vec(),
            kind: Kind::Directory,
            metadata: banger_ext4::Metadata::default(),
        };
        let link = |target: &str| beside(&entry, "id/layer.tar", target.as_bytes());
        assert_eq!(link("../other/layer.tar").unwrap(), "other/layer.tar");
        assert_eq!(link("./x").unwrap(), "id/x");
        for outside in ["/etc/passwd", "../../x", "../../../../etc/passwd"] {
            assert!(link(outside).is_err(), "{outside}");
        }
        let circle = [("a", "b"), ("b", "a")].map(|(a, b)| (a.to_owned(), Member::Link(b.to_owned())));
        let members = Members { named: circle.into() };
        assert!(members.get("a").unwrap_err().to_string().contains("circle"));
        assert!(members.get("c").is_err());
    }
}
