//! Pulling an image bundle that the catalogue names.

use super::publish::{self, Claim};
use crate::{error::Error, ids, jobs::Job, kernels, service::Service, store::ImageRow};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{Bundle, BundleRequest, CatalogueEntry, Platform, Progress, ROOTFS};
use banger_model::{ImageId, ImageName, ImageSource, Phase, Uid};
use std::{path::Path, sync::Arc};

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullBundle {
    /// From where.
    pub entry: CatalogueEntry,
    /// Its name here.
    pub name: ImageName,
    /// For which machine.
    pub platform: Platform,
    /// For whom.
    pub owner: Uid,
}

impl PullBundle {
    /// The name that it wants. The entry's name stands for a reference: those of registries have a slash.
    pub fn claim(&self) -> Claim {
        Claim { name: self.name.clone(), owner: self.owner, reference: self.entry.name.clone() }
    }

    fn is(&self, image: &ImageRow) -> bool {
        image.source == ImageSource::Catalogue && image.digest == self.entry.artifact.digest.to_string()
    }
}

/// Pulls a bundle and publishes it, unless it is here already.
///
/// # Errors
/// Those of [`banger_image::Puller::pull_bundle`], a kernel that it wants and that is not here, and a name taken
/// meanwhile. Nothing is left then.
pub async fn pull(service: Arc<Service>, request: PullBundle, job: Arc<Job>) -> Result<Dict, Error> {
    // A host on which it could never boot is told before the download.
    kernels::find_for_image(&service, &request.entry.kernel)?;
    let claim = request.claim();
    job.phase(Phase::Queued);
    let turn = service.making.turn(&request.entry.artifact.digest.to_string());
    let _turn = tokio::select! {
        turn = turn.lock() => turn,
        () = job.cancel.cancelled() => return Err(Error::Cancelled),
    };
    if let Some(image) = claim.check(&service)?.filter(|image| request.is(image)) {
        return Ok(answer(image.id, true));
    }
    let id = publish::make(&service, &claim, &job, async |id, staging| {
        match share(&service, &request, staging)? {
            Some(same) => Ok(ImageRow { id, ..same }),
            None => fetch(&service, &request, id, staging, &job).await,
        }
    })
    .await?;
    Ok(answer(id, false))
}

fn answer(id: ImageId, unchanged: bool) -> Dict {
    DictWriter::new().with("image", names::path_of(id)).with("unchanged", unchanged).done()
}

/// Takes the filesystem of an image that was made of the same bundle: one file, two names.
fn share(service: &Service, request: &PullBundle, staging: &Path) -> Result<Option<ImageRow>, Error> {
    let visible = |image: &ImageRow| !image.private || image.owner == request.owner;
    let images = service.store.images()?.into_iter();
    for image in images.filter(|image| request.is(image) && visible(image)) {
        // One that somebody is removing is no longer there to be shared.
        if std::fs::hard_link(service.rootfs(image.id), staging.join(ROOTFS)).is_ok() {
            let (content, config, size) = (image.content, image.config, image.size);
            let compressed = image.compressed;
            let digest = request.entry.artifact.digest.clone();
            let kernel = Some(image.kernel).filter(|kernel| !kernel.is_empty());
            let kernel = kernel.map(|kernel| kernel.parse()).transpose()?;
            let bundle = Bundle { digest, config, kernel, size, content, compressed };
            return Ok(Some(row(image.id, request, bundle)));
        }
    }
    Ok(None)
}

async fn fetch(
    service: &Service,
    request: &PullBundle,
    id: ImageId,
    staging: &Path,
    job: &Arc<Job>,
) -> Result<ImageRow, Error> {
    let wanted = BundleRequest { artifact: request.entry.artifact.clone(), staging: staging.to_owned() };
    let progress: Arc<dyn Progress> = job.clone();
    let bundle = service.puller.pull_bundle(&wanted, progress, &job.cancel).await?;
    let row = row(id, request, bundle);
    kernels::find_for_image(service, &row.kernel)?;
    Ok(row)
}

fn row(id: ImageId, request: &PullBundle, bundle: Bundle) -> ImageRow {
    let own = bundle.kernel.map(|kernel| kernel.to_string()).unwrap_or_default();
    ImageRow {
        id,
        names: vec![request.name.clone()],
        source: ImageSource::Catalogue,
        reference: request.entry.name.clone(),
        digest: bundle.digest.to_string(),
        platform: request.platform.to_string(),
        size: bundle.size,
        content: bundle.content,
        compressed: bundle.compressed,
        layers: Vec::new(),
        config: bundle.config,
        owner: request.owner,
        private: false,
        signature: String::new(),
        kernel: kernels::choose(None, &request.entry.kernel, &own, "").to_owned(),
        created: ids::now().seconds,
    }
}
