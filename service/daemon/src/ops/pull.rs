//! Pulling an image, unless it is here already.

use super::publish::{self, Claim};
use crate::{error::Error, ids, jobs::Job, kernels, service::Service, store::ImageRow};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Login, Platform, Progress, PullRequest, ROOTFS, Reference, Resolved};
use banger_model::{Bytes, ImageId, ImageName, ImageSource, Phase, Uid};
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
    /// What the registry is shown; what comes of it is its owner's alone.
    pub login: Option<Login>,
}

impl Pull {
    /// The name that it wants.
    pub fn claim(&self) -> Claim {
        Claim { name: self.name.clone(), owner: self.owner, reference: self.reference.to_string() }
    }

    /// Whether `image` is what would come out of this.
    fn is(&self, image: &ImageRow, resolved: &Resolved) -> bool {
        image.digest == resolved.manifest_digest.to_string()
            && image.platform == resolved.platform.to_string()
            && self.size.is_none_or(|size| size == image.size)
    }
}

/// Pulls an image and publishes it. One that is here under that name already stays as it is; one that is here under
/// another name shares its filesystem.
///
/// # Errors
/// Every kind of [`banger_image::ImageError`], no kernel to boot it with, and a name taken meanwhile. Nothing
/// is left then.
pub async fn pull(service: Arc<Service>, request: Pull, job: Arc<Job>) -> Result<Dict, Error> {
    // A host on which nothing could ever boot is told before the download.
    kernels::find_for_image(&service, "")?;
    let claim = request.claim();
    let before = claim.check(&service)?;
    job.phase(Phase::Resolving);
    let resolved = service
        .puller
        .resolve(&request.reference, &request.platform, request.login.as_ref(), &*job, &job.cancel)
        .await?;
    if let Some(image) = before.filter(|image| request.is(image, &resolved)) {
        return unchanged(&service, &image, &resolved).await;
    }
    // Of several pulls of one image, one makes it, and the others share what it made.
    let turn = service.making.turn(&resolved.manifest_digest.to_string());
    let _turn = match turn.try_lock() {
        Ok(turn) => turn,
        Err(_) => {
            job.phase(Phase::Queued);
            tokio::select! {
                turn = turn.lock() => turn,
                () = job.cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
    };
    if let Some(image) = claim.check(&service)?.filter(|image| request.is(image, &resolved)) {
        return unchanged(&service, &image, &resolved).await;
    }
    let id = publish::make(&service, &claim, &job, async |id, staging| {
        match share(&service, &request, &resolved, staging)? {
            Some(same) => Ok(ImageRow { id, names: vec![request.name.clone()], ..same }),
            None => fetch(&service, &request, resolved, id, staging, &job).await,
        }
    })
    .await?;
    Ok(answer(id, false))
}

/// An image that is here already; a policy may ask for a signature now that it did not ask for then.
async fn unchanged(service: &Arc<Service>, image: &ImageRow, resolved: &Resolved) -> Result<Dict, Error> {
    if !resolved.signature.is_empty() && resolved.signature != image.signature {
        service.store.set_image_signature(image.id, &resolved.signature)?;
        service.image_changed(image.id).await;
    }
    Ok(answer(image.id, true))
}

fn answer(id: ImageId, unchanged: bool) -> Dict {
    DictWriter::new().with("image", names::path_of(id)).with("unchanged", unchanged).done()
}

/// Takes the filesystem of an image that was made of the same manifest: one file, two names. Nothing ever writes
/// to an image's filesystem.
fn share(
    service: &Service,
    request: &Pull,
    resolved: &Resolved,
    staging: &Path,
) -> Result<Option<ImageRow>, Error> {
    let visible = |image: &ImageRow| !image.private || image.owner == request.owner;
    let images = service.store.images()?;
    let pulled = images.into_iter().filter(|image| image.source == ImageSource::Registry && visible(image));
    for image in pulled.filter(|image| request.is(image, resolved)) {
        // One that somebody is removing is no longer there to be shared.
        if std::fs::hard_link(service.rootfs(image.id), staging.join(ROOTFS)).is_ok() {
            return Ok(Some(ImageRow {
                reference: request.reference.to_string(),
                owner: request.owner,
                private: request.login.is_some(),
                signature: resolved.signature.clone(),
                created: ids::now().seconds,
                ..image
            }));
        }
    }
    Ok(None)
}

async fn fetch(
    service: &Service,
    request: &Pull,
    resolved: Resolved,
    id: ImageId,
    staging: &Path,
    job: &Job,
) -> Result<ImageRow, Error> {
    let wanted = PullRequest {
        reference: request.reference.clone(),
        platform: request.platform.clone(),
        size: request.size,
        staging: staging.to_owned(),
        resolved: Some(resolved),
        login: request.login.clone(),
    };
    let pulled = service.puller.pull(&wanted, job as &dyn Progress, &job.cancel).await?;
    Ok(ImageRow {
        id,
        names: vec![request.name.clone()],
        source: ImageSource::Registry,
        reference: request.reference.to_string(),
        digest: pulled.manifest_digest.to_string(),
        platform: pulled.platform.to_string(),
        size: pulled.size,
        content: pulled.content,
        compressed: pulled.compressed,
        layers: pulled.layers,
        config: pulled.config,
        owner: request.owner,
        private: request.login.is_some(),
        signature: pulled.signature,
        kernel: String::new(),
        created: ids::now().seconds,
    })
}
