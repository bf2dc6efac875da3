//! Image references: `[registry/]repository[:tag][@digest]`.
//!
//! The grammar is that of github.com/distribution/reference; what has no registry is Docker's short form, as every
//! container tool reads it.

use crate::{Digest, ImageError, error::shorten};
use banger_model::ImageName;
use std::{fmt, net::IpAddr, str::FromStr};

/// Docker's registry, where references that name none come from unless the administrator says otherwise.
pub(crate) const DOCKER: &str = "docker.io";
/// The host that answers the registry API for [`DOCKER`].
const DOCKER_API: &str = "registry-1.docker.io";
/// Where [`DOCKER`] keeps repositories of one component.
const OFFICIAL: &str = "library";
/// The tag of references that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// Longest reference that is looked at, in bytes.
const LONGEST: usize = 1024;
/// Longest repository, in bytes.
const LONGEST_REPOSITORY: usize = 255;
/// Longest tag, in bytes.
const LONGEST_TAG: usize = 128;
/// Longest image name, in bytes: a DNS label.
const LONGEST_NAME: usize = 63;

/// A validated reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference; one that names no registry, as `debian`, is of the registry `default`.
    ///
    /// # Errors
    /// [`ImageError::InvalidReference`].
    pub(crate) fn parse(text: &str, default: &str) -> Result<Self, ImageError> {
        parse(text, default)
            .map_err(|why| ImageError::InvalidReference { reference: shorten(text.as_bytes()), why })
    }

    /// The registry as host, or host and port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag: the one given, or `latest` when there is no digest either.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(DEFAULT_TAG),
            (None, Some(_)) => None,
        }
    }

    /// The digest, which wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image pinned to the manifest of `digest`.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Registry and repository, without tag and digest: what prefixes are compared with.
    pub fn location(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether the registry is on this machine (127.0.0.0/8, ::1, localhost): there, plain HTTP is as good as TLS.
    pub fn is_loopback(&self) -> bool {
        is_on_this_machine(&self.registry)
    }

    /// What goes after `/manifests/`.
    pub(crate) fn manifest_name(&self) -> String {
        match (&self.digest, self.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(DEFAULT_TAG).to_owned(),
        }
    }

    /// The name that a pull gives the image unless told otherwise: the last component of the repository, then
    /// the tag, as a DNS label. `alpine:3.20` is `alpine-3-20`; `debian` and `debian:latest` are `debian`; a
    /// digest alone adds its first 12 digits; what would be too long is cut and keeps 8 digits of its hash, so
    /// that two long names stay two.
    pub fn default_name(&self) -> ImageName {
        let base = self.repository.rsplit('/').next().unwrap_or_default();
        let suffix = match (self.tag.as_deref(), &self.digest) {
            (Some(DEFAULT_TAG), None) | (None, None) => None,
            (Some(tag), _) => Some(tag),
            (None, Some(digest)) => Some(digest.short()),
        };
        let mut name = label(base);
        if let Some(suffix) = suffix.map(label).filter(|s| !s.is_empty()) {
            name = format!("{name}-{suffix}");
        }
        if name.len() > LONGEST_NAME {
            let hash = Digest::of(self.to_string().as_bytes());
            let kept = name[..LONGEST_NAME - 9].trim_end_matches('-');
            name = format!("{kept}-{}", &hash.hex()[..8]);
        }
        // A repository component always has a letter or digit, so this never falls back; a name is too small a
        // thing to panic for if that should change.
        name.parse().or_else(|_| "image".parse()).unwrap_or_else(|_| unreachable!("\"image\" is a DNS label"))
    }
}

/// `text` in the alphabet of a DNS label: runs of anything else become one `-`, none at the ends.
fn label(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text, DOCKER)
    }
}

fn parse(text: &str, default: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LONGEST {
        return Err("it is longer than 1024 bytes");
    }
    if text.contains("://") {
        return Err("leave the scheme out and write registry/repository:tag");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(
                digest
                    .parse()
                    .map_err(|_| "the digest is not sha256: and 64 lower-case hexadecimal digits")?,
            ),
        ),
        None => (text, None),
    };
    if is_id(text) {
        return Err("64 hexadecimal digits are an id, not a repository");
    }
    let (registry, rest) = split_registry(rest, default)?;
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(check_tag(tag)?.to_owned())),
        None => (rest, None),
    };
    let repository = match (registry.as_str(), repository.contains('/')) {
        (DOCKER, false) => {
            check_repository(repository)?;
            format!("{OFFICIAL}/{repository}")
        }
        _ => repository.to_owned(),
    };
    check_repository(&repository)?;
    Ok(Reference { registry, repository, tag, digest })
}

