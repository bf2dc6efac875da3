//! One file of `registries.d`: its keys, and what their values must be.

use crate::{
    ImageError, SignaturePolicy,
    reference::{check_repository, registry},
};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The prefix of every reference.
pub(super) const EVERY: &str = "*";

/// A file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct File {
    pub short_name_default: Option<String>,
    pub registry: Vec<Registry>,
}

/// What is said about the references that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// `host[:port][/path]`; fits whole components. `"*"` fits all, and is for signatures alone.
    pub prefix: String,
    /// `host[:port][/path]` each: asked first, in order, with the rest of the repository behind it.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Whether plain HTTP is allowed.
    #[serde(default)]
    pub insecure: bool,
    /// A file of PEM certificates that count beside the host's.
    pub ca: Option<PathBuf>,
    /// The URL of an HTTP proxy, instead of the environment's.
    pub proxy: Option<String>,
    /// Whose signatures its images need.
    pub signatures: Option<SignaturePolicy>,
}

impl File {
    /// Reads and checks one.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] with the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ImageError> {
        let wrong =
            |line: Option<usize>, why: String| ImageError::Configuration { path: path.into(), line, why };
        let mut file: File = toml::from_str(text).map_err(|error| {
            // Not the error's own text, which quotes the line: a proxy's password may stand in it.
            let line = error.span().map(|span| line_of(text, span.start));
            wrong(line, error.message().to_owned())
        })?;
        // The parser gives no place for values that are only read: the line that holds the text is the best guess.
        let at = |value: &str| text.lines().position(|line| line.contains(value)).map(|n| n + 1);
        if let Some(default) = &mut file.short_name_default {
            *default = registry(default)
                .map_err(|why| wrong(at(default), format!("short-name-default {default:?}: {why}")))?;
        }
        for entry in &mut file.registry {
            let check = |value: &str, what: &str| {
                location(value).map_err(|why| wrong(at(value), format!("{what} {value:?}: {why}")))
            };
            if entry.prefix == EVERY {
                if entry.says_how_to_connect() {
                    let why = "prefix \"*\" is for signatures: say the rest for each registry";
                    return Err(wrong(at("\"*\"").or_else(|| at("'*'")), why.into()));
                }
                continue;
            }
            entry.prefix = check(&entry.prefix, "prefix")?;
            for mirror in &mut entry.mirrors {
                *mirror = check(mirror, "mirror")?;
            }
            if let Some(ca) = entry.ca.as_ref().filter(|ca| !ca.is_absolute()) {
                let shown = ca.display().to_string();
                return Err(wrong(at(&shown), format!("ca {shown:?} is not an absolute path")));
            }
            if let Some(proxy) = entry.proxy.as_ref().filter(|proxy| !is_proxy(proxy)) {
                return Err(wrong(at(proxy), "proxy is not an http:// or https:// URL with a host".into()));
            }
        }
        Ok(file)
    }
}

impl Registry {
    /// Whether its images are at `location`, a registry with or without a repository.
    pub(super) fn fits(&self, location: &str) -> bool {
        let rest = location.strip_prefix(self.prefix.as_str());
        self.prefix == EVERY || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn says_how_to_connect(&self) -> bool {
        !self.mirrors.is_empty() || self.insecure || self.ca.is_some() || self.proxy.is_some()
    }
}

/// `host[:port][/path]` in the form in which it is compared.
fn location(text: &str) -> Result<String, &'static str> {
    if text.contains("://") {
        return Err("leave the scheme out");
    }
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let host = registry(host)?;
    match path {
        None => Ok(host),
        Some(path) => {
            check_repository(path)?;
            Ok(format!("{host}/{path}"))
        }
    }
}

fn is_proxy(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The number of the line at a byte.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<File, ImageError> {
        File::parse(Path::new("/etc/banger/registries.d/10-x.toml"), text)
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(
            r#"short-name-default = "Quay.example"
            [[registry]]
            prefix = "registry.example/team"
            mirrors = ["Mirror.example:5000/proxy"]
            insecure = true
            ca = "/etc/banger/certs/example.pem"
            proxy = "http://user:word@proxy.example:3128"
            [registry.signatures]
            policy = "require"
            keys = ["/etc/banger/keys/team.pub"]
            "#,
        )
        .unwrap();
        assert_eq!(file.short_name_default.as_deref(), Some("quay.example"));
        let entry = &file.registry[0];
        assert_eq!((entry.prefix.as_str(), entry.insecure), ("registry.example/team", true));
        assert_eq!(entry.mirrors, ["mirror.example:5000/proxy"]);
        assert_eq!(entry.ca.as_deref(), Some(Path::new("/etc/banger/certs/example.pem")));
        assert_eq!(entry.proxy.as_deref(), Some("http://user:word@proxy.example:3128"));
        assert!(
            matches!(&entry.signatures, Some(SignaturePolicy::Require(required)) if required.keys.len() == 1)
        );
        assert_eq!(parse("").unwrap().short_name_default, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        for (text, line, why) in [
            ("color = 1", 1, "unknown field `color`"),
            ("[[registry]]\nprefix = 'a.b'\nmirror = ['c.d']", 3, "unknown field `mirror`"),
            ("[[registry]]\ninsecure = true", 1, "missing field `prefix`"),
            ("[[registry]]\nprefix = 'a.b'\ninsecure = 'yes'", 3, "expected a boolean"),
            ("[[registry]]\nprefix = 'https://a.b'", 2, "scheme"),
            ("[[registry]]\nprefix = 'a.b/Team'", 2, "lower case"),
            ("[[registry]]\nprefix = 'a.b'\nmirrors = ['c.d', 'e..f']", 3, "host name"),
            ("[[registry]]\nprefix = 'a.b'\nca = 'ca.pem'", 3, "absolute"),
            ("[[registry]]\nprefix = 'a.b'\nproxy = 'socks5://sesame@x:1'", 3, "http://"),
            (
                "[[registry]]\nprefix = 'a.b'\n[registry.signatures]\npolicy = 'require'",
                3,
                "refuse every image",
            ),
            ("[[registry]]\nprefix = '*'\ninsecure = true", 2, "for signatures"),
            ("\nshort-name-default = 'a.b/c'", 2, "host name"),
            ("[[registry]\n", 1, ""),
        ] {
            let error = parse(text).unwrap_err();
            let shown = error.to_string();
            assert!(
                matches!(error, ImageError::Configuration { line: Some(at), .. } if at == line),
                "{shown}"
            );
            let place = format!("/etc/banger/registries.d/10-x.toml, line {line}: ");
            assert!(shown.contains(&place) && shown.contains(why), "{why}: {shown}");
            assert!(!shown.contains("sesame"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,60}|(\\[\\[registry\\]\\]\n|prefix = '[a-z./:]{0,9}'\n|proxy = '[a-z./:@]{0,9}'\n|\\PC{0,9}\n){0,5})") {
            let _ = parse(&text);
        }
    }
}
