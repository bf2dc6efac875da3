//! Taking kernels in, whether a client hands them over or the catalogue names them, and deleting them.

use crate::{
    error::Error,
    ids,
    jobs::Job,
    kernels::{self, INITRD, MODULES, Users, VMLINUZ, tempfile},
    service::Service,
    store::{KernelRow, StoreError},
    transfer::{Direction, Peer, receive},
};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Artifact, Download, Progress};
use banger_kernel::{
    KernelError, KernelImage, KernelPackage, ModuleTar, Modules, build_initramfs, join_archives,
};
use banger_model::{Bytes, KernelId, KernelName, Phase, Uid};
use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest kernel or initrd.
const LARGEST: Bytes = Bytes::mib(256);

/// A kernel to take in.
pub struct Import {
    /// Its name.
    pub name: KernelName,
    /// What it is made of.
    pub from: Material,
    /// For whom.
    pub owner: Uid,
}

/// What a kernel is made of.
pub enum Material {
    /// Files that the client hands over.
    Files {
        /// The kernel itself.
        kernel: OwnedFd,
        /// An initrd that goes before ours.
        initrd: Option<OwnedFd>,
        /// A tar stream of its modules.
        modules: Option<OwnedFd>,
    },
    /// A distribution's packages that the client hands over.
    Packages(Vec<OwnedFd>),
    /// A package or bundle of the catalogue.
    Artifact(Artifact),
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
    let Import { name, from, owner } = import;
    let from = match from {
        Material::Files { kernel, initrd, modules } => Parts::Files { kernel, initrd, modules },
        Material::Packages(packages) => Parts::Packages(packages),
        Material::Artifact(artifact) => {
            job.phase(Phase::Pulling);
            let progress: Arc<dyn Progress> = job.clone();
            Parts::Download(Box::new(service.puller.download(&artifact, progress, &job.cancel)))
        }
    };
    let (staged, working) = (staging.clone(), job.clone());
    let taken = tokio::task::spawn_blocking(move || take_in(from, &staged, &guest, &working)).await?;
    let result = match taken {
        // Whatever a reader says of a cancelled stream, it was cancelled.
        Err(_) if job.cancel.is_cancelled() => Err(Error::Cancelled),
        Ok(taken) => {
            let Taken { release, size, has_modules, has_initrd } = taken;
            let created = ids::now().seconds;
            let row = KernelRow { id, name, release, size, has_modules, has_initrd, owner, created };
            publish(&service, &row, &staging, &folder).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // What is left is removed at the next start at the latest.
        let _ = tokio::fs::remove_dir_all(&staging).await;
        return Err(error);
    }
    Ok(DictWriter::new().with("kernel", names::path_of(id)).done())
}

/// As [`Material`], with the download begun.
enum Parts {
    Files { kernel: OwnedFd, initrd: Option<OwnedFd>, modules: Option<OwnedFd> },
    Packages(Vec<OwnedFd>),
    Download(Box<Download>),
}

/// A kernel in its staging folder.
struct Taken {
    release: String,
    size: Bytes,
    has_modules: bool,
    has_initrd: bool,
}

fn take_in(parts: Parts, staging: &Path, guest: &PathBuf, job: &Job) -> Result<Taken, Error> {
    std::fs::create_dir_all(staging).map_err(|e| Error::disk(staging, e))?;
    let modules = match parts {
        Parts::Files { kernel, initrd, modules } => {
            job.phase(Phase::Importing);
            files(kernel, initrd, modules, staging, job)?
        }
        Parts::Packages(descriptors) => {
            job.phase(Phase::Importing);
            let mut package = KernelPackage::new(tempfile(Some(staging))?);
            let mut before = 0;
            for descriptor in descriptors {
                let peer = Peer::new(descriptor, "package", Direction::In, job.cancel.clone())?;
                let mut counted = Counted { inner: peer, count: before, job };
                package.add(&mut counted)?;
                before = counted.count;
            }
            unpack(package, staging)?
        }
        Parts::Download(mut download) => {
            let mut package = KernelPackage::new(tempfile(Some(staging))?);
            let read = package.add(&mut *download).map_err(Error::from);
            // Until the digest is known, a package that is damaged may be another one.
            download.settle(read, |error| !matches!(error, Error::Kernel(KernelError::Io { .. })))?;
            unpack(package, staging)?
        }
    };
    check(modules, staging, guest, job)
}

/// Counts what is read of a client's descriptors.
struct Counted<'a> {
    inner: Peer,
    count: u64,
    job: &'a Job,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        self.job.advance(self.count);
        Ok(read)
    }
}

