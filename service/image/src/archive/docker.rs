//! What `docker save` writes (Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format").

use super::{ImportRequest, build::Plan, document, members::Members, open::nobody, region::Region};
use crate::{
    Digest, ImageError, Layer, Limits, Unsafe, Unsupported,
    config::ImageConfig,
    error::shorten,
    manifest::{Descriptor, limit},
    unpack::Source,
};
use serde::Deserialize;

/// One image of an archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What the image that is wanted takes.
pub(super) fn plan(members: &Members, request: &ImportRequest, limits: &Limits) -> Result<Plan, ImageError> {
    let body = members.get("manifest.json")?.read("the size of the manifest", limits.manifest)?;
    let invalid = |e: serde_json::Error| Unsafe::Document { what: "manifest.json", why: e.to_string() };
    let saved: Vec<Saved> = serde_json::from_slice(&body).map_err(invalid)?;
    let saved = select(saved, request.select.as_deref())?;
    limit("the number of layers", saved.layers.len() as u64, limits.layers.into())?;

    let body = members.get(&saved.config)?.read("the size of the configuration", limits.config)?;
    let config = ImageConfig::parse(&body)?;
    let blobs = saved.layers.iter().map(|name| members.get(name)).collect::<Result<Vec<_>, _>>()?;
    let total = blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size()));
    limit("the size of all layers", total, limits.compressed.0)?;
    // Such layers have no digests but those of what is in them, which are checked when they are unpacked.
    let descriptor = |(at, blob): (usize, &Region)| Descriptor {
        digest: config.diff_ids.get(at).cloned().unwrap_or_else(nobody),
        size: blob.size(),
    };
    let descriptors = blobs.iter().enumerate().map(descriptor).collect();
    let layers = config.layers(descriptors)?;
    let listed: Vec<(&Layer, &str)> = layers.iter().map(|layer| (layer, document::PLAIN)).collect();
    let manifest_digest = Digest::of(&document::manifest(&body, &listed));
    Ok(Plan {
        reference: saved.repo_tags.unwrap_or_default().into_iter().next(),
        manifest_digest,
        platform: config.platform_for(&request.platform)?,
        config: config.run,
        sources: layers.into_iter().zip(blobs).map(|(layer, blob)| Source { layer, blob }).collect(),
    })
}

fn select(mut saved: Vec<Saved>, wanted: Option<&str>) -> Result<Saved, ImageError> {
    let names: Vec<String> =
        saved.iter().flat_map(|s| s.repo_tags.iter().flatten()).map(|n| shorten(n.as_bytes())).collect();
    if let Some(wanted) = wanted {
        saved.retain(|s| s.repo_tags.iter().flatten().any(|name| name == wanted) || s.config == wanted);
    }
    match (saved.pop(), saved.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) if wanted.is_none() => {
            Err(Unsafe::Document { what: "manifest.json", why: "it names no image".into() }.into())
        }
        (_, more) => Err(Unsupported::Choice { several: more > 0, names }.into()),
    }
}
