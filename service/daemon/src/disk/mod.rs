//! A VM's root disk: what it is made of, and everything that is done with it. Which backend it has is known here alone.

mod backends;
mod files;

pub use backends::{Backends, probe};
pub use files::{freed, sync, used};

use crate::{
    error::Error,
    jobs::Job,
    service::Service,
    store::{ImageRow, VmRow},
    transfer::copy_sparse,
};
use banger_host::{SnapshotDisk, cow};
use banger_model::{Bytes, DiskBackend, DiskNumber};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A VM's root disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The VM's own file: the disk itself, or what differs from the image.
    pub path: PathBuf,
    /// How it is made of its image.
    pub backend: DiskBackend,
    /// Its size for the guest.
    pub size: Bytes,
}

impl Disk {
    /// The disk of a VM whose folder this is.
    pub fn of(folder: &Path, vm: &VmRow) -> Self {
        let backend = vm.spec.disk_backend;
        let name = if backend == DiskBackend::DeviceMapper { "cow.img" } else { "disk.img" };
        Self { path: folder.join(name), backend, size: vm.spec.size.disk }
    }

    /// Makes it of the image's filesystem; `job` is told how far that is, and may be cancelled. A snapshot costs the same
    /// whatever the image's size, and so does a reflink. It is in the page cache then: [`sync`] makes it durable.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::NoSpace`], or what failed. The unfinished file is the caller's to remove.
    pub fn make(&self, rootfs: &File, job: &Job) -> Result<(), Error> {
        let failed = |error| Error::disk(&self.path, error);
        let file = self.create().map_err(failed)?;
        let length = rootfs.metadata().map_err(failed)?.len();
        match self.backend {
            DiskBackend::DeviceMapper => return file.set_len(cow::file_size(self.size).0).map_err(failed),
            DiskBackend::Reflink => rustix::fs::ioctl_ficlone(&file, rootfs).map_err(|e| failed(e.into()))?,
            DiskBackend::Copy => {
                copy_sparse(rootfs, &file, length, &job.cancel, |n| job.advance(n)).map_err(failed)?;
            }
        }
        file.set_len(self.size.0.max(length)).map_err(failed)
    }

