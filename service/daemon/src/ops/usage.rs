//! How much of the disk banger takes, as du(1) counts it.

use crate::{error::Error, service::Service};
use banger_dbus::{Dict, DictWriter};
use banger_model::{Bytes, ImageId};
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Counts blocks; a file with several names counts once.
#[derive(Default)]
struct Counter {
    seen: HashSet<(u64, u64)>,
}

impl Counter {
    fn blocks(&mut self, metadata: &Metadata) -> u64 {
        let known =
            metadata.nlink() > 1 && !metadata.is_dir() && !self.seen.insert((metadata.dev(), metadata.ino()));
        // st_blocks counts 512-byte units whatever the filesystem's block size (stat(2)).
        if known { 0 } else { metadata.blocks() * 512 }
    }

    /// A file, or a folder with everything in it. What goes away meanwhile takes nothing.
    fn tree(&mut self, path: &Path) -> io::Result<u64> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let mut bytes = self.blocks(&metadata);
        if metadata.is_dir() {
            let entries = match fs::read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
                other => other?,
            };
            for entry in entries {
                bytes += self.tree(&entry?.path())?;
            }
        }
        Ok(bytes)
    }
}

/// What banger takes of the disk by kind, what of it a prune would free, and all of it together: what `du -s` says of
/// the state folder.
///
/// # Errors
/// When a folder cannot be read.
pub fn usage(service: &Service) -> Result<Dict, Error> {
    let state = &service.config.state;
    let failed = |e| Error::disk(state, e);
    let images = service.store.images()?;
    let vms = service.store.vms()?;
    let used: HashSet<ImageId> = vms.iter().map(|vm| vm.image).collect();
    // What is needed is counted first, so that a file that it shares with something unused is not called free.
    let mut counter = Counter::default();
    let mut of_images = |needed: bool| -> Result<u64, Error> {
        let some = images.iter().filter(|image| used.contains(&image.id) == needed);
        some.map(|image| counter.tree(&service.images().join(image.id.to_string())).map_err(failed)).sum()
    };
    let (needed, unused) = (of_images(true)?, of_images(false)?);
    let mut of = |name: &str| counter.tree(&state.join(name)).map_err(failed);
    let (blobs, kernels, machines) = (of("blobs")?, of("kernels")?, of("vms")?);
    let volumes = of("volumes")?;
    let all = Counter::default().tree(state).map_err(failed)?;
    let other = all.saturating_sub(needed + unused + blobs + kernels + machines + volumes);
    Ok(DictWriter::new()
        .with("images", Bytes(needed + unused))
        .with("images-count", images.len() as u32)
        .with("images-unused", Bytes(unused))
        .with("blobs", Bytes(blobs))
        .with("kernels", Bytes(kernels))
        .with("vms", Bytes(machines))
        .with("vms-count", vms.len() as u32)
        .with("volumes", Bytes(volumes))
        .with("volumes-count", service.store.volumes()?.len() as u32)
        .with("other", Bytes(other))
        .with("total", Bytes(all))
        .done())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_holes_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(path("a"), path("b")).unwrap();
        fs::create_dir(path("d")).unwrap();
        fs::hard_link(path("a"), path("d/c")).unwrap();
        fs::File::create(path("hole")).unwrap().set_len(1 << 30).unwrap();
        let du = std::process::Command::new("/usr/bin/du").args(["-s", "-B1"]).arg(folder.path()).output();
        let du = String::from_utf8(du.unwrap().stdout).unwrap();
        let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(Counter::default().tree(folder.path()).unwrap(), du);
        assert_eq!(Counter::default().tree(&path("none")).unwrap(), 0);
    }
}
