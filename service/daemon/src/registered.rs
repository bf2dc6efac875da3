//! Images that are files of their users': the descriptors by which they are reached, for as long as the service has them.
//!
//! No path of a user's is ever opened. systemd keeps a copy of each descriptor while the service restarts; where nobody
//! does, or after a reboot, the user registers the file again.

use crate::{
    error::Error,
    service::Service,
    store::{FileIdentity, ImageRow},
};
use banger_model::{ImageId, ImageSource};
use banger_systemd::fdstore;
use nix::fcntl::{F_GETFL, OFlag, fcntl};
use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
};

/// Begins the names under which systemd keeps them.
const PREFIX: &str = "image-";

/// The descriptors, by image.
#[derive(Default)]
pub struct Registered(Mutex<HashMap<ImageId, Arc<File>>>);

impl Registered {
    fn all(&self) -> MutexGuard<'_, HashMap<ImageId, Arc<File>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps a file, instead of any before.
    pub fn hold(&self, image: ImageId, file: File) {
        let name = format!("{PREFIX}{image}");
        fdstore::forget(&name);
        fdstore::keep(&name, file.as_fd());
        self.all().insert(image, Arc::new(file));
    }

    /// Lets go of a file.
    pub fn release(&self, image: ImageId) {
        if self.all().remove(&image).is_some() {
            fdstore::forget(&format!("{PREFIX}{image}"));
        }
    }

    fn get(&self, image: ImageId) -> Option<Arc<File>> {
        self.all().get(&image).cloned()
    }
}

impl Service {
    /// Whether an image is a file of its user's: one that was promoted has a filesystem of its own.
    pub fn is_registered(&self, image: &ImageRow) -> bool {
        image.source == ImageSource::Register && !self.rootfs(image.id).exists()
    }

    /// An image's filesystem, wherever it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a user's file that is not at hand, or is another than when it was registered.
    pub fn open_rootfs(&self, image: &ImageRow) -> Result<File, Error> {
        if self.is_registered(image) {
            let (file, _) = self.registered_file(image)?;
            // A copy of the descriptor: reading through it does not go by its position.
            return file.try_clone().map_err(|e| Error::disk(&self.rootfs(image.id), e));
        }
        let path = self.rootfs(image.id);
        File::open(&path).map_err(|e| Error::disk(&path, e))
    }

    /// A user's file, the same as when it was registered.
    ///
    /// # Errors
    /// As [`Self::open_rootfs`].
    pub fn registered_file(&self, image: &ImageRow) -> Result<(Arc<File>, FileIdentity), Error> {
        let gone = |why| Error::Unavailable { name: image.called(), why };
        let known = self.store.registered(image.id)?;
        let file = self.registered.get(image.id);
        let (Some(known), Some(file)) = (known, file) else {
            return Err(gone("its file was let go when the host or the service started anew"));
        };
        let now = file.metadata().map_err(|_| gone("its file cannot be read any more"))?;
        match FileIdentity::of(&now) == known {
            true => Ok((file, known)),
            false => Err(gone("its file was changed since it was registered")),
        }
    }

    /// Why an image cannot be used at the moment.
    pub fn unavailable(&self, image: &ImageRow) -> Option<Error> {
        match self.is_registered(image) {
            true => self.registered_file(image).err(),
            false => None,
        }
    }
}

/// Takes back what systemd has kept while the service was not there. What belongs to no image goes.
pub fn restore(service: &Service, kept: Vec<(String, OwnedFd)>) {
    for (name, fd) in kept {
        let id = name.strip_prefix(PREFIX).and_then(|id| id.parse::<ImageId>().ok());
        let image = id.and_then(|id| service.store.image(id).ok().flatten());
        match image.filter(|image| service.is_registered(image)) {
            Some(image) => drop(service.registered.all().insert(image.id, Arc::new(File::from(fd)))),
            None => fdstore::forget(&name),
        }
    }
}

/// A client's descriptor as one that can only be read, so that nothing here could ever change the file.
///
/// # Errors
/// [`Error::Descriptor`] for what is no regular file, or is open for writing and may not be opened otherwise.
pub fn read_only(fd: OwnedFd) -> Result<File, Error> {
    let refused = |why: &str| Error::Descriptor { what: "rootfs", why: why.to_owned() };
    let flags = fcntl(&fd, F_GETFL).map_err(|e| refused(e.desc()))?;
    let flags = OFlag::from_bits_truncate(flags);
    let file = File::from(fd);
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !regular || flags.contains(OFlag::O_PATH) {
        return Err(refused("it is not a regular file"));
    }
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Ok(file),
        OFlag::O_RDWR => File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|_| refused("it is open for writing: open it for reading alone")),
        _ => Err(refused("it is not open for reading")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_can_be_read_and_only_to_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "x").unwrap();
        assert!(read_only(File::open(&path).unwrap().into()).is_ok());
        let both = File::options().read(true).write(true).open(&path).unwrap();
        let reopened = read_only(both.into()).unwrap();
        assert!(std::io::Write::write(&mut &reopened, b"y").is_err());
        assert!(read_only(File::options().write(true).open(&path).unwrap().into()).is_err());
        assert!(read_only(File::open(folder.path()).unwrap().into()).is_err());
        assert!(read_only(std::io::pipe().unwrap().0.into()).is_err());
    }
}
