//! Catalogues: what can be pulled by a plain name. docs/catalogue.md has the format.
//!
//! One document type tells of images and kernels. What is built in comes first, then the administrator's files; a later
//! entry of a name wins. A file that is wrong in one place does not count at all, and takes nothing else with it.

mod document;

use crate::{Digest, Platform};
use banger_model::Bytes;
use reqwest::Url;
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What comes with banger.
const BUILT_IN: &str = include_str!("../../catalogue.json");
/// The longest file that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// The most files of a folder that are read.
const MOST_FILES: usize = 256;

/// What an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A root filesystem with a manifest, as one bundle.
    Image,
    /// A kernel: a distribution's package or a bundle.
    Kernel,
}

impl EntryKind {
    /// `image` or `kernel`.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Image => "image",
            EntryKind::Kernel => "kernel",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its name: an image's or a kernel's.
    pub name: String,
    /// What it is, in words for people.
    pub description: String,
    /// The processor, as OCI images name it: `amd64`.
    pub architecture: String,
    /// Where it is.
    pub artifact: Artifact,
    /// For an image, the kernel that it wants; empty when any will do.
    pub kernel: String,
    /// For a kernel, its release; empty when nobody said.
    pub release: String,
}

/// A file that is pinned: where it is, and what its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// HTTPS, or plain HTTP on loopback.
    pub url: Url,
    /// The sha256 of the file as it is downloaded.
    pub digest: Digest,
    /// Its length.
    pub size: Bytes,
}

/// Everything that can be pulled by a plain name.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<(EntryKind, String, String), Entry>,
    problems: Vec<Problem>,
}

/// A file that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl Catalogue {
    /// What is built in, then each folder's files by name. A folder that is not there is an empty one.
    pub fn read(folders: &[&Path]) -> Self {
        let mut catalogue = Self::default();
        catalogue.add(Path::new("the catalogue that is built in"), BUILT_IN.as_bytes());
        for folder in folders {
            match files(folder) {
                Ok(files) => {
                    for file in files {
                        match read_file(&file) {
                            Ok(text) => catalogue.add(&file, &text),
                            Err(error) => catalogue.problem(&file, error.to_string()),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => catalogue.problem(folder, error.to_string()),
            }
        }
        catalogue
    }

    fn add(&mut self, path: &Path, text: &[u8]) {
        match document::parse(text) {
            Ok(entries) => {
                let keyed = entries
                    .into_iter()
                    .map(|entry| ((entry.kind, entry.name.clone(), entry.architecture.clone()), entry));
                self.entries.extend(keyed);
            }
            Err(why) => self.problem(path, why),
        }
    }

    fn problem(&mut self, path: &Path, why: String) {
        self.problems.push(Problem { path: path.to_owned(), why });
    }

    /// Every entry: images first, then by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The files that do not count.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The entry of this name for this platform.
    pub fn find(&self, kind: EntryKind, name: &str, platform: &Platform) -> Option<&Entry> {
        let architecture = platform.normal().architecture;
        let linux = platform.os == "linux";
        self.entries.get(&(kind, name.to_owned(), architecture)).filter(|_| linux)
    }

    /// The processors for which there is something of this name.
    pub fn architectures(&self, kind: EntryKind, name: &str) -> Vec<&str> {
        let of_name = self.entries().filter(|entry| entry.kind == kind && entry.name == name);
        of_name.map(|entry| entry.architecture.as_str()).collect()
    }
}

/// The files of a folder that are catalogues, by name.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a pipe would wait.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(io::Error::other(format!("it is longer than {LONGEST} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests;
