//! Image layouts (OCI image specification, image-layout.md).

use super::{ImportRequest, build::Plan, members::Members};
use crate::{
    Digest, ImageError, Limits, Unsafe,
    config::ImageConfig,
    manifest::{Document, Index, Manifest},
    unpack::Source,
};

/// What the image that is wanted takes.
pub(super) fn plan(members: &Members, request: &ImportRequest, limits: &Limits) -> Result<Plan, ImageError> {
    let body = members.get("index.json")?.read("the size of the index", limits.manifest)?;
    let Document::Index(index) = Document::parse(&body, None, limits)? else {
        return Err(Unsafe::Document { what: "the index", why: "it has no manifests".into() }.into());
    };
    let (index, reference) = index.only(request.select.as_deref())?;
    let (manifest_digest, manifest) = find(members, index, request, limits)?;
    let config = members.blob(&manifest.config)?.read("the size of the configuration", limits.config)?;
    let config = ImageConfig::parse(&config)?;
    let blobs = manifest.layers.iter().map(|layer| members.blob(layer)).collect::<Result<Vec<_>, _>>()?;
    let layers = config.layers(manifest.layers)?;
    Ok(Plan {
        reference,
        manifest_digest,
        platform: config.platform_for(&request.platform)?,
        config: config.run,
        sources: layers.into_iter().zip(blobs).map(|(layer, blob)| Source { layer, blob }).collect(),
    })
}

/// Follows indexes to the manifest for the platform.
fn find(
    members: &Members,
    mut index: Index,
    request: &ImportRequest,
    limits: &Limits,
) -> Result<(Digest, Manifest), ImageError> {
    // The layout's own index is one more than what a registry has.
    for _ in 0..=limits.index_depth + 1 {
        let descriptor = index.select(&request.platform)?.clone();
        let body = members.blob(&descriptor)?.read("the size of the manifest", limits.manifest)?;
        match Document::parse(&body, None, limits)? {
            Document::Manifest(manifest) => return Ok((descriptor.digest, manifest)),
            Document::Index(inner) => index = inner,
        }
    }
    let limit = u64::from(limits.index_depth) + 1;
    Err(Unsafe::Limit { what: "the depth of indexes", value: limit + 1, limit }.into())
}