    fn create(&self) -> std::io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)
    }

    fn open(&self) -> Result<File, Error> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        opened.map_err(|error| Error::disk(&self.path, error))
    }

    /// Makes it of an image, as [`Disk::make`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn make_of(&self, service: &Service, image: &ImageRow, job: &Arc<Job>) -> Result<(), Error> {
        let (from, disk, job) = (service.open_rootfs(image)?, self.clone(), job.clone());
        tokio::task::spawn_blocking(move || disk.make(&from, &job)).await?
    }

    /// Makes it for its VM's start: all of it, where it is instant and not there yet; else room for what the VM is to have
    /// by now, a hole. The VM must not run.
    ///
    /// # Errors
    /// What failed.
    pub async fn be_there(&self, service: &Service, vm: &VmRow, job: &Arc<Job>) -> Result<(), Error> {
        if !vm.has_disk && self.backend.is_instant() && !self.path.exists() {
            return self.make_of(service, &service.image(vm.image)?, job).await;
        }
        let disk = self.clone();
        tokio::task::spawn_blocking(move || disk.grow()).await?
    }

    /// The least length of its file once it is made.
    fn length(&self) -> Bytes {
        match self.backend {
            DiskBackend::DeviceMapper => cow::file_size(self.size),
            DiskBackend::Reflink | DiskBackend::Copy => self.size,
        }
    }

    fn grow(&self) -> Result<(), Error> {
        let failed = |error| Error::disk(&self.path, error);
        let file = self.open()?;
        match file.metadata().map_err(failed)?.len() < self.length().0 {
            true => file.set_len(self.length().0).map_err(failed),
            false => Ok(()),
        }
    }

    /// Whether it was made to its end: what comes last gives it its length.
    fn is_whole(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| metadata.len() >= self.length().0)
    }

    /// Has it attached for its VM's start.
    ///
    /// # Errors
    /// When a file cannot be opened, or the helper refuses.
    pub async fn attach(&self, service: &Service, vm: &VmRow) -> Result<(), Error> {
        let file = self.open()?;
        if self.backend != DiskBackend::DeviceMapper {
            let attached = service.host.attach_loop(vm.id, vm.slot, DiskNumber::ROOT, true, file.into());
            return Ok(attached.await?);
        }
        if cow::revive(&file).map_err(|error| self.damaged(error))? {
            tracing::warn!(vm = %vm.id, "the host was full while the VM wrote: it goes on as after a power cut");
        }
        let rootfs = service.open_rootfs(&service.image(vm.image)?)?.into();
        let snapshot = SnapshotDisk { image: vm.image, rootfs, cow: file.into(), size: self.size };
        Ok(service.host.attach_snapshot(vm.id, vm.slot, snapshot).await?)
    }

    /// Writes what is on it to a new file of its size, which is to be removed if this fails. The VM must not run.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or what failed.
    pub fn copy_out(&self, service: &Service, image: &ImageRow, to: &Path, job: &Job) -> Result<File, Error> {
        let failed = |error| Error::disk(to, error);
        let from = File::open(&self.path).map_err(|error| Error::disk(&self.path, error))?;
        let mut options = OpenOptions::new();
        let copy = options.read(true).write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
        let below = match self.backend {
            DiskBackend::DeviceMapper => service.open_rootfs(image)?,
            _ => from.try_clone().map_err(failed)?,
        };
        let length = below.metadata().map_err(failed)?.len();
        job.total(length);
        copy_sparse(&below, &copy, length, &job.cancel, |n| job.advance(n)).map_err(failed)?;
        copy.set_len(self.size.0.max(length)).map_err(failed)?;
        if self.backend == DiskBackend::DeviceMapper {
            self.merge(&from, &copy, to, job)?;
        }
        Ok(copy)
    }

    /// Writes the chunks that the guest has written over a copy of the image.
    fn merge(&self, cow: &File, copy: &File, to: &Path, job: &Job) -> Result<(), Error> {
        let mut chunk = vec![0; cow::CHUNK];
        for written in cow::written(cow, self.size).map_err(|error| self.damaged(error))? {
            if job.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let written = written.map_err(|error| self.damaged(error))?;
            // The last chunk may be cut by the disk's end.
            let length = (self.size.0 - written.disk).min(chunk.len() as u64) as usize;
            cow.read_exact_at(&mut chunk[..length], written.file).map_err(|e| Error::disk(&self.path, e))?;
            copy.write_all_at(&chunk[..length], written.disk).map_err(|e| Error::disk(to, e))?;
        }
        Ok(())
    }

    fn damaged(&self, error: cow::CowError) -> Error {
        let error = match error {
            cow::CowError::Io(error) => error,
            damaged => std::io::Error::other(damaged),
        };
        Error::disk(&self.path, error)
    }
}

