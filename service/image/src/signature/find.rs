//! Where signatures are: in the image's own repository, fetched with the same right as the image.

use super::{Claim, Refused, Rules, Signable, Verified, bundle, verify};
use crate::{Digest, ImageError, Limits, Unsafe, registry::Repository};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Media type of the layers of cosign's `.sig` images (cosign, specs/SIGNATURE_SPEC.md).
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// How many reasons a refusal tells.
const TOLD: usize = 3;

const WRONG_DIGEST: &str = "it is under a digest that is none";

/// What refers to a manifest.
#[derive(Deserialize)]
struct Referrers {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: String,
    #[serde(default)]
    artifact_type: String,
}

/// An image that carries signatures, as far as it matters.
#[derive(Deserialize)]
struct Carrier {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Looks for a signature of one of `documents`, an index and the manifest in it, that `rules` want.
///
/// # Errors
/// [`ImageError::SignatureRequired`] when there is none, and what the registry says.
pub(crate) async fn check(
    repository: &Repository,
    rules: &Rules,
    documents: &[Signable],
    limits: &Limits,
) -> Result<Verified, ImageError> {
    let search = Search { repository, rules, limits };
    let mut refused = Vec::new();
    for document in documents {
        if let Some(verified) = search.in_tag(document, &mut refused).await? {
            return Ok(verified);
        }
    }
    for document in documents {
        if let Some(verified) = search.in_referrers(document, &mut refused).await? {
            return Ok(verified);
        }
    }
    let reference = repository.reference().to_string();
    Err(ImageError::SignatureRequired { reference, why: reasons(&refused) })
}

struct Search<'a> {
    repository: &'a Repository,
    rules: &'a Rules,
    limits: &'a Limits,
}

impl Search<'_> {
    /// A good signature under cosign's tag.
    async fn in_tag(
        &self,
        document: &Signable,
        refused: &mut Vec<Refused>,
    ) -> Result<Option<Verified>, ImageError> {
        let tag = format!("{}.sig", tag_of(&document.digest));
        let Some(carrier) = found(self.repository.manifest(&tag).await)? else { return Ok(None) };
        let layers = self.carried(&carrier.body, PAYLOAD)?;
        for layer in layers {
            let claim = match self.blob(&layer.digest).await? {
                Ok(payload) => Ok(Claim::Payload { payload, annotations: layer.annotations }),
                Err(why) => Err(why),
            };
            match claim.and_then(|claim| self.verify(document, &claim)) {
                Ok(verified) => return Ok(Some(verified)),
                Err(why) => refused.push(why),
            }
        }
        Ok(None)
    }

    /// A good signature among the bundles that refer to the document.
    async fn in_referrers(
        &self,
        document: &Signable,
        refused: &mut Vec<Refused>,
    ) -> Result<Option<Verified>, ImageError> {
        let list = match self.repository.referrers(&document.digest).await {
            Ok(list) => list,
            // Registries that do not list referrers have them under a tag ("Referrers Tag Schema"); not all of these
            // answer that there is no such page.
            Err(ImageError::NotFound { .. } | ImageError::RegistryUnavailable { .. }) => {
                let tagged = self.repository.manifest(&tag_of(&document.digest)).await;
                let Some(list) = found(tagged)? else { return Ok(None) };
                list
            }
            Err(error) => return Err(error),
        };
        let Referrers { manifests } = self::document(&list.body)?;
        let is_bundle = |referrer: &&Referrer| referrer.artifact_type.starts_with(bundle::MEDIA_TYPE);
        let bundles: Vec<&Referrer> = manifests.iter().filter(is_bundle).collect();
        self.few(bundles.len())?;
        for referrer in bundles {
            match self.bundle(referrer).await?.and_then(|claim| self.verify(document, &claim)) {
                Ok(verified) => return Ok(Some(verified)),
                Err(why) => refused.push(why),
            }
        }
        Ok(None)
    }

    /// The bundle in a referrer.
    async fn bundle(&self, referrer: &Referrer) -> Result<Result<Claim, Refused>, ImageError> {
        // Not a tag: what is listed is listed by its digest.
        let Ok(digest) = referrer.digest.parse::<Digest>() else { return Ok(Err(WRONG_DIGEST.into())) };
        let Some(carrier) = found(self.repository.manifest(&digest.to_string()).await)? else {
            return Ok(Err("its manifest is not there".into()));
        };
        let carrier: Carrier = document(&carrier.body)?;
        let Some(layer) = carrier.layers.iter().find(|l| l.media_type.starts_with(bundle::MEDIA_TYPE)) else {
            return Ok(Err("its manifest has no bundle".into()));
        };
        Ok(self.blob(&layer.digest).await?.map(Claim::Bundle))
    }

    fn verify(&self, document: &Signable, claim: &Claim) -> Result<Verified, Refused> {
        verify(self.rules, self.repository.reference(), document, claim)
    }

    /// The layers of this media type, as many as are looked at.
    fn carried(&self, body: &[u8], media_type: &str) -> Result<Vec<Layer>, ImageError> {
        let carrier: Carrier = document(body)?;
        let layers: Vec<Layer> = carrier.layers.into_iter().filter(|l| l.media_type == media_type).collect();
        self.few(layers.len())?;
        Ok(layers)
    }

    fn few(&self, number: usize) -> Result<(), ImageError> {
        let (value, limit) = (number as u64, self.limits.signatures.into());
        match value > limit {
            true => Err(Unsafe::Limit { what: "the number of signatures", value, limit }.into()),
            false => Ok(()),
        }
    }

    /// A small blob, or why there is none.
    async fn blob(&self, digest: &str) -> Result<Result<Vec<u8>, Refused>, ImageError> {
        let Ok(digest) = digest.parse::<Digest>() else {
            return Ok(Err("it is under a wrong digest".into()));
        };
        let body = self.repository.small_blob(&digest, self.limits.signature).await;
        Ok(found(body)?.ok_or_else(|| "its blob is not there".into()))
    }
}

/// What is there; that it is not is no error here.
fn found<T>(answer: Result<T, ImageError>) -> Result<Option<T>, ImageError> {
    match answer {
        Err(ImageError::NotFound { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn document<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(body).map_err(|error| {
        Unsafe::Document { what: "what lists the signatures", why: error.to_string() }.into()
    })
}

/// A digest as part of a tag, in which no colon may be.
fn tag_of(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

/// A sentence about what was found instead of a good signature.
fn reasons(refused: &[Refused]) -> String {
    let mut told: Vec<String> = refused.iter().map(Refused::to_string).collect();
    told.dedup();
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    match (told.is_empty(), more) {
        (true, _) => "there is none in its repository".to_owned(),
        (false, 0) => format!("the one that is there does not count: {}", told.join("; ")),
        (false, more) => format!("those that are there do not count: {}; and {more} more", told.join("; ")),
    }
}
