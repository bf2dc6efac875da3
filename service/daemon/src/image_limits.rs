//! `[limits]` in the configuration: what an image, a layer and a registry may cost at most.

use crate::config::bytes;
use banger_image::Limits;
use banger_model::Bytes;
use serde::Deserialize;
use std::{ops::RangeInclusive, time::Duration};

/// The limits that the administrator sets; [`Limits`] says what each means, and has the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct ImageLimits(pub Limits);

/// The section as it is written; sizes such as `4M`, times in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Written {
    #[serde(deserialize_with = "bytes")]
    manifest: Bytes,
    #[serde(deserialize_with = "bytes")]
    config: Bytes,
    index_depth: u32,
    layers: u32,
    #[serde(deserialize_with = "bytes")]
    compressed: Bytes,
    #[serde(deserialize_with = "bytes")]
    unpacked: Bytes,
    ratio: u64,
    #[serde(deserialize_with = "bytes")]
    ratio_from: Bytes,
    entries: u64,
    path: u32,
    #[serde(deserialize_with = "bytes")]
    xattrs: Bytes,
    #[serde(deserialize_with = "bytes")]
    extension: Bytes,
    downloads: usize,
    retries: u32,
    stall: u64,
    connect: u64,
}

impl Default for Written {
    fn default() -> Self {
        let Limits {
            manifest,
            config,
            index_depth,
            layers,
            compressed,
            unpacked,
            ratio,
            ratio_from,
            entries,
            path,
            xattrs,
            extension,
            downloads,
            retries,
            stall,
            connect,
            ..
        } = Limits::default();
        Self {
            manifest,
            config,
            index_depth,
            layers,
            compressed,
            unpacked,
            ratio,
            ratio_from,
            entries,
            path,
            xattrs,
            extension,
            downloads,
            retries,
            stall: stall.as_secs(),
            connect: connect.as_secs(),
        }
    }
}

impl TryFrom<Written> for ImageLimits {
    type Error = String;

    /// Refuses what would use up memory, or let nothing through.
    fn try_from(written: Written) -> Result<Self, String> {
        /// What is held in memory as a whole.
        const HELD: RangeInclusive<u64> = 1..=64 << 20;
        const ANY: RangeInclusive<u64> = 1..=u64::MAX;
        for (key, value, range) in [
            ("manifest", written.manifest.0, HELD),
            ("config", written.config.0, HELD),
            ("index-depth", written.index_depth.into(), 0..=16),
            ("layers", written.layers.into(), 1..=1024),
            ("compressed", written.compressed.0, ANY),
            ("unpacked", written.unpacked.0, ANY),
            ("ratio", written.ratio, ANY),
            ("entries", written.entries, ANY),
            ("path", written.path.into(), 1..=4095),
            ("xattrs", written.xattrs.0, HELD),
            ("extension", written.extension.0, HELD),
            ("downloads", written.downloads as u64, 1..=64),
            ("retries", written.retries.into(), 0..=100),
            ("stall", written.stall, 1..=86_400),
            ("connect", written.connect, 1..=86_400),
        ] {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return Err(match most {
                    u64::MAX => format!("limits.{key} must be at least {least}, not {value}"),
                    _ => format!("limits.{key} must be {least} to {most}, not {value}"),
                });
            }
        }
        Ok(Self(Limits {
            manifest: written.manifest,
            config: written.config,
            index_depth: written.index_depth,
            layers: written.layers,
            compressed: written.compressed,
            unpacked: written.unpacked,
            ratio: written.ratio,
            ratio_from: written.ratio_from,
            entries: written.entries,
            path: written.path,
            xattrs: written.xattrs,
            extension: written.extension,
            downloads: written.downloads,
            retries: written.retries,
            stall: Duration::from_secs(written.stall),
            connect: Duration::from_secs(written.connect),
            ..Limits::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(section: &str) -> Result<Limits, String> {
        let config: Result<Config, _> = toml::from_str(&format!("[limits]\n{section}"));
        config.map(|config| config.limits.0).map_err(|error| error.to_string())
    }

    #[test]
    fn each_limit_can_be_set_and_the_rest_keeps_its_default() {
        assert_eq!(read("").unwrap(), Limits::default());
        let limits = read("ratio = 1100\nunpacked = \"1T\"\nentries = 20000000\nstall = 90\n").unwrap();
        let expected = Limits {
            ratio: 1100,
            unpacked: Bytes::gib(1024),
            entries: 20_000_000,
            stall: Duration::from_secs(90),
            ..Limits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_range() {
        for (section, told) in [
            ("layers = 0", "limits.layers must be 1 to 1024, not 0"),
            ("layers = 70000", "limits.layers must be 1 to 1024, not 70000"),
            ("manifest = \"1G\"", "limits.manifest must be 1 to 67108864, not 1073741824"),
            ("path = 5000", "limits.path must be 1 to 4095, not 5000"),
            ("ratio = 0", "limits.ratio must be at least 1, not 0"),
            ("downloads = 1000", "limits.downloads must be 1 to 64, not 1000"),
            ("raito = 3", "raito"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(told), "{section}: {error}");
        }
    }

    /// The page for administrators shows every key with its default.
    #[test]
    fn the_documentation_has_every_key_and_default() {
        let page = include_str!("../../../docs/configuration.md");
        let (_, section) = page.split_once("[limits]\n").unwrap();
        let section = section.split("```").next().unwrap();
        assert_eq!(read(section).unwrap(), Limits::default());
        let keys: Vec<&str> = section.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        for key in [
            "manifest",
            "config",
            "index-depth",
            "layers",
            "compressed",
            "unpacked",
            "ratio",
            "ratio-from",
            "entries",
            "path",
            "xattrs",
            "extension",
            "downloads",
            "retries",
            "stall",
            "connect",
        ] {
            assert!(keys.contains(&key), "{key} is not documented");
        }
        assert_eq!(keys.len(), 16, "{keys:?}");
    }
}
