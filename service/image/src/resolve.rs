//! What a reference means: indexes, manifest, configuration.

use crate::{
    Digest, ImageError, Layer, Login, Platform, Progress, Puller, Reference, RunConfig, Unsafe,
    config::ImageConfig,
    manifest::{Document, Manifest},
    puller::unless,
    registry::Repository,
    signature::{self, Rules, Signable},
};
use banger_model::{Bytes, Phase};
use std::{fmt, io::Read, sync::Arc};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

/// What a reference means at the moment.
#[derive(Clone)]
pub struct Resolved {
    /// Digest of the image's manifest (the platform's one, not the index's).
    pub manifest_digest: Digest,
    /// The platform that it is for.
    pub platform: Platform,
    /// How to run it.
    pub config: RunConfig,
    /// Its layers, oldest first.
    pub layers: Vec<Layer>,
    /// Whose signature was checked, in words; empty where none is required.
    pub signature: String,
    /// Where the layers are, and the right to fetch them.
    pub(crate) repository: Arc<Repository>,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("manifest_digest", &self.manifest_digest).finish_non_exhaustive()
    }
}

impl Resolved {
    /// Compressed bytes of all layers.
    pub fn compressed(&self) -> Bytes {
        Bytes(self.layers.iter().map(|layer| layer.compressed.0).sum())
    }
}

impl Puller {
    /// Asks the registry what `reference` means. Fetches manifests, checks their signatures where the administrator wants
    /// that, and fetches the configuration unless it is cached.
    ///
    /// # Errors
    /// Every kind but the ones about space and size.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        login: Option<&Login>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Resolved, ImageError> {
        let registries = self.registries()?;
        let rules = registries.signatures(reference)?;
        let repository =
            Arc::new(Repository::new(&self.http(), &registries, reference.clone(), login, self.limits()));
        loop {
            match self.resolve_in(&repository, rules.as_ref(), platform, progress, cancel).await {
                // A mirror's answer can be wrong in every way. What the registry itself answers counts.
                Err(error) if !cancel.is_cancelled() && repository.distrust_mirrors() => {
                    tracing::warn!(%reference, %error, "asked again, without mirrors");
                }
                resolved => return resolved,
            }
        }
    }

    async fn resolve_in(
        &self,
        repository: &Arc<Repository>,
        rules: Option<&Rules>,
        platform: &Platform,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Resolved, ImageError> {
        let mut documents = Vec::new();
        let (manifest_digest, manifest) =
            unless(cancel, self.find_manifest(repository, platform, &mut documents)).await?;
        let signature = match rules {
            Some(rules) => {
                progress.phase(Phase::Verifying);
                let limits = self.limits();
                let checked = signature::check(repository, rules, &documents, &limits);
                unless(cancel, checked).await?.text()
            }
            None => String::new(),
        };
        let config = self.config(repository, &manifest, cancel).await?;
        let layers = config.layers(manifest.layers)?;
        Ok(Resolved {
            manifest_digest,
            platform: config.platform_for(platform)?,
            config: config.run,
            layers,
            signature,
            repository: Arc::clone(repository),
        })
    }

    /// Follows indexes to the manifest for `platform`; all these are in `documents` then.
    async fn find_manifest(
        &self,
        repository: &Repository,
        platform: &Platform,
        documents: &mut Vec<Signable>,
    ) -> Result<(Digest, Manifest), ImageError> {
        let mut name = repository.reference().manifest_name();
        for _ in 0..=self.limits().index_depth {
            let answer = repository.manifest(&name).await?;
            let document = Document::parse(&answer.body, answer.content_type.as_deref(), &self.limits())?;
            let digest = Digest::of(&answer.body);
            documents.push(Signable::new(answer.body));
            match document {
                // A name that is a digest was checked, with its own algorithm.
                Document::Manifest(manifest) => {
                    return Ok((name.parse().unwrap_or(digest), manifest));
                }
                Document::Index(index) => name = index.select(platform)?.digest.to_string(),
            }
        }
        let limit = self.limits().index_depth.into();
        Err(Unsafe::Limit { what: "the depth of indexes", value: limit + 1, limit }.into())
    }

    async fn config(
        &self,
        repository: &Arc<Repository>,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<ImageConfig, ImageError> {
        let blob = self.get(&manifest.config, repository, &Arc::new(Semaphore::new(1)))?;
        let ready = unless(cancel, blob.ready()).await;
        let mut reader = blob.reader(cancel, &Arc::default());
        let read = spawn_blocking(move || {
            ready?;
            let mut body = Vec::new();
            // Its size is within the limit, and the transfer gives no more than that.
            reader.read_to_end(&mut body).map_err(|e| e.downcast().unwrap_or(ImageError::Cancelled))?;
            ImageConfig::parse(&body)
        });
        let config = read.await.unwrap_or(Err(ImageError::Cancelled));
        blob.release().await;
        config
    }
}