/// Brings a client's files into the staging folder: the modules, where there are some.
fn files(
    kernel: OwnedFd,
    initrd: Option<OwnedFd>,
    modules: Option<OwnedFd>,
    staging: &Path,
    job: &Job,
) -> Result<Option<Modules>, Error> {
    let peer = |fd, what| Peer::new(fd, what, Direction::In, job.cancel.clone());
    receive(&mut peer(kernel, "kernel")?, &staging.join(VMLINUZ), "kernel", LARGEST, |n| job.advance(n))?;
    // Refused before the rest is read.
    inspect(staging)?;
    let modules = match modules {
        None => None,
        Some(stream) => {
            let scratch = tempfile(Some(staging))?;
            Some(Modules::select(&ModuleTar::receive(peer(stream, "modules")?, scratch)?)?)
        }
    };
    if let Some(initrd) = initrd {
        let path = staging.join(INITRD);
        receive(&mut peer(initrd, "initrd")?, &path, "initrd", LARGEST, |n| job.advance(n))?;
    }
    Ok(modules)
}

/// Brings what is wanted of packages into the staging folder: the modules, where there are some.
fn unpack(package: KernelPackage, staging: &Path) -> Result<Option<Modules>, Error> {
    let kernel = package.finish()?;
    let write = |name: &str, with: &dyn Fn(&mut File) -> std::io::Result<u64>| {
        let path = staging.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            with(&mut file)?;
            file.sync_all()
        });
        written.map_err(|e| Error::disk(&path, e))
    };
    write(VMLINUZ, &|file| kernel.write_kernel(file))?;
    if kernel.has_initrd() {
        write(INITRD, &|file| kernel.write_initrd(file))?;
    }
    Ok(kernel.has_modules().then(|| Modules::select(&kernel)).transpose()?)
}

fn inspect(staging: &Path) -> Result<KernelImage, Error> {
    let path = staging.join(VMLINUZ);
    let mut image = File::open(&path).map_err(|e| Error::disk(&path, e))?;
    Ok(KernelImage::inspect(&mut image)?)
}

/// Checks that what is in the staging folder makes a VM, and keeps the modules that one needs.
fn check(modules: Option<Modules>, staging: &Path, guest: &PathBuf, job: &Job) -> Result<Taken, Error> {
    let kernel = inspect(staging)?;
    let has_modules = modules.is_some();
    let modules = modules.unwrap_or_else(Modules::none);
    if has_modules {
        if let Some(release) = &kernel.release {
            modules.check_release(release)?;
        }
        let path = staging.join(MODULES);
        let file = File::create_new(&path).map_err(|e| Error::disk(&path, e))?;
        modules.write_tar(&file).and_then(|()| file.sync_all()).map_err(|e| Error::disk(&path, e))?;
    }
    // What does not become an initramfs now never will: better said at once than at the first boot.
    job.phase(Phase::Initramfs);
    let guest = std::fs::read(guest).map_err(|e| Error::disk(guest, e))?;
    let initramfs = build_initramfs(&modules, &guest)?;
    let initrd = staging.join(INITRD);
    let has_initrd = initrd.exists();
    if has_initrd {
        let bytes = std::fs::read(&initrd).map_err(|e| Error::disk(&initrd, e))?;
        join_archives(bytes, &initramfs)?;
    }
    let release = kernel.release.or_else(|| modules.release().map(str::to_owned)).unwrap_or_default();
    Ok(Taken { release, size: Bytes(kernel.size), has_modules, has_initrd })
}

async fn publish(
    service: &Arc<Service>,
    row: &KernelRow,
    staging: &Path,
    folder: &Path,
) -> Result<(), Error> {
    {
        let _publication = service.publication.lock().await;
        std::fs::rename(staging, folder).map_err(|e| Error::disk(folder, e))?;
        if let Err(error) = service.store.add_kernel(row) {
            let _ = std::fs::remove_dir_all(folder);
            return Err(error.into());
        }
    }
    service.show_kernel(row.id).await
}

/// Removes a kernel that was taken in.
///
/// # Errors
/// [`Error::InUse`] while a VM has it, an image wants it or it is the default; it says which, as far as they are
/// the caller's.
pub async fn delete(
    service: Arc<Service>,
    kernel: KernelRow,
    caller: Uid,
    job: Arc<Job>,
) -> Result<Dict, Error> {
    job.phase(Phase::Removing);
    let users = Users::of(&service, kernel.name.as_str())?;
    let removed = match users.default {
        // It may be what is configured, of which the database knows nothing.
        true => Err(StoreError::InUse),
        false => service.store.remove_kernel(&kernel),
    };
    match removed {
        Err(StoreError::InUse) => {
            let by = Users::of(&service, kernel.name.as_str())?.words(caller);
            return Err(Error::InUse { what: "kernel", name: kernel.name.to_string(), by });
        }
        removed => removed?,
    }
    service.hide_kernel(kernel.id).await;
    let folder = kernels::folder(&service, kernel.id);
    tokio::fs::remove_dir_all(&folder).await.map_err(|e| Error::disk(&folder, e))?;
    Ok(Dict::new())
}
