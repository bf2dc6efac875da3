//! What an image says about running it (OCI image specification, config.md).

use crate::{Digest, ImageError, Layer, Platform, Unsafe, Unsupported, manifest::Descriptor};
use banger_model::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// How the image's author meant it to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// The command that always runs; `cmd` is its arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments, or the command when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// The folder that the command starts in.
    pub working_dir: Option<String>,
    /// The signal that asks the command to end, such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// `80/tcp` and the like.
    pub exposed_ports: Vec<String>,
    /// Folders whose content outlives the container.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What the configuration blob holds that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    /// Empty strings where the blob says nothing.
    pub platform: Platform,
    /// Digests of the unpacked layers, oldest first.
    pub diff_ids: Vec<Digest>,
    pub run: RunConfig,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    rootfs: RawRootfs,
    config: Option<RawRun>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    #[serde(deserialize_with = "command")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "command")]
    cmd: Vec<String>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

/// A command is a list, or nothing, or, in images of Docker's first years, one string.
fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Command {
        List(Vec<String>),
        One(String),
        Nothing(()),
    }
    Ok(match Command::deserialize(deserializer)? {
        Command::List(list) => list,
        Command::One(one) => vec![one],
        Command::Nothing(()) => Vec::new(),
    })
}

impl ImageConfig {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ImageError> {
        let invalid =
            |e: serde_json::Error| Unsafe::Document { what: "the configuration", why: e.to_string() };
        let raw: Raw = serde_json::from_slice(body).map_err(invalid)?;
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        let run = raw.config.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            platform: Platform { os: raw.os, architecture: raw.architecture, variant: given(raw.variant) }
                .normal(),
            diff_ids: diff_ids.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            run: RunConfig {
                entrypoint: run.entrypoint,
                cmd: run.cmd,
                env: run.env.unwrap_or_default(),
                user: given(run.user),
                working_dir: given(run.working_dir),
                stop_signal: given(run.stop_signal),
                exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
                volumes: run.volumes.unwrap_or_default().into_keys().collect(),
                labels: run.labels.unwrap_or_default(),
            },
        })
    }
}

impl ImageConfig {
    /// The image's layers: the manifest's blobs with the archives in them.
    ///
    /// # Errors
    /// [`Unsafe::Document`] when there are not as many of the one as of the other.
    pub(crate) fn layers(&self, blobs: Vec<Descriptor>) -> Result<Vec<Layer>, ImageError> {
        let (layers, diffs) = (blobs.len(), self.diff_ids.len());
        if layers != diffs {
            let why = format!("it names {diffs} layers, and the manifest {layers}");
            return Err(Unsafe::Document { what: "the configuration", why }.into());
        }
        let layer = |(blob, diff_id): (Descriptor, &Digest)| Layer {
            digest: blob.digest,
            diff_id: diff_id.clone(),
            compressed: Bytes(blob.size),
        };
        Ok(blobs.into_iter().zip(&self.diff_ids).map(layer).collect())
    }

    /// What the image is made for: what it says, or, when it says nothing, what is `wanted`.
    ///
    /// # Errors
    /// [`Unsupported::Platform`] when it says something that does not run there.
    pub(crate) fn platform_for(&self, wanted: &Platform) -> Result<Platform, ImageError> {
        if self.platform.os.is_empty() || self.platform.architecture.is_empty() {
            return Ok(wanted.normal());
        }
        match wanted.accepts(&self.platform) {
            Some(_) => Ok(self.platform.clone()),
            None => {
                let available = vec![self.platform.clone()];
                Err(Unsupported::Platform { wanted: wanted.clone(), available }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_builders_write() {
        let diff_id = format!("sha256:{}", "ab".repeat(32));
        let body = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","author":"x",
            "config":{{"User":"","Env":["PATH=/bin","A=b=c"],"Entrypoint":["/e","f g"],"Cmd":null,"WorkingDir":"/w",
            "Labels":{{"k":"v"}},"ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/data":{{}}}},"StopSignal":"SIGQUIT"}},
            "rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"history":[{{"empty_layer":true}}]}}"#
        );
        let config = ImageConfig::parse(body.as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.diff_ids[0].to_string(), diff_id);
        assert_eq!(config.run.entrypoint, ["/e", "f g"]);
        assert!(config.run.cmd.is_empty() && config.run.user.is_none());
        assert_eq!(config.run.env, ["PATH=/bin", "A=b=c"]);
        assert_eq!(
            (config.run.exposed_ports, config.run.volumes),
            (vec!["80/tcp".into()], vec!["/data".into()])
        );
        let json =
            serde_json::to_string(&RunConfig { cmd: vec!["sh".into()], ..RunConfig::default() }).unwrap();
        assert_eq!(serde_json::from_str::<RunConfig>(&json).unwrap().cmd, ["sh"]);
    }

    #[test]
    fn the_least_that_there_can_be() {
        let config = ImageConfig::parse(br#"{"rootfs":{"diff_ids":null},"config":{"Cmd":"sh"}}"#).unwrap();
        assert_eq!(config.run.cmd, ["sh"]);
        assert!(config.diff_ids.is_empty());
        for bad in
            ["", "{}", "[]", r#"{"rootfs":{"diff_ids":["x"]}}"#, r#"{"rootfs":{},"config":{"Env":[1]}}"#]
        {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = ImageConfig::parse(text.as_bytes());
        }
    }
}
