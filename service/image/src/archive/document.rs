//! The documents of images that come without any (OCI image specification, config.md and manifest.md). The same image
//! gives the same bytes: there is no time in them.

use crate::{Digest, Layer, Platform, RunConfig};
use serde_json::{Map, Value, json};

/// The media type of a layer that is not compressed.
pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of a layer compressed with zstd.
pub(super) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The configuration blob.
pub(super) fn config(run: &RunConfig, platform: &Platform, diff_ids: &[Digest]) -> Vec<u8> {
    let mut config = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Null => true,
            _ => false,
        };
        if !empty {
            config.insert(key.to_owned(), value);
        }
    };
    let set = |names: &[String]| -> Value {
        names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>().into()
    };
    put("User", json!(run.user));
    put("ExposedPorts", set(&run.exposed_ports));
    put("Env", json!(run.env));
    put("Entrypoint", json!(run.entrypoint));
    put("Cmd", json!(run.cmd));
    put("Volumes", set(&run.volumes));
    put("WorkingDir", json!(run.working_dir));
    put("Labels", json!(run.labels));
    put("StopSignal", json!(run.stop_signal));
    let diff_ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
    let mut whole = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    if let (Some(variant), Value::Object(map)) = (&platform.variant, &mut whole) {
        map.insert("variant".to_owned(), json!(variant));
    }
    whole.to_string().into_bytes()
}

/// The manifest of a configuration and layers, each with its media type.
pub(super) fn manifest(config: &[u8], layers: &[(&Layer, &str)]) -> Vec<u8> {
    let layers: Vec<Value> =
        layers.iter().map(|(layer, kind)| descriptor(kind, &layer.digest, layer.compressed.0)).collect();
    let kind = "application/vnd.oci.image.config.v1+json";
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(kind, &Digest::of(config), config.len() as u64),
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

/// The index of a layout with one image.
pub(super) fn index(manifest: &[u8], platform: &Platform, name: &str) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST, &Digest::of(manifest), manifest.len() as u64);
    if let Value::Object(entry) = &mut entry {
        entry.insert("platform".to_owned(), json!(platform));
        entry.insert("annotations".to_owned(), json!({"org.opencontainers.image.ref.name": name}));
    }
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    })
    .to_string()
    .into_bytes()
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": kind, "digest": digest.to_string(), "size": size})
}
