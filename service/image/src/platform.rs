//! What an image is made for (OCI image specification, image-index.md, "platform").

use crate::{ImageError, error::shorten};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Operating system, architecture and its variant, in Go's words as everywhere in OCI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v7` in `linux/arm/v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this host runs: Linux on the processor that this program was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// The same platform spelled in the one way that can be compared: `aarch64` is `arm64`, `x86_64` is `amd64`,
    /// and the variants `v8` of arm64 and `v7` of arm are what no variant means (containerd's platforms package).
    pub(crate) fn normal(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().map(str::to_ascii_lowercase).unwrap_or_default();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("i386" | "i486" | "i686", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) | ("arm", "7" | "") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            (a, v) => (a, v),
        };
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// How well an image for `offered` runs here: 0 is a perfect match, `None` is not at all. A processor runs the
    /// images of its lower variants.
    pub(crate) fn accepts(&self, offered: &Platform) -> Option<u32> {
        let (wanted, offered) = (self.normal(), offered.normal());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        let level = |p: &Platform| match &p.variant {
            None => Some(0),
            Some(v) => v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()),
        };
        match (level(&wanted), level(&offered)) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            _ => (wanted.variant == offered.variant).then_some(0),
        }
    }
}

impl FromStr for Platform {
    type Err = ImageError;

    /// Reads `os/architecture` or `os/architecture/variant`.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refused = || ImageError::InvalidReference {
            reference: shorten(text.as_bytes()),
            why: "a platform is os/architecture or os/architecture/variant, such as linux/amd64",
        };
        let word = |s: &str| {
            (1..=32).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| word(part)) {
            return Err(refused());
        }
        let variant = parts.get(2).map(|v| (*v).to_owned());
        Ok(Self { os: parts[0].to_owned(), architecture: parts[1].to_owned(), variant }.normal())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm/v6", "windows/amd64", "linux/riscv64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        assert_eq!(platform("Linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/arm64/v8").to_string(), "linux/arm64");
        for bad in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux/am d64", "linux/ü"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_processor_runs_lower_variants() {
        for (wanted, offered, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/arm64", "linux/aarch64/v8", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
        ] {
            assert_eq!(platform(wanted).accepts(&platform(offered)), rank, "{wanted} {offered}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>().ok(), Some(platform));
            }
        }
    }
}
