//! Images that are files of their users': registering them, and making them banger's own.

use super::{
    kernels::{self as kernel_ops, Import as KernelImport},
    publish::{self, Claim},
};
use crate::{
    error::Error,
    ids,
    jobs::Job,
    kernels,
    registered::read_only,
    service::Service,
    store::{FileIdentity, ImageRow},
    transfer::copy_sparse,
};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Filesystem, Platform, RunConfig};
use banger_model::{Bytes, ImageId, ImageName, ImageSource, KernelName, Phase, Uid};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use std::{
    fs::{File, OpenOptions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    sync::Arc,
};

/// A file to register.
pub struct Register {
    /// Its name.
    pub name: ImageName,
    /// The filesystem.
    pub rootfs: OwnedFd,
    /// A kernel to take in with it, under the image's name.
    pub kernel: Option<KernelImport>,
    /// The kernel that it wants.
    pub kernel_name: Option<KernelName>,
    /// For whom.
    pub owner: Uid,
}

impl Register {
    /// The image that has the name and is the same user's registered one, so that this only brings its file back.
    ///
    /// # Errors
    /// [`crate::store::StoreError::Taken`] when another image has the name.
    pub fn before(service: &Service, name: &ImageName, owner: Uid) -> Result<Option<ImageRow>, Error> {
        match service.store.image_named(name)? {
            Some(image) if image.owner == owner && service.is_registered(&image) => Ok(Some(image)),
            _ => claim(name.clone(), owner).check(service).map(|_| None),
        }
    }
}

fn claim(name: ImageName, owner: Uid) -> Claim {
    Claim { name, owner, reference: String::new() }
}

/// Registers a file, or brings back the file of an image that was registered.
///
/// # Errors
/// When the name is taken, or the file is no filesystem that a guest could mount. Nothing is left then.
pub async fn register(service: Arc<Service>, request: Register, job: Arc<Job>) -> Result<Dict, Error> {
    job.phase(Phase::Importing);
    let Register { name, rootfs, kernel, kernel_name, owner } = request;
    let file = read_only(rootfs)?;
    let looked = tokio::task::spawn_blocking(move || Filesystem::inspect(&file).map(|found| (file, found)));
    let (file, found) = looked.await??;
    let size = Bytes(file.metadata().map_err(|e| Error::disk(&service.images(), e))?.len());
    if let Some(image) = Register::before(&service, &name, owner)? {
        attach(&service, image.id, file, size, found.used)?;
        service.image_changed(image.id).await;
        return Ok(answer(image.id));
    }
    let mut made_kernel = None;
    if let Some(kernel) = kernel {
        let name = kernel.name.clone();
        kernels::check_name(&service, &name)?;
        kernel_ops::import(service.clone(), kernel, job.clone()).await?;
        made_kernel = Some(name);
    }
    let wanted = made_kernel.clone().or(kernel_name).map(|name| name.to_string()).unwrap_or_default();
    let claim = claim(name.clone(), owner);
    let made = publish::make(&service, &claim, &job, async |id, _| {
        Ok(ImageRow {
            id,
            names: vec![name.clone()],
            source: ImageSource::Register,
            reference: String::new(),
            digest: String::new(),
            platform: Platform::host().to_string(),
            size,
            content: found.used,
            compressed: Bytes(0),
            layers: Vec::new(),
            config: RunConfig::default(),
            owner,
            private: true,
            signature: String::new(),
            kernel: wanted.clone(),
            created: ids::now().seconds,
        })
    })
    .await;
    let id = match made {
        Ok(id) => id,
        Err(error) => {
            if let Some(name) = made_kernel {
                remove_kernel(&service, &name, job).await;
            }
            return Err(error);
        }
    };
    attach(&service, id, file, size, found.used)?;
    Ok(answer(id))
}

fn answer(id: ImageId) -> Dict {
    DictWriter::new().with("image", names::path_of(id)).done()
}

fn attach(service: &Service, id: ImageId, file: File, size: Bytes, content: Bytes) -> Result<(), Error> {
    let metadata = file.metadata().map_err(|e| Error::disk(&service.images(), e))?;
    service.store.set_registered(id, FileIdentity::of(&metadata), size, content)?;
    service.registered.hold(id, file);
    Ok(())
}

/// Takes back a kernel whose image did not come to be.
async fn remove_kernel(service: &Arc<Service>, name: &KernelName, job: Arc<Job>) {
    let rows = service.store.kernels().unwrap_or_default();
    if let Some(row) = rows.into_iter().find(|row| row.name == *name)
        && let Err(error) = kernel_ops::delete(service.clone(), row.clone(), row.owner, job).await
    {
        tracing::warn!(kernel = %name, %error, "a kernel stays without its image");
    }
}

/// Copies the file of a registered image, which is banger's own from then on, with the same id, names and VMs.
///
/// # Errors
/// [`Error::NotRegistered`], [`Error::Unavailable`] also when the file changes meanwhile, or what the disk says. The
/// image is as before then.
pub async fn promote(service: Arc<Service>, image: ImageRow, job: Arc<Job>) -> Result<Dict, Error> {
    if !service.is_registered(&image) {
        return Err(Error::NotRegistered { name: image.called() });
    }
    job.phase(Phase::Copying);
    job.total(image.size.0);
    let (copying, row, working) = (service.clone(), image.clone(), job.clone());
    tokio::task::spawn_blocking(move || copy(&copying, &row, &working)).await??;
    service.store.unset_registered(image.id)?;
    service.registered.release(image.id);
    service.image_changed(image.id).await;
    Ok(answer(image.id))
}

/// The copy has no name until it is whole and on disk; giving it one is the moment that counts.
fn copy(service: &Service, image: &ImageRow, job: &Job) -> Result<(), Error> {
    let path = service.rootfs(image.id);
    let folder = service.images().join(image.id.to_string());
    let failed = |e| Error::disk(&path, e);
    let (file, _) = service.registered_file(image)?;
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits());
    let copy = options.open(&folder).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    copy_sparse(&file, &copy, length, &job.cancel, |n| job.advance(n)).map_err(failed)?;
    copy.set_len(length).map_err(failed)?;
    Filesystem::inspect(&copy)?;
    // A file that was written to meanwhile is no state that it ever had.
    service.registered_file(image)?;
    copy.sync_all().map_err(failed)?;
    name(&copy, &path).map_err(|e| failed(e.into()))?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Gives a file without a name one (linkat(2), the way without privileges).
fn name(file: &File, path: &Path) -> nix::Result<()> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
}
