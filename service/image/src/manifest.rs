//! Manifests and indexes, of OCI (image specification, manifest.md and image-index.md) and of Docker (registry
//! documentation, "Image Manifest Version 2, Schema 2").

use crate::{Digest, ImageError, Limits, Platform, Unsafe, Unsupported, error::shorten};
use serde::Deserialize;
use std::collections::BTreeMap;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a registry is asked for: every document that [`Document::parse`] reads.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// Where layers are said to be, without the compression: the blob itself shows how it is compressed.
const LAYERS: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
const FOREIGN_LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// A blob as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub digest: Digest,
    pub size: u64,
}

/// What a registry answers for a reference.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// Manifests for several platforms.
#[derive(Debug)]
pub(crate) struct Index(Vec<Listed>);

/// One manifest of an index.
#[derive(Debug)]
struct Listed {
    platform: Option<Platform>,
    descriptor: Descriptor,
    /// What an image layout calls it, the longest name first.
    names: Vec<String>,
}

/// One image.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    /// Oldest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Where image layouts keep names: containerd and Docker the whole one, everybody the one that the specification has,
/// which may be a tag alone.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

impl RawDescriptor {
    fn names(&self) -> Vec<String> {
        let annotation = |key: &&str| self.annotations.as_ref().and_then(|all| all.get(*key));
        NAMES.iter().filter_map(annotation).map(|name| shorten(name.as_bytes())).collect()
    }

    fn checked(&self) -> Result<Descriptor, ImageError> {
        Ok(Descriptor { digest: self.digest.parse()?, size: self.size })
    }
}

impl Document {
    /// Reads a document; `content_type` is what the registry called it, which counts when the document does not say
    /// itself what it is.
    pub(crate) fn parse(
        body: &[u8],
        content_type: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let invalid = |why: &str| Unsafe::Document { what: "the manifest", why: why.to_owned() };
        let raw: Raw = serde_json::from_slice(body).map_err(|e| invalid(&e.to_string()))?;
        let content_type = content_type.map(|t| t.split(';').next().unwrap_or(t).trim());
        let media_type = raw.media_type.as_deref().or(content_type).unwrap_or_default();
        if raw.schema_version == Some(1)
            || media_type.starts_with("application/vnd.docker.distribution.manifest.v1")
        {
            return Err(Unsupported::Schema1.into());
        }
        if let Some(kind) = raw.artifact_type.as_deref().filter(|kind| !kind.is_empty()) {
            return Err(Unsupported::Artifact(shorten(kind.as_bytes())).into());
        }
        // A document that is both could be one thing to us and another to a scanner (CVE-2021-41190).
        match (media_type, raw.manifests, raw.config, raw.layers) {
            (OCI_MANIFEST | DOCKER_MANIFEST, Some(_), _, _)
            | (OCI_INDEX | DOCKER_INDEX, _, Some(_), _)
            | (OCI_INDEX | DOCKER_INDEX, _, _, Some(_))
            | (_, Some(_), Some(_), _)
            | (_, Some(_), _, Some(_)) => Err(invalid("it is both a manifest and an index").into()),
            (_, Some(manifests), None, None) => Ok(Document::Index(Index::new(&manifests)?)),
            (_, None, Some(config), Some(layers)) => {
                Ok(Document::Manifest(Manifest::new(&config, &layers, limits)?))
            }
            (OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX | "" | "application/json", ..) => {
                Err(invalid("it has neither layers nor manifests").into())
            }
            (other, ..) => Err(Unsupported::MediaType(shorten(other.as_bytes())).into()),
        }
    }
}

impl Index {
    fn new(manifests: &[RawDescriptor]) -> Result<Self, ImageError> {
        let mut found = Vec::new();
        for raw in manifests {
            // Attestations have the platform unknown/unknown; artifacts say what they are.
            let attestation = raw.platform.as_ref().is_some_and(|p| p.os == "unknown");
            if attestation || raw.artifact_type.is_some() || !is_document(&raw.media_type) {
                continue;
            }
            found.push(Listed {
                platform: raw.platform.clone(),
                descriptor: raw.checked()?,
                names: raw.names(),
            });
        }
        Ok(Self(found))
    }