/// Takes the registry off the front. The first component is one when it has a dot, a colon or a bracket, or is
/// `localhost`.
fn split_registry<'a>(text: &'a str, default: &str) -> Result<(String, &'a str), &'static str> {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':', '[']) || first.eq_ignore_ascii_case("localhost") => {
            Ok((registry(first)?, rest))
        }
        _ => Ok((default.to_owned(), text)),
    }
}

/// A registry as host, or host and port, in the form in which it is compared.
pub(crate) fn registry(text: &str) -> Result<String, &'static str> {
    check_registry(text)?;
    let registry = text.to_ascii_lowercase();
    Ok(match registry.as_str() {
        "index.docker.io" | DOCKER_API => DOCKER.to_owned(),
        _ => registry,
    })
}

/// The host, or host and port, that answers for a registry.
pub(crate) fn api_host(registry: &str) -> &str {
    match registry {
        DOCKER => DOCKER_API,
        other => other,
    }
}

/// Whether this would be taken for an image id.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The host without its port.
fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    }
}

/// Whether a registry is on this machine.
pub(crate) fn is_on_this_machine(registry: &str) -> bool {
    is_loopback(host_of(registry))
}

/// Whether a host, an IPv6 address in brackets, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let host = host_of(registry);
    if let Some(port) = registry[host.len()..].strip_prefix(':') {
        let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || !matches!(port.parse::<u16>(), Ok(1..)) {
            return Err("the registry's port is not a number from 1 to 65535");
        }
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        return match address.parse() {
            Ok(IpAddr::V6(_)) => Ok(()),
            _ => Err("the registry in brackets is not an IPv6 address"),
        };
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    match host.len() <= 253 && host.split('.').all(label) {
        true => Ok(()),
        false => Err("the registry is not a host name"),
    }
}

pub(crate) fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.is_empty() {
        return Err("the repository is missing");
    }
    if repository.len() > LONGEST_REPOSITORY {
        return Err("the repository is longer than 255 bytes");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    match repository.split('/').all(is_component) {
        true => Ok(()),
        false => Err(
            "each part of the repository is a-z and 0-9, with single '.', '_', '__' or any number of '-' between",
        ),
    }
}

/// `[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    let separators = component.split(|c: char| c.is_ascii() && word(c as u8));
    ends && separators
        .filter(|s| !s.is_empty())
        .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<&str, &'static str> {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = |b: u8| first(b) || b == b'.' || b == b'-';
    if tag.len() > LONGEST_TAG {
        return Err("the tag is longer than 128 bytes");
    }
    match tag.bytes().next().is_some_and(first) && tag.bytes().all(good) {
        true => Ok(tag),
        false => Err("the tag is not letters, digits, '_', '.' and '-', starting with neither '.' nor '-'"),
    }
}

