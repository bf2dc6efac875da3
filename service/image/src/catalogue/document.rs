//! One catalogue document: JSON, read strictly.

use super::{Artifact, Entry, EntryKind};
use crate::{Digest, error::shorten, reference::is_loopback};
use banger_model::{Bytes, ImageName, KernelName};
use reqwest::Url;
use serde::Deserialize;
use std::collections::HashSet;

/// The format that this banger reads.
const FORMAT: u32 = 1;
/// The longest description, in characters.
const DESCRIPTION: usize = 400;
/// The longest release, in bytes (`__NEW_UTS_LEN`).
const RELEASE: usize = 64;
/// The longest address, in bytes.
const ADDRESS: usize = 2048;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    entries: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    kind: Kind,
    name: String,
    #[serde(default)]
    description: String,
    architecture: String,
    url: String,
    sha256: String,
    size: u64,
    kernel: Option<String>,
    release: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Image,
    Kernel,
}

/// The entries of a document, or what is wrong with it and where.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Entry>, String> {
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if document.format != FORMAT {
        return Err(format!("it is of format {}, this banger reads format {FORMAT}", document.format));
    }
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for raw in document.entries {
        let called = shorten(raw.name.as_bytes());
        let entry = entry(raw).map_err(|why| format!("entry {called:?}: {why}"))?;
        if !seen.insert((entry.kind, entry.name.clone(), entry.architecture.clone())) {
            return Err(format!("entry {called:?}: it is there twice"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(raw: Raw) -> Result<Entry, String> {
    let kind = match raw.kind {
        Kind::Image => {
            raw.name.parse::<ImageName>().map_err(|error| error.to_string())?;
            EntryKind::Image
        }
        Kind::Kernel => {
            raw.name.parse::<KernelName>().map_err(|error| error.to_string())?;
            EntryKind::Kernel
        }
    };
    match (kind, &raw.kernel, &raw.release) {
        (EntryKind::Kernel, Some(_), _) => return Err("a kernel wants no \"kernel\"".into()),
        (EntryKind::Image, _, Some(_)) => return Err("an image has no \"release\"".into()),
        _ => {}
    }
    let kernel = match &raw.kernel {
        Some(kernel) => kernel.parse::<KernelName>().map_err(|error| error.to_string())?.to_string(),
        None => String::new(),
    };
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !(1..=16).contains(&raw.architecture.len()) || !raw.architecture.bytes().all(word) {
        return Err("its architecture is not a word such as amd64".into());
    }
    // Both are shown on terminals.
    if raw.description.chars().count() > DESCRIPTION || raw.description.chars().any(char::is_control) {
        return Err(format!("its description is longer than {DESCRIPTION} characters, or not one line"));
    }
    let release = raw.release.unwrap_or_default();
    if release.len() > RELEASE || !release.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its release is not one word of at most 64 characters".into());
    }
    let digest = match raw.sha256.len() {
        64 => format!("sha256:{}", raw.sha256).parse::<Digest>().ok(),
        _ => None,
    };
    Ok(Entry {
        kind,
        name: raw.name,
        description: raw.description,
        architecture: raw.architecture,
        artifact: Artifact {
            url: address(&raw.url)?,
            digest: digest.ok_or("its sha256 is not 64 hexadecimal digits in lower case")?,
            size: Bytes(Some(raw.size).filter(|size| *size > 0).ok_or("its size is 0")?),
        },
        kernel,
        release,
    })
}

/// An address that may be asked: HTTPS, or plain HTTP on this machine, whatever registries may do.
fn address(text: &str) -> Result<Url, String> {
    if text.len() > ADDRESS {
        return Err("its url is too long".into());
    }
    let url = Url::parse(text).map_err(|error| format!("its url cannot be read: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its url holds credentials, which everybody could read here".into());
    }
    if url.fragment().is_some() {
        return Err("its url has a fragment".into());
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        ("http", Some(host)) if is_loopback(host) => Ok(url),
        ("http", _) => Err("its url is plain HTTP, which is for this machine alone: use https".into()),
        _ => Err("its url is not https".into()),
    }
}
