//! Pulling an image: staged, then published by one rename and one row.

use crate::{
    error::Error,
    ids,
    jobs::Job,
    kernels,
    service::Service,
    store::{ImageRow, StoreError},
};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Platform, PullRequest, Pulled, Reference};
use banger_model::{Bytes, ImageId, ImageName, Phase, Uid};
use std::{path::Path, sync::Arc};

/// What to pull.
#[derive(Debug, Clone)]
pub struct Pull {
    /// From where.
    pub reference: Reference,
    /// Its name here.
    pub name: ImageName,
    /// Size of the filesystem, if not the default.
    pub size: Option<Bytes>,
    /// For which machine.
    pub platform: Platform,
    /// For whom.
    pub owner: Uid,
}

/// Refuses a name that an image has, before anything is downloaded.
///
/// # Errors
/// [`StoreError::Taken`].
pub fn check_name(service: &Service, name: &ImageName) -> Result<(), Error> {
    match service.store.images()?.iter().any(|image| image.name == *name) {
        true => Err(StoreError::Taken { what: "an image", name: name.to_string() }.into()),
        false => Ok(()),
    }
}

/// Pulls an image and publishes it.
///
/// # Errors
/// Every kind of [`banger_image::ImageError`], no kernel to boot it with, and a name taken meanwhile. Nothing
/// is left then.
pub async fn pull(service: Arc<Service>, request: Pull, job: Arc<Job>) -> Result<Dict, Error> {
    // A host on which nothing could ever boot is told before the download.
    kernels::find(&service, &service.config.kernel)?;
    let id = ImageId::from_bits(ids::random()?);
    let folder = service.images().join(id.to_string());
    let staging = folder.with_extension("staging");
    tokio::fs::create_dir_all(&staging).await.map_err(|e| Error::disk(&staging, e))?;
    let result = stage_and_publish(&service, &request, id, &staging, &folder, &job).await;
    if let Err(error) = result {
        // What is left is removed at the next start at the latest.
        let _ = tokio::fs::remove_dir_all(&staging).await;
        return Err(error);
    }
    service.show_image(id).await?;
    Ok(DictWriter::new().with("image", names::path_of(id)).done())
}

async fn stage_and_publish(
    service: &Service,
    request: &Pull,
    id: ImageId,
    staging: &Path,
    folder: &Path,
    job: &Job,
) -> Result<(), Error> {
    let wanted = PullRequest {
        reference: request.reference.clone(),
        platform: request.platform.clone(),
        size: request.size,
        staging: staging.to_owned(),
        resolved: None,
    };
    let pulled = service.puller.pull(&wanted, job, &job.cancel).await?;
    job.phase(Phase::Publishing);
    if job.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let row = row(id, request, pulled);
    let _publication = service.publication.lock().await;
    check_name(service, &row.name)?;
    std::fs::rename(staging, folder).map_err(|e| Error::disk(folder, e))?;
    if let Err(error) = service.store.add_image(&row) {
        let _ = std::fs::remove_dir_all(folder);
        return Err(error.into());
    }
    Ok(())
}

fn row(id: ImageId, request: &Pull, pulled: Pulled) -> ImageRow {
    ImageRow {
        id,
        name: request.name.clone(),
        reference: request.reference.to_string(),
        digest: pulled.manifest_digest.to_string(),
        platform: pulled.platform.to_string(),
        size: pulled.size,
        content: pulled.content,
        compressed: pulled.compressed,
        layers: pulled.layers.len() as u32,
        config: pulled.config,
        owner: request.owner,
        created: ids::now().seconds,
    }
}
