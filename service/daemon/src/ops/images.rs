//! Deleting, pruning and exporting images.

use crate::{
    disk,
    error::Error,
    jobs::Job,
    service::Service,
    store::{ImageRow, StoreError},
    transfer::{Direction, Peer},
};
use banger_dbus::{Dict, DictWriter};
use banger_model::{ImageId, Phase, Uid};
use std::{collections::HashSet, fs::File, os::fd::OwnedFd, sync::Arc};

/// Removes an image.
///
/// # Errors
/// [`Error::InUse`] while a VM is made of it; it names those of the caller's VMs.
pub async fn delete(
    service: Arc<Service>,
    image: ImageRow,
    caller: Uid,
    job: Arc<Job>,
) -> Result<Dict, Error> {
    job.phase(Phase::Removing);
    remove(&service, &image, caller).await?;
    Ok(Dict::new())
}

async fn remove(service: &Service, image: &ImageRow, caller: Uid) -> Result<(), Error> {
    match service.store.remove_image(image.id) {
        Err(StoreError::InUse) => {
            let by = users(service, image.id, caller)?;
            return Err(Error::InUse { what: "image", name: image.name.to_string(), by });
        }
        result => result?,
    }
    service.hide_image(image.id).await;
    let folder = service.images().join(image.id.to_string());
    tokio::fs::remove_dir_all(&folder).await.map_err(|e| Error::disk(&folder, e))
}

/// The names of this user's VMs that are made of an image; of everybody's for root.
///
/// # Errors
/// When the database fails.
pub fn users(service: &Service, image: ImageId, caller: Uid) -> Result<Vec<String>, Error> {
    let vms = service.store.vms()?.into_iter();
    let of_image = vms.filter(|vm| vm.image == image && (vm.owner == caller || caller == Uid::ROOT));
    Ok(of_image.map(|vm| vm.name.to_string()).collect())
}

/// What to prune.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Whose images: this user's, everybody's for root with `all`.
    pub caller: Uid,
    /// Unused images too, not only cached blobs.
    pub all: bool,
    /// Only tell.
    pub dry_run: bool,
}

/// Removes the caller's images that no VM is made of (with `all`), and the cached blobs, which a later pull
/// would download again.
///
/// # Errors
/// What could not be removed.
pub async fn prune(service: Arc<Service>, what: Prune, job: Arc<Job>) -> Result<Dict, Error> {
    job.phase(Phase::Removing);
    let mut bytes = service.puller.prune_blobs(what.dry_run)?;
    let mut names = Vec::new();
    if what.all {
        let used: HashSet<ImageId> = service.store.vms()?.iter().map(|vm| vm.image).collect();
        let mine = |image: &ImageRow| image.owner == what.caller || what.caller == Uid::ROOT;
        for image in service.store.images()?.into_iter().filter(|i| mine(i) && !used.contains(&i.id)) {
            let held = disk::used(&service.rootfs(image.id));
            if !what.dry_run {
                match remove(&service, &image, what.caller).await {
                    // Somebody made a VM of it meanwhile.
                    Err(Error::InUse { .. }) => continue,
                    result => result?,
                }
            }
            bytes.0 += held.0;
            names.push(image.name.to_string());
        }
    }
    let count = names.len() as u32;
    Ok(DictWriter::new().with("count", count).with("bytes", bytes).with("images", names).done())
}

/// Writes an image's filesystem to a client's descriptor.
///
/// # Errors
/// [`Error::Descriptor`] when it is neither a file nor a pipe; else what failed.
pub async fn export(
    service: Arc<Service>,
    image: ImageRow,
    to: OwnedFd,
    job: Arc<Job>,
) -> Result<Dict, Error> {
    job.phase(Phase::Exporting);
    job.total(image.size.0);
    let path = service.rootfs(image.id);
    let working = job.clone();
    tokio::task::spawn_blocking(move || {
        let mut peer = Peer::new(to, "output", Direction::Out, working.cancel.clone())?;
        let from = File::open(&path).map_err(|e| Error::disk(&path, e))?;
        peer.send(&from, &path, |n| working.advance(n))
    })
    .await??;
    Ok(DictWriter::new().with("bytes", image.size).done())
}
