//! A stopped VM's disk becomes an image.

use super::publish::{self, Claim};
use crate::{
    disk::Disk,
    error::Error,
    ids,
    jobs::Job,
    service::Service,
    store::{ImageRow, VmRow},
};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Filesystem, ImageError, ROOTFS, Unsupported};
use banger_model::{Bytes, DiskBackend, ImageName, ImageSource, Phase, Uid, VmId};
use std::{fs::File, path::Path, sync::Arc};

/// A disk to commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose.
    pub vm: VmId,
    /// What the image is to be called.
    pub name: ImageName,
    /// For whom.
    pub owner: Uid,
}

/// Copies a VM's disk and publishes it as an image that is run as the VM's own image is. It is private until it is
/// shared: nobody but its user knows what is on the disk. The VM cannot start meanwhile.
///
/// # Errors
/// [`Error::NotStopped`], [`Error::DirtyDisk`], a name taken, or what the disk says. Nothing is left then.
pub async fn commit(service: Arc<Service>, request: Commit, job: Arc<Job>) -> Result<Dict, Error> {
    let Commit { vm, name, owner } = request;
    let claim = Claim { name, owner, reference: String::new() };
    claim.check(&service)?;
    let machine = service.machines.of(vm);
    let _turn = machine.turn.lock().await;
    let vm = service.vm(vm)?;
    if vm.state.may_have_process() || !vm.has_disk {
        return Err(Error::NotStopped { name: vm.name.to_string(), state: vm.state });
    }
    let image = service.image(vm.image)?;
    job.phase(Phase::Copying);
    let id = publish::make(&service, &claim, &job, async |id, staging| {
        let (disk, to, working) = (service.disk(&vm), staging.join(ROOTFS), job.clone());
        let vm = vm.clone();
        let (of, below) = (service.clone(), image.clone());
        let copied = tokio::task::spawn_blocking(move || copy(&of, &vm, &below, &disk, &to, &working));
        let (size, content) = copied.await??;
        Ok(ImageRow {
            id,
            names: vec![claim.name.clone()],
            source: ImageSource::Commit,
            reference: String::new(),
            digest: String::new(),
            size,
            content,
            compressed: Bytes(0),
            layers: Vec::new(),
            owner,
            private: true,
            signature: String::new(),
            created: ids::now().seconds,
            ..image.clone()
        })
    })
    .await?;
    Ok(DictWriter::new().with("image", names::path_of(id)).done())
}

/// The size of the image, and what of it is in use.
fn copy(
    service: &Service,
    vm: &VmRow,
    image: &ImageRow,
    disk: &Disk,
    to: &Path,
    job: &Job,
) -> Result<(Bytes, Bytes), Error> {
    let inspect = |file: &File| {
        Filesystem::inspect(file).map_err(|error| match error {
            ImageError::Unsupported(Unsupported::Filesystem(why)) => {
                let why = why.trim_end_matches(": run e2fsck first").to_owned();
                Error::DirtyDisk { name: vm.name.to_string(), why }
            }
            other => other.into(),
        })
    };
    // Where the disk is a file, what cannot be taken is found before it is copied.
    if disk.backend != DiskBackend::DeviceMapper {
        inspect(&File::open(&disk.path).map_err(|e| Error::disk(&disk.path, e))?)?;
    }
    let copy = disk.copy_out(service, image, to, job)?;
    let found = inspect(&copy)?;
    copy.sync_all().map_err(|e| Error::disk(to, e))?;
    let length = copy.metadata().map_err(|e| Error::disk(to, e))?.len();
    Ok((Bytes(length), found.used))
}
