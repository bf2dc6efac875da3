//! What can go wrong on the way from a reference to a filesystem.

use crate::{Digest, Platform};
use banger_model::Bytes;
use std::{fmt, io, path::PathBuf, sync::Arc};

/// A pull did not succeed. The variants are the bus errors of the same names; the text is a sentence with its
/// remedy and never holds a credential.
///
/// It can be cloned, because several pulls may wait for one download.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The text is not an image reference.
    #[error("{reference:?} is not an image reference: {why}")]
    InvalidReference {
        /// What was given, shortened.
        reference: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The registry answered that it has no such thing.
    #[error("the registry has no {what}: check the name and the tag")]
    NotFound {
        /// The reference or blob that is not there.
        what: String,
    },
    /// The registry could not be reached, failed, or broke off too often.
    #[error("registry {registry} is not available: {why}. Try again later, or check the network")]
    RegistryUnavailable {
        /// Host and port.
        registry: String,
        /// What happened.
        why: String,
    },
    /// The registry refused.
    #[error("registry {registry} denies access to {repository}: {}", denied(*shown, registry))]
    RegistryDenied {
        /// Host and port.
        registry: String,
        /// The repository that was asked for.
        repository: String,
        /// Whether credentials were shown.
        shown: bool,
    },
    /// The administrator wants a signature, and no good one is there.
    #[error(
        "{reference} is not signed as this host requires: {why}. Have it signed, or ask an administrator about [registry.signatures] in /etc/banger/registries.d"
    )]
    SignatureRequired {
        /// The image.
        reference: String,
        /// What is there instead.
        why: String,
    },
    /// What the administrator says about registries cannot be used.
    #[error(
        "what is said about registries is wrong: {}{}: {why}. An administrator has to repair that file",
        path.display(), at(line)
    )]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
    /// Bytes are not the ones that their digest names.
    #[error(
        "{what} does not match its digest: expected {expected}, got {actual}. Try again; if it happens again, do not trust where it comes from"
    )]
    DigestMismatch {
        /// Manifest, configuration or layer.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest, or the length, that came.
        actual: String,
    },
    /// A sound image that banger cannot use.
    #[error("the image cannot be used: {0}")]
    Unsupported(#[from] Unsupported),
    /// An image that is broken or hostile.
    #[error("the image is refused: {0}")]
    Unsafe(#[from] Unsafe),
    /// There is not enough room on the host.
    #[error("not enough space in {}: {available} free{}. Free some space and pull again", path.display(), about(needed))]
    NoSpace {
        /// The folder that is too full.
        path: PathBuf,
        /// About what the image needs, when that is known.
        needed: Option<Bytes>,
        /// What was free.
        available: Bytes,
    },
    /// The filesystem size that was asked for cannot be made.
    #[error("a filesystem of {size} cannot hold this image: it needs {} to {}", exact(least), exact(most))]
    InvalidSize {
        /// What was asked for.
        size: Bytes,
        /// The least size that would do.
        least: Bytes,
        /// The largest filesystem that can be written.
        most: Bytes,
    },
    /// Somebody cancelled the pull.
    #[error("the pull was cancelled")]
    Cancelled,
    /// The host's filesystem failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

/// Why a sound image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The image exists, but not for this platform.
    #[error("it is not made for {wanted}, only for {}", list(available))]
    Platform {
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// It is something other than an image: a chart, a signature, a disk.
    #[error("it is an artifact of type {0:?}, not a container image")]
    Artifact(String),
    /// A media type that banger does not know.
    #[error("media type {0:?} is not known")]
    MediaType(String),
    /// Docker's first manifest format.
    #[error("it uses Docker's manifest schema 1, which is obsolete: push it again with a current tool")]
    Schema1,
    /// A layer that has to be fetched from somewhere else.
    #[error(
        "layer {0} is a foreign layer, which registries do not hold (Windows base images have them): only Linux images can be used"
    )]
    ForeignLayer(Digest),
    /// A digest algorithm other than sha256 and sha512.
    #[error("digest {0:?} is not supported: only sha256 and sha512 are")]
    Digest(String),
    /// An input to import that is nothing that can be.
    #[error(
        "it is neither an OCI archive, a docker archive, a tar of a root filesystem nor an ext4 filesystem"
    )]
    Archive,
    /// An archive that does not have the one image that is wanted.
    #[error("it has {}", choice(*several, names))]
    Choice {
        /// Whether it has several, and nobody said which.
        several: bool,
        /// What those that it has are called.
        names: Vec<String>,
    },
    /// A filesystem that a guest could not mount.
    #[error("{0}")]
    Filesystem(String),
    /// An entry that ext4 cannot hold.
    #[error("entry {name:?} cannot be stored: {why}")]
    Entry {
        /// The entry's path, shortened.
        name: String,
        /// What ext4 cannot do.
        why: String,
    },
}

/// Why an image is refused as broken or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// A number is above its limit.
    #[error("{what} is {value}, more than the limit of {limit}")]
    Limit {
        /// Which limit of [`crate::Limits`].
        what: &'static str,
        /// What the image has.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A document is not what the specification says.
    #[error("{what} is not valid: {why}")]
    Document {
        /// Manifest, index or configuration.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob {} has {actual} bytes, and {declared} are declared", blob.short())]
    Length {
        /// The blob.
        blob: Digest,
        /// Bytes that the manifest says.
        declared: u64,
        /// Bytes that came; of one that is too long, as many as showed it.
        actual: u64,
    },
    /// A layer is not a sound archive.
    #[error("layer {layer} is damaged: {why}")]
    Archive {
        /// Its digest.
        layer: Digest,
        /// What is wrong.
        why: String,
    },
    /// An entry of a layer is not allowed.
    #[error("entry {name:?} of a layer is not allowed: {why}")]
    Entry {
        /// The entry's path, shortened.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl ImageError {
    /// An [`ImageError::Io`], or [`ImageError::NoSpace`] when the disk or the quota is full.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let available = crate::space::available(&path).unwrap_or_default();
            return ImageError::NoSpace { path, needed: None, available };
        }
        ImageError::Io { what, path, source: Arc::new(source) }
    }
}

fn choice(several: bool, names: &[String]) -> String {
    let list = if names.is_empty() { "without names".to_owned() } else { names.join(", ") };
    match several {
        true => format!("several images, and which one has to be said: {list}"),
        false => format!("no such image, only those: {list}"),
    }
}

/// A size as bytes when rounding it would lie.
fn exact(size: &Bytes) -> impl fmt::Display {
    match size.0 % Bytes::mib(1).0 {
        0 => size.to_string(),
        _ => format!("{} bytes", size.0),
    }
}

/// What to do about a refusal.
fn denied(shown: bool, registry: &str) -> String {
    let log_in =
        format!("log in with `podman login {registry}` or `docker login {registry}`, then pull again");
    match shown {
        true => format!(
            "it may not exist, or these credentials may not be for it, be wrong or have expired. To use others, {log_in}"
        ),
        false => format!("it may be private, or not exist. If it is private, {log_in}"),
    }
}

fn at(line: &Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

fn about(needed: &Option<Bytes>) -> String {
    needed.map(|needed| format!(", about {needed} needed")).unwrap_or_default()
}

fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "none".to_owned(),
        some => some.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// At most 200 characters of a name from outside, for an error text.
pub(crate) fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(800)]).into_owned();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