/// Makes a VM's new disk durable, and only then writes the VM down as whole: one that the service left half-made, because it or
/// its host died, is removed by reconcile. One that is written down already, or was not made to its end, is left alone.
///
/// # Errors
/// What failed.
pub async fn keep(service: &Service, vm: &VmRow) -> Result<(), Error> {
    let disk = service.disk(vm);
    if vm.has_disk || !disk.is_whole() {
        return Ok(());
    }
    tokio::task::spawn_blocking(move || sync(&disk.path)).await??;
    Ok(service.store.set_vm_has_disk(vm.id)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use banger_model::VmState;

    fn disk(folder: &Path, backend: DiskBackend) -> Disk {
        Disk { path: folder.join(backend.as_str()), backend, size: Bytes::mib(20) }
    }

    #[tokio::test]
    async fn each_backend_makes_a_disk_of_the_size_asked_for() {
        let bench = bench().await;
        let job = bench.job().await;
        let folder = tempfile::tempdir().unwrap();
        let rootfs = File::create_new(folder.path().join("rootfs")).unwrap();
        rootfs.write_all_at(b"content", 1 << 20).unwrap();
        rootfs.set_len(4 << 20).unwrap();
        let rootfs = File::open(folder.path().join("rootfs")).unwrap();

        let copy = disk(folder.path(), DiskBackend::Copy);
        copy.make(&rootfs, &job).unwrap();
        let file = File::open(&copy.path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 20 << 20);
        let mut text = [0; 7];
        file.read_exact_at(&mut text, 1 << 20).unwrap();
        assert_eq!(&text, b"content");
        assert!(used(&copy.path) < Bytes::mib(1));
        assert!(copy.make(&rootfs, &job).is_err(), "a disk is never overwritten");

        let snapshot = disk(folder.path(), DiskBackend::DeviceMapper);
        snapshot.make(&rootfs, &job).unwrap();
        assert_eq!(used(&snapshot.path), Bytes(0), "nothing of the image is in it");
    }

    #[tokio::test]
    async fn only_a_whole_disk_is_written_down() {
        let bench = bench().await;
        let store = &bench.service.store;
        let other = bench.service.vm(bench.add_vm("other", VmState::Created)).unwrap();
        let (id, slot) = (banger_model::VmId::from_bits(7), store.free_slot().unwrap().unwrap());
        let vm = VmRow { id, slot, name: "half".parse().unwrap(), has_disk: false, ..other };
        store.add_vm(&vm).unwrap();
        let disk = bench.service.disk(&vm);
        std::fs::create_dir_all(bench.service.vm_folder(id)).unwrap();
        let has_disk = || bench.service.vm(id).unwrap().has_disk;

        keep(&bench.service, &vm).await.unwrap();
        assert!(!has_disk(), "there is none");
        let file = File::create(&disk.path).unwrap();
        file.set_len(disk.size.0 - 1).unwrap();
        keep(&bench.service, &vm).await.unwrap();
        assert!(!has_disk(), "it was not made to its end");
        file.set_len(disk.size.0).unwrap();
        keep(&bench.service, &vm).await.unwrap();
        assert!(has_disk());
    }

    #[tokio::test]
    async fn a_snapshot_is_copied_out_merged() {
        let bench = bench().await;
        let job = bench.job().await;
        let image = bench.service.image(bench.image).unwrap();
        let rootfs = File::options().write(true).open(bench.service.rootfs(image.id)).unwrap();
        rootfs.write_all_at(b"below", 8192).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let snapshot = disk(folder.path(), DiskBackend::DeviceMapper);
        let below = bench.service.open_rootfs(&image).unwrap();
        snapshot.make(&below, &job).unwrap();
        // As the kernel writes it: the header, one entry (chunk 3 stands in chunk 2), and the chunk.
        let cow = snapshot.open().unwrap();
        let header = [0x7041_6e53u32, 1, 1, 8].map(u32::to_le_bytes).concat();
        cow.write_all_at(&header, 0).unwrap();
        cow.write_all_at(&[3u64, 2].map(u64::to_le_bytes).concat(), 4096).unwrap();
        cow.write_all_at(&[7; 4096], 2 * 4096).unwrap();

        let to = folder.path().join("out");
        let out = snapshot.copy_out(&bench.service, &image, &to, &job).unwrap();
        assert_eq!(out.metadata().unwrap().len(), 20 << 20);
        let mut bytes = [0; 4096];
        out.read_exact_at(&mut bytes, 3 * 4096).unwrap();
        assert_eq!(bytes, [7; 4096]);
        out.read_exact_at(&mut bytes, 8192).unwrap();
        assert!(bytes.starts_with(b"below\0"));
    }

    #[tokio::test]
    async fn a_vm_keeps_the_backend_that_it_was_made_with() {
        let bench = bench().await;
        let id = bench.add_vm("a", VmState::Stopped);
        let mut vm = bench.service.vm(id).unwrap();
        assert!(bench.service.disk(&vm).path.ends_with("disk.img"));
        vm.spec.disk_backend = DiskBackend::DeviceMapper;
        assert!(bench.service.disk(&vm).path.ends_with("cow.img"));
    }
}
