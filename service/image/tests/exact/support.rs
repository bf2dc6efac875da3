//! From archives to what a program would see of the image.

use crate::{
    fake::{Client, Image, Layer, Registry, check, quick},
    reader::{Reader, Seen},
};
use banger_image::{ImageError, Limits};
use std::{collections::BTreeMap, path::Path};

/// Every path of an image, "" for the root.
pub struct Tree(BTreeMap<Vec<u8>, Seen>);

/// Pulls layers, oldest first, with these limits; what fails leaves neither staging nor unfinished blobs.
pub async fn pull_with(layers: Vec<Layer>, limits: Limits) -> Result<Tree, ImageError> {
    let registry = Registry::start();
    registry.put_image("1", &Image::new(layers));
    // The folder goes with the client.
    let client = Client::new(limits);
    let (_, rootfs) = client.pull(registry.reference(":1")).await?;
    Ok(Tree::read(&rootfs))
}

/// Pulls archives as layers, oldest first, in all compressions in turn.
pub async fn pull(archives: &[Vec<u8>]) -> Tree {
    let layers = archives.iter().enumerate().map(|(number, archive)| match number % 3 {
        0 => Layer::gzip(archive.clone()),
        1 => Layer::zstd(archive.clone()),
        _ => Layer::plain(archive.clone()),
    });
    pull_with(layers.collect(), quick()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Pulls one archive.
pub async fn pull_one(archive: Vec<u8>) -> Tree {
    pull(&[archive]).await
}

impl Tree {
    /// Reads a filesystem that has nothing wrong with it.
    pub fn read(rootfs: &Path) -> Self {
        check(rootfs);
        let mut tree = Reader::open(rootfs).walk();
        // mke2fs makes it, so the writer does.
        tree.remove(b"/lost+found" as &[u8]);
        Self(tree)
    }

    #[track_caller]
    pub fn get(&self, path: impl AsRef<[u8]>) -> &Seen {
        let path = path.as_ref();
        self.0.get(path).unwrap_or_else(|| panic!("no {} in {}", String::from_utf8_lossy(path), self.show()))
    }

    pub fn has(&self, path: impl AsRef<[u8]>) -> bool {
        self.0.contains_key(path.as_ref())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A file's content, a link's target.
    #[track_caller]
    pub fn content(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        let seen = self.get(path);
        let mut content = vec![0; seen.size as usize];
        for (offset, bytes) in &seen.data {
            content[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        content
    }

    /// The namespace's number and the name of each attribute, with its value.
    #[track_caller]
    pub fn xattr(&self, path: &str, namespace: u8, name: &str) -> Option<&[u8]> {
        self.get(path).xattrs.get(&(namespace, name.as_bytes().to_vec())).map(Vec::as_slice)
    }

    /// All paths below the root, in order: `folder/`, `file=content`, `link->target`; a second name of a file is
    /// `name==first`.
    pub fn show(&self) -> String {
        let mut first = BTreeMap::new();
        let mut words = Vec::new();
        for (path, seen) in self.0.iter().filter(|(path, _)| !path.is_empty()) {
            let name = String::from_utf8_lossy(&path[1..]).into_owned();
            let content = || String::from_utf8_lossy(&self.content(path)).into_owned();
            words.push(match (seen.mode & 0o170_000, first.get(&seen.inode)) {
                (0o040_000, _) => format!("{name}/"),
                (_, Some(first)) => format!("{name}=={first}"),
                (0o100_000, _) => format!("{name}={}", content()),
                (0o120_000, _) => format!("{name}->{}", content()),
                (other, _) => format!("{name}?{other:o}"),
            });
            first.entry(seen.inode).or_insert(name);
        }
        words.join(" ")
    }
}