    /// The manifest for `wanted`: the best of those that run there, the first of equals. One that does not say what
    /// it is for is taken when nothing else fits; its configuration will tell.
    pub(crate) fn select(&self, wanted: &Platform) -> Result<&Descriptor, ImageError> {
        let ranked = self.0.iter().filter_map(|l| {
            l.platform.as_ref().and_then(|p| wanted.accepts(p)).map(|rank| (rank, &l.descriptor))
        });
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor);
        let unsaid =
            || self.0.iter().find(|listed| listed.platform.is_none()).map(|listed| &listed.descriptor);
        best.or_else(unsaid).ok_or_else(|| {
            let mut available: Vec<Platform> = Vec::new();
            for platform in self.0.iter().filter_map(|listed| listed.platform.as_ref().map(Platform::normal))
            {
                if !available.contains(&platform) && available.len() < 32 {
                    available.push(platform);
                }
            }
            Unsupported::Platform { wanted: wanted.clone(), available }.into()
        })
    }
}

impl Index {
    /// The image that `wanted` means, by name or digest, of the index of an image layout, with its name; the only one
    /// when nobody says.
    ///
    /// # Errors
    /// [`Unsupported::Choice`].
    pub(crate) fn only(self, wanted: Option<&str>) -> Result<(Self, Option<String>), ImageError> {
        let mut names: Vec<String> = Vec::new();
        for name in self.0.iter().filter_map(|listed| listed.names.first()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let Some(wanted) = wanted else {
            return match names.len() {
                0 | 1 => Ok((self, names.pop())),
                _ => Err(Unsupported::Choice { several: true, names }.into()),
            };
        };
        let is = |listed: &Listed| {
            listed.names.iter().any(|name| name == wanted) || listed.descriptor.digest.to_string() == wanted
        };
        let found: Vec<Listed> = self.0.into_iter().filter(is).collect();
        match found.first().map(|listed| listed.names.first().cloned()) {
            Some(name) => Ok((Self(found), name)),
            None => Err(Unsupported::Choice { several: false, names }.into()),
        }
    }
}

impl Manifest {
    fn new(config: &RawDescriptor, layers: &[RawDescriptor], limits: &Limits) -> Result<Self, ImageError> {
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(Unsupported::Artifact(shorten(config.media_type.as_bytes())).into());
        }
        limit("the number of layers", layers.len() as u64, limits.layers.into())?;
        let mut checked = Vec::with_capacity(layers.len());
        for layer in layers {
            let descriptor = layer.checked()?;
            let base = layer.media_type.split(['+']).next().unwrap_or_default();
            let base = [".gzip", ".zstd"].iter().find_map(|suffix| base.strip_suffix(suffix)).unwrap_or(base);
            let compression = layer.media_type[base.len()..].trim_start_matches(['+', '.']);
            if FOREIGN_LAYERS.contains(&base) {
                return Err(Unsupported::ForeignLayer(descriptor.digest).into());
            }
            if !LAYERS.contains(&base) || !matches!(compression, "" | "gzip" | "zstd") {
                return Err(Unsupported::MediaType(shorten(layer.media_type.as_bytes())).into());
            }
            checked.push(descriptor);
        }
        let config = config.checked()?;
        limit("the size of the configuration", config.size, limits.config.0)?;
        let total = checked.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        limit("the size of all layers", total, limits.compressed.0)?;
        Ok(Self { config, layers: checked })
    }
}

fn is_document(media_type: &str) -> bool {
    media_type.is_empty() || ACCEPT.contains(&media_type)
}

