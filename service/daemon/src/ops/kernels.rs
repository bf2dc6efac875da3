//! Importing and deleting kernels.

use crate::{
    error::Error,
    ids,
    jobs::Job,
    kernels::{self, INITRD, MODULES, VMLINUZ, tempfile},
    service::Service,
    store::KernelRow,
    transfer::{Direction, Peer, receive},
};
use banger_dbus::{Dict, DictWriter, names};
use banger_kernel::{KernelImage, ModuleTar, Modules, build_initramfs, join_archives};
use banger_model::{Bytes, KernelId, KernelName, Phase, Uid};
use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest kernel or initrd.
const LARGEST: Bytes = Bytes::mib(256);

/// A kernel to import: what the client handed over.
pub struct Import {
    /// Its name.
    pub name: KernelName,
    /// The kernel itself.
    pub kernel: OwnedFd,
    /// An initrd that goes before ours.
    pub initrd: Option<OwnedFd>,
    /// A tar stream of its modules.
    pub modules: Option<OwnedFd>,
    /// For whom.
    pub owner: Uid,
}

/// Takes a kernel in.
///
/// # Errors
/// When the name is taken, or a part is not what it should be. Nothing is left then.
pub async fn import(service: Arc<Service>, import: Import, job: Arc<Job>) -> Result<Dict, Error> {
    let id = KernelId::from_bits(ids::random()?);
    let folder = kernels::folder(&service, id);
    let staging = folder.with_extension("staging");
    let guest = service.config.guest.clone();
    let name = import.name.clone();
    let owner = import.owner;
    let (staged, working) = (staging.clone(), job.clone());
    let taken = tokio::task::spawn_blocking(move || take_in(import, &staged, &guest, &working)).await?;
    let result = match taken {
        Ok(parts) => publish(&service, id, name, owner, &staging, &folder, parts).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // What is left is removed at the next start at the latest.
        let _ = tokio::fs::remove_dir_all(&staging).await;
        return Err(error);
    }
    Ok(DictWriter::new().with("kernel", names::path_of(id)).done())
}

struct Parts {
    release: String,
    size: Bytes,
    has_modules: bool,
    has_initrd: bool,
}

fn take_in(import: Import, staging: &Path, guest: &PathBuf, job: &Job) -> Result<Parts, Error> {
    job.phase(Phase::Importing);
    std::fs::create_dir_all(staging).map_err(|e| Error::disk(staging, e))?;
    let peer = |fd, what| Peer::new(fd, what, Direction::In, job.cancel.clone());

    let path = staging.join(VMLINUZ);
    let size = receive(&mut peer(import.kernel, "kernel")?, &path, "kernel", LARGEST, |n| job.advance(n))?;
    let mut image = File::open(&path).map_err(|e| Error::disk(&path, e))?;
    let kernel = KernelImage::inspect(&mut image)?;

    let has_modules = import.modules.is_some();
    let modules = match import.modules {
        None => Modules::none(),
        Some(stream) => {
            let scratch = tempfile(Some(staging))?;
            let modules = Modules::select(&ModuleTar::receive(peer(stream, "modules")?, scratch)?)?;
            if let Some(release) = &kernel.release {
                modules.check_release(release)?;
            }
            let path = staging.join(MODULES);
            let file = File::create_new(&path).map_err(|e| Error::disk(&path, e))?;
            modules.write_tar(&file).and_then(|()| file.sync_all()).map_err(|e| Error::disk(&path, e))?;
            modules
        }
    };

    // What does not become an initramfs now never will: better said at once than at the first boot.
    job.phase(Phase::Initramfs);
    let guest = std::fs::read(guest).map_err(|e| Error::disk(guest, e))?;
    let initramfs = build_initramfs(&modules, &guest)?;
    let has_initrd = import.initrd.is_some();
    if let Some(initrd) = import.initrd {
        let path = staging.join(INITRD);
        receive(&mut peer(initrd, "initrd")?, &path, "initrd", LARGEST, |n| job.advance(n))?;
        let bytes = std::fs::read(&path).map_err(|e| Error::disk(&path, e))?;
        join_archives(bytes, &initramfs)?;
    }
    let release = kernel.release.or_else(|| modules.release().map(str::to_owned)).unwrap_or_default();
    Ok(Parts { release, size: Bytes(size), has_modules, has_initrd })
}

async fn publish(
    service: &Arc<Service>,
    id: KernelId,
    name: KernelName,
    owner: Uid,
    staging: &Path,
    folder: &Path,
    parts: Parts,
) -> Result<(), Error> {
    let Parts { release, size, has_modules, has_initrd } = parts;
    let created = ids::now().seconds;
    let row = KernelRow { id, name, release, size, has_modules, has_initrd, owner, created };
    {
        let _publication = service.publication.lock().await;
        std::fs::rename(staging, folder).map_err(|e| Error::disk(folder, e))?;
        if let Err(error) = service.store.add_kernel(&row) {
            let _ = std::fs::remove_dir_all(folder);
            return Err(error.into());
        }
    }
    service.show_kernel(id).await
}

/// Removes an imported kernel.
///
/// # Errors
/// [`Error::InUse`] while a VM has it.
pub async fn delete(service: Arc<Service>, kernel: KernelRow, job: Arc<Job>) -> Result<Dict, Error> {
    job.phase(Phase::Removing);
    service.store.remove_kernel(&kernel).map_err(|error| match error {
        crate::store::StoreError::InUse => {
            Error::InUse { what: "kernel", name: kernel.name.to_string(), by: Vec::new() }
        }
        other => other.into(),
    })?;
    service.hide_kernel(kernel.id).await;
    let folder = kernels::folder(&service, kernel.id);
    tokio::fs::remove_dir_all(&folder).await.map_err(|e| Error::disk(&folder, e))?;
    Ok(Dict::new())
}
