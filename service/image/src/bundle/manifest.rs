//! `manifest.json` of a bundle: how to run it, and on which kernel.

use crate::{ImageError, RunConfig, Unsafe};
use banger_model::{Bytes, KernelName};
use serde::Deserialize;

/// The format that this banger reads.
const FORMAT: u32 = 1;
/// The most words of a command, or variables of an environment.
const MOST: usize = 1024;
/// The longest of them, in bytes.
const LONGEST: usize = 64 << 10;

/// What a bundle says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Size of the filesystem.
    pub size: Bytes,
    pub config: RunConfig,
    pub kernel: Option<KernelName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    format: u32,
    size: u64,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    user: String,
    #[serde(default)]
    working_directory: String,
    kernel: Option<KernelName>,
}

impl Manifest {
    pub(super) fn parse(text: &[u8]) -> Result<Self, ImageError> {
        let invalid = |why: String| Unsafe::Document { what: "the manifest of the bundle", why };
        let raw: Raw = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        if raw.format != FORMAT {
            return Err(invalid(format!("it is of format {}, this banger reads {FORMAT}", raw.format)).into());
        }
        for (what, list) in [("entrypoint", &raw.entrypoint), ("cmd", &raw.cmd), ("env", &raw.env)] {
            let wrong = |text: &String| text.len() > LONGEST || text.contains('\0');
            if list.len() > MOST || list.iter().any(wrong) {
                return Err(invalid(format!("its {what} is too long, or holds a zero byte")).into());
            }
        }
        if let Some(odd) = raw.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
            let odd = crate::error::shorten(odd.as_bytes());
            return Err(invalid(format!("its env holds {odd:?}, which is not NAME=value")).into());
        }
        for text in [&raw.user, &raw.working_directory] {
            if text.len() > 4096 || text.contains('\0') {
                return Err(invalid("its user or working-directory is too long".into()).into());
            }
        }
        if !raw.working_directory.is_empty() && !raw.working_directory.starts_with('/') {
            return Err(invalid("its working-directory does not begin with /".into()).into());
        }
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            size: Bytes(raw.size),
            config: RunConfig {
                entrypoint: raw.entrypoint,
                cmd: raw.cmd,
                env: raw.env,
                user: given(raw.user),
                working_dir: given(raw.working_directory),
                ..RunConfig::default()
            },
            kernel: raw.kernel,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_that_it_can_say() {
        let text = br#"{"format": 1, "size": 4096, "entrypoint": ["/init"], "cmd": ["x"], "env": ["A=b=c"],
            "user": "1000:1000", "working-directory": "/srv", "kernel": "6.1-Cloud"}"#;
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!((manifest.size, manifest.config.user.as_deref()), (Bytes(4096), Some("1000:1000")));
        assert_eq!(manifest.kernel.unwrap().as_str(), "6.1-Cloud");
        assert_eq!(
            (manifest.config.entrypoint, manifest.config.cmd),
            (vec!["/init".into()], vec!["x".into()])
        );
        let least = Manifest::parse(br#"{"format": 1, "size": 1}"#).unwrap();
        assert_eq!((least.config, least.kernel), (RunConfig::default(), None));
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, word) in [
            (r#"{"format": 2, "size": 1}"#, "format 2"),
            (r#"{"format": 1}"#, "size"),
            (r#"{"format": 1, "size": -1}"#, "u64"),
            (r#"{"format": 1, "size": 1, "volumes": []}"#, "volumes"),
            (r#"{"format": 1, "size": 1, "kernel": "../x"}"#, "kernel name"),
            (r#"{"format": 1, "size": 1, "env": ["A"]}"#, "NAME=value"),
            (r#"{"format": 1, "size": 1, "env": ["=x"]}"#, "NAME=value"),
            (r#"{"format": 1, "size": 1, "cmd": ["a\u0000b"]}"#, "cmd"),
            (r#"{"format": 1, "size": 1, "working-directory": "srv"}"#, "begin with /"),
            ("", "EOF"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let many = serde_json::json!({"format": 1, "size": 1, "cmd": vec!["x"; MOST + 1]}).to_string();
        assert!(Manifest::parse(many.as_bytes()).unwrap_err().to_string().contains("too long"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = Manifest::parse(text.as_bytes());
        }
    }
}
