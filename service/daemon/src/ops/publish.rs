//! How an image gets into its place: made in a staging folder, then published by one rename and one row.

use crate::{
    error::Error,
    ids,
    jobs::Job,
    service::Service,
    store::{ImageRow, StoreError},
};
use banger_model::{ImageId, ImageName, Phase, Uid};
use std::{path::Path, sync::Arc};

/// The name that a new image wants.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The name.
    pub name: ImageName,
    /// Who wants it.
    pub owner: Uid,
    /// The reference that the new image comes from; one of the same reference and owner gives its name up.
    /// Empty for what comes from somewhere else.
    pub reference: String,
}

impl Claim {
    /// The image that has the name and gives it up, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another image has the name and keeps it.
    pub fn check(&self, service: &Service) -> Result<Option<ImageRow>, Error> {
        match service.store.image_named(&self.name)? {
            Some(image) if !self.reference.is_empty() && self.replaces(&image) => Ok(Some(image)),
            Some(_) => Err(StoreError::Taken { what: "an image", name: self.name.to_string() }.into()),
            None => Ok(None),
        }
    }

    fn replaces(&self, image: &ImageRow) -> bool {
        image.owner == self.owner && image.reference == self.reference
    }
}

/// Makes an image: `work` fills the staging folder with at least `rootfs.ext4` and answers the row, which is
/// published then. Whatever fails, nothing is left.
///
/// # Errors
/// What `work` says, and a name taken meanwhile.
pub async fn make(
    service: &Arc<Service>,
    claim: &Claim,
    job: &Job,
    work: impl AsyncFnOnce(ImageId, &Path) -> Result<ImageRow, Error>,
) -> Result<ImageId, Error> {
    let id = ImageId::from_bits(ids::random()?);
    let folder = service.images().join(id.to_string());
    let staging = folder.with_extension("staging");
    tokio::fs::create_dir_all(&staging).await.map_err(|e| Error::disk(&staging, e))?;
    let published = match work(id, &staging).await {
        Ok(row) => publish(service, claim, row, &staging, &folder, job).await,
        Err(error) => Err(error),
    };
    match published {
        Ok(replaced) => {
            service.show_image(id).await?;
            if let Some(replaced) = replaced {
                service.image_changed(replaced).await;
            }
            Ok(id)
        }
        Err(error) => {
            // What is left is removed at the next start at the latest.
            let _ = tokio::fs::remove_dir_all(&staging).await;
            Err(error)
        }
    }
}

/// Answers the image that gave its name up.
async fn publish(
    service: &Service,
    claim: &Claim,
    row: ImageRow,
    staging: &Path,
    folder: &Path,
    job: &Job,
) -> Result<Option<ImageId>, Error> {
    job.phase(Phase::Publishing);
    if job.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let _publication = service.publication.lock().await;
    let replaced = claim.check(service)?.map(|image| image.id);
    std::fs::rename(staging, folder).map_err(|e| Error::disk(folder, e))?;
    if let Err(error) = service.store.add_image(&row, replaced) {
        let _ = std::fs::remove_dir_all(folder);
        return Err(error.into());
    }
    Ok(replaced)
}
