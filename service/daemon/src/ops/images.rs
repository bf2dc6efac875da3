//! Naming, sharing and deleting images.

use crate::{
    error::Error,
    jobs::Job,
    service::Service,
    store::{ImageRow, StoreError, VmRow},
};
use banger_dbus::Dict;
use banger_model::{ImageId, ImageName, Phase, Uid};
use std::sync::Arc;

/// Gives an image one more name.
///
/// # Errors
/// [`StoreError::Taken`] when another image has it. That this one has it already is none.
pub async fn tag(service: &Service, image: &ImageRow, name: &ImageName) -> Result<(), Error> {
    let _publication = service.publication.lock().await;
    if service.store.image(image.id)?.is_some_and(|image| image.is_named(name)) {
        return Ok(());
    }
    service.store.tag_image(image.id, name)?;
    service.image_changed(image.id).await;
    Ok(())
}

/// Takes a name away from an image, which stays.
///
/// # Errors
/// [`Error::NotFound`] when it is not called so.
pub async fn untag(service: &Service, image: &ImageRow, name: &ImageName) -> Result<(), Error> {
    let _publication = service.publication.lock().await;
    if !service.store.image(image.id)?.is_some_and(|image| image.is_named(name)) {
        return Err(Error::NotFound { what: "name of the image", wanted: name.to_string() });
    }
    service.store.untag_image(name)?;
    service.image_changed(image.id).await;
    Ok(())
}

/// Lets everybody see and use an image.
///
/// # Errors
/// [`Error::StaysPrivate`] for a file that is still its user's.
pub async fn share(service: &Service, image: &ImageRow) -> Result<(), Error> {
    if service.is_registered(image) {
        return Err(Error::StaysPrivate { name: image.called() });
    }
    service.store.set_image_private(image.id, false)?;
    service.image_changed(image.id).await;
    Ok(())
}

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

/// Removes an image's row, object and folder.
///
/// # Errors
/// As [`delete`].
pub async fn remove(service: &Service, image: &ImageRow, caller: Uid) -> Result<(), Error> {
    match service.store.remove_image(image.id) {
        Err(StoreError::InUse) => {
            let by = users(service, image.id, caller)?;
            return Err(Error::InUse { what: "image", name: image.called(), by });
        }
        result => result?,
    }
    service.hide_image(image.id).await;
    service.registered.release(image.id);
    let folder = service.images().join(image.id.to_string());
    tokio::fs::remove_dir_all(&folder).await.map_err(|e| Error::disk(&folder, e))
}

/// Who uses an image, in words: the names of this user's VMs, and how many others there are; everybody's by name for
/// root.
///
/// # Errors
/// When the database fails.
fn users(service: &Service, image: ImageId, caller: Uid) -> Result<Vec<String>, Error> {
    Ok(in_words(service.store.vms()?.iter().filter(|vm| vm.image == image), caller))
}

/// VMs as one user may hear of them: their own by name, others' by number.
pub fn in_words<'a>(vms: impl Iterator<Item = &'a VmRow>, caller: Uid) -> Vec<String> {
    let (seen, others): (Vec<_>, Vec<_>) = vms.partition(|vm| vm.owner == caller || caller == Uid::ROOT);
    let mut words: Vec<String> = seen.iter().map(|vm| vm.name.to_string()).collect();
    match others.len() {
        0 => {}
        1 => words.push("a VM of another user".to_owned()),
        more => words.push(format!("{more} VMs of other users")),
    }
    words
}