/// Refuses a number above its limit.
pub(crate) fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), ImageError> {
    match value > limit {
        true => Err(Unsafe::Limit { what, value, limit }.into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn descriptor(media_type: &str, n: u8) -> Value {
        json!({ "mediaType": media_type, "digest": digest(n), "size": 10 })
    }

    fn manifest(layers: &[&str]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|t| descriptor(t, 2)).collect();
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, 1), "layers": layers })
    }

    fn parse(value: &Value) -> Result<Document, ImageError> {
        Document::parse(value.to_string().as_bytes(), None, &Limits::default())
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests: Vec<Value> = platforms
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let mut one = descriptor(OCI_MANIFEST, at as u8);
                let mut parts = text.split('/');
                if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
                    one["platform"] = json!({ "os": os, "architecture": architecture });
                    if let Some(variant) = parts.next() {
                        one["platform"]["variant"] = json!(variant);
                    }
                }
                one
            })
            .collect();
        match parse(&json!({ "schemaVersion": 2, "manifests": manifests })) {
            Ok(Document::Index(index)) => index,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_layer_type_is_known_or_named() {
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ] {
            assert!(parse(&manifest(&[good])).is_ok(), "{good}");
        }
        for foreign in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            let error = parse(&manifest(&[foreign])).unwrap_err();
            assert!(matches!(error, ImageError::Unsupported(Unsupported::ForeignLayer(_))), "{error}");
        }
        for other in [
            "",
            "text/plain",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.cncf.helm",
        ] {
            let error = parse(&manifest(&[other])).unwrap_err();
            assert!(matches!(error, ImageError::Unsupported(Unsupported::MediaType(_))), "{error}");
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let mut helm = manifest(&[]);
        helm["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        let mut artifact = manifest(&[]);
        artifact["artifactType"] = json!("application/x-signature");
        for artifact in [helm, artifact] {
            let error = parse(&artifact).unwrap_err();
            assert!(matches!(error, ImageError::Unsupported(Unsupported::Artifact(_))), "{error}");
        }
        for old in [
            json!({ "schemaVersion": 1, "fsLayers": [] }),
            json!({ "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws" }),
        ] {
            assert!(matches!(parse(&old), Err(ImageError::Unsupported(Unsupported::Schema1))));
        }
        let mut both = manifest(&[]);
        both["manifests"] = json!([]);
        let mut lying = manifest(&[]);
        lying["mediaType"] = json!(OCI_INDEX);
        for bad in [
            both,
            lying,
            json!({}),
            json!([]),
            json!({ "schemaVersion": 2, "config": descriptor(OCI_CONFIG, 1) }),
        ] {
            assert!(matches!(parse(&bad), Err(ImageError::Unsafe(Unsafe::Document { .. }))), "{bad}");
        }
        let mut bad_digest = manifest(&["application/vnd.oci.image.layer.v1.tar"]);
        bad_digest["layers"][0]["digest"] = json!("sha256:../../etc/passwd");
        assert!(matches!(parse(&bad_digest), Err(ImageError::Unsupported(Unsupported::Digest(_)))));
    }

    #[test]
    fn limits() {
        let small = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            let two = manifest(&["application/vnd.oci.image.layer.v1.tar"; 2]).to_string();
            match Document::parse(two.as_bytes(), None, &limits) {
                Err(ImageError::Unsafe(Unsafe::Limit { value, limit, .. })) => (value, limit),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(small(|l| l.layers = 1), (2, 1));
        assert_eq!(small(|l| l.config = Bytes(9)), (10, 9));
        assert_eq!(small(|l| l.compressed = Bytes(19)), (20, 19));
    }

    #[test]
    fn the_best_platform_is_selected() {
        let all = index(&[
            "windows/amd64",
            "linux/arm64/v8",
            "unknown/unknown",
            "linux/amd64/v3",
            "linux/amd64",
            "linux/amd64",
        ]);
        let select = |wanted: &str| all.select(&wanted.parse().unwrap()).map(|d| d.digest.to_string());
        assert_eq!(select("linux/amd64").ok(), Some(digest(4)));
        assert_eq!(select("linux/amd64/v4").ok(), Some(digest(3)));
        assert_eq!(select("linux/arm64").ok(), Some(digest(1)));
        let error = select("linux/riscv64").unwrap_err().to_string();
        assert_eq!(
            error,
            "the image cannot be used: it is not made for linux/riscv64, only for windows/amd64, linux/arm64, linux/amd64/v3, linux/amd64"
        );
        assert_eq!(
            index(&["linux/arm64", ""]).select(&"linux/amd64".parse().unwrap()).unwrap().digest.to_string(),
            digest(1)
        );
        assert!(index(&[]).select(&Platform::host()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = Document::parse(text.as_bytes(), None, &Limits::default());
        }
    }
}