impl fmt::Display for Reference {
    /// The canonical form, with registry and tag spelled out: `docker.io/library/debian:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reference(text: &str) -> Reference {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn short_forms_are_spelled_out() {
        for (text, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("docker.io/library/debian:bookworm", "docker.io/library/debian:bookworm"),
            ("org/app", "docker.io/org/app:latest"),
            ("ghcr.io/some/org/my-image:v2.1", "ghcr.io/some/org/my-image:v2.1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[::1]/x", "[::1]/x:latest"),
            ("Registry.Example/x", "registry.example/x:latest"),
            ("LocalHost/x", "localhost/x:latest"),
            ("a__b/c---d/e.f_g:_T", "docker.io/a__b/c---d/e.f_g:_T"),
        ] {
            assert_eq!(reference(text).to_string(), canonical, "{text}");
            assert_eq!(reference(canonical).to_string(), canonical);
        }
        let pinned = reference(&format!("debian@{DIGEST}"));
        assert_eq!(pinned.to_string(), format!("docker.io/library/debian@{DIGEST}"));
        assert_eq!((pinned.tag(), pinned.manifest_name().as_str()), (None, DIGEST));
        let both = reference(&format!("localhost:1/a:b@{DIGEST}"));
        assert_eq!((both.tag(), both.manifest_name().as_str()), (Some("b"), DIGEST));
    }

    #[test]
    fn short_names_come_from_where_the_administrator_says() {
        for (text, canonical) in [
            ("debian", "registry.example:5000/debian:latest"),
            ("team/app:1", "registry.example:5000/team/app:1"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("localhost/app", "localhost/app:latest"),
        ] {
            let reference = Reference::parse(text, "registry.example:5000").unwrap();
            assert_eq!(reference.to_string(), canonical);
        }
    }

    #[test]
    fn what_is_not_a_reference_gets_a_reason() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_repository = "a".repeat(256);
        let long = "a".repeat(1025);
        let id = "a".repeat(64);
        let (bad_digest, upper) = (format!("a@{}", &DIGEST[..70]), DIGEST.to_uppercase());
        let upper = format!("a@{upper}");
        for (text, why) in [
            ("", "empty"),
            (":tag", "missing"),
            ("@sha256:", "digest"),
            ("a:", "tag"),
            ("a:-b", "tag"),
            ("a:b:c", "tag"),
            ("a:b/c", "port"),
            ("Debian", "lower case"),
            ("Org/app", "lower case"),
            ("a//b", "each part"),
            ("/a", "each part"),
            ("a/", "each part"),
            ("a..b", "each part"),
            ("a___b", "each part"),
            ("-a", "each part"),
            ("a b", "each part"),
            ("ä", "each part"),
            ("a/../b", "each part"),
            ("localhost:0/a", "port"),
            ("localhost:65536/a", "port"),
            ("localhost:+1/a", "port"),
            ("localhost:/a", "port"),
            ("[::1:5000/a", "IPv6"),
            ("[127.0.0.1]/a", "IPv6"),
            ("a_b.c/d", "host name"),
            ("-a.b/c", "host name"),
            ("a..b/c", "host name"),
            ("https://a.b/c", "scheme"),
            ("user:secret@host.example/a", "digest"),
            (&long_tag, "tag is longer"),
            (&long_repository, "repository is longer"),
            (&long, "1024"),
            (&id, "an id"),
            (&bad_digest, "digest"),
            (&upper, "digest"),
        ] {
            match text.parse::<Reference>() {
                Err(ImageError::InvalidReference { why: got, .. }) => {
                    assert!(got.contains(why), "{text:?}: {got}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn friendly_names() {
        for (text, name) in [
            ("alpine:3.20", "alpine-3-20"),
            ("docker.io/library/debian:bookworm", "debian-bookworm"),
            ("debian", "debian"),
            ("debian:latest", "debian"),
            ("ghcr.io/some/org/my-image:v2.1", "my-image-v2-1"),
            ("localhost:5000/a__b.c:_X_", "a-b-c-x"),
            ("a:__", "a"),
            (&format!("debian@{DIGEST}"), "debian-e3b0c44298fc"),
            (&format!("debian:12@{DIGEST}"), "debian-12"),
        ] {
            assert_eq!(reference(text).default_name().as_str(), name, "{text}");
        }
        let long = |end: &str| reference(&format!("{}{end}", "n".repeat(100))).default_name();
        assert_eq!(long("").as_str().len(), 63);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn loopback_is_told_by_address() {
        for yes in [
            "localhost/a",
            "localhost:5000/a",
            "127.0.0.1/a",
            "127.8.9.1:1/a",
            "[::1]:5000/a",
            "[::ffff:127.0.0.1]/a",
        ] {
            assert!(reference(yes).is_loopback(), "{yes}");
        }
        for no in
            ["a", "localhost.example/a", "128.0.0.1/a", "[::2]/a", "127.0.0.1.example/a", "127.1.example:5/a"]
        {
            assert!(!reference(no).is_loopback(), "{no}");
        }
    }

    #[test]
    fn the_default_registry_has_an_api_host_of_its_own() {
        assert_eq!(api_host(reference("debian").registry()), DOCKER_API);
        assert_eq!(api_host(reference("localhost:5000/debian").registry()), "localhost:5000");
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,80}|[a-zA-Z0-9:/@._\\[\\]-]{0,120})") {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn whatever_parses_is_canonical_and_has_a_name(
            registry in "(|localhost/|[a-z]{1,5}\\.io/|[a-z]{2}:[1-9][0-9]{0,3}/|\\[::1\\]:[1-9]{1,4}/)",
            repository in "[a-z0-9]{1,40}([_-][a-z0-9]{1,40}){0,2}(/[a-z0-9]{1,30}(\\.[a-z0-9]{1,30})?){0,2}",
            tag in "(|:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})",
            digest in "(|@sha256:[0-9a-f]{64})",
        ) {
            let text = format!("{registry}{repository}{tag}{digest}");
            if let Ok(reference) = text.parse::<Reference>() {
                let canonical = reference.to_string();
                prop_assert_eq!(&canonical.parse::<Reference>().unwrap().to_string(), &canonical);
                prop_assert!(reference.default_name().as_str().len() <= 63);
            } else {
                prop_assert!(repository.len() > 240 || repository.len() == 64, "{}", text);
            }
        }
    }
}
