//! `auth.json` (containers-auth.json(5)) and docker's `config.json`, which are one format.

use super::places::{normal, prefixes};
use crate::error::Error;
use banger_dbus::model::Credentials;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Such a file may be this long.
const LONGEST: u64 = 1 << 20;
/// How docker calls its own registry when it asks a helper.
const DOCKER: &str = "https://index.docker.io/v1/";

/// What banger reads of such a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
    registrytoken: String,
    username: String,
    password: String,
}

/// What a file has for an image.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The credentials.
    Credentials(Credentials),
    /// A program that may have them.
    Helper {
        /// What follows `docker-credential-` in its name.
        helper: String,
        /// What it is asked for.
        server: String,
        /// Whether it is asked for every registry, so that one that it cannot help with is no error.
        optional: bool,
    },
}

impl AuthFile {
    /// Reads a file; `None` when there is none, unless it `must` be there.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Usage`] for one that is not JSON of this form.
    pub fn read(path: &Path, must: bool) -> Result<Option<Self>, Error> {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must => return Ok(None),
            read => read.map_err(|e| Error::file("read", path, e))?,
        };
        if text.len() as u64 > LONGEST {
            return Err(Error::Usage(format!("{} is longer than 1 MiB", path.display())));
        }
        Self::parse(&text).map(Some).map_err(|why| {
            Error::Usage(format!(
                "{} cannot be read: {why}. Repair it, or say --anonymous to pull without credentials",
                path.display()
            ))
        })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Not the parser's own words, which quote what they do not like.
        serde_json::from_slice(text)
            .map_err(|e| format!("line {}, column {} is not what it should be", e.line(), e.column()))
    }

    /// What it has for a registry and repository, in the order in which it counts.
    pub fn find(&self, location: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for prefix in prefixes(location) {
            let helper = self.cred_helpers.iter().find(|(key, _)| normal(key) == prefix);
            found.extend(helper.map(|(key, helper)| Found::Helper {
                helper: helper.clone(),
                server: key.clone(),
                optional: false,
            }));
        }
        let registry = location.split('/').next().unwrap_or(location);
        if !self.creds_store.is_empty() {
            let server = if registry == "docker.io" { DOCKER } else { registry };
            found.push(Found::Helper {
                helper: self.creds_store.clone(),
                server: server.to_owned(),
                optional: true,
            });
        }
        for prefix in prefixes(location) {
            let entries = self.auths.iter().filter(|(key, _)| normal(key) == prefix);
            found.extend(entries.filter_map(|(_, entry)| entry.credentials()).map(Found::Credentials));
        }
        found
    }
}

impl Entry {
    /// What it holds. An entry without anything tells that a helper has it.
    fn credentials(&self) -> Option<Credentials> {
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity { identity_token: self.identitytoken.clone() });
        }
        if !self.registrytoken.is_empty() {
            return Some(Credentials::Registry { registry_token: self.registrytoken.clone() });
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Some(Credentials::Password { username, password });
        }
        let plain = String::from_utf8(BASE64_STANDARD.decode(&self.auth).ok()?).ok()?;
        // Some versions of docker end it with NULs.
        let (username, password) = plain.trim_end_matches('\0').split_once(':')?;
        Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn password(username: &str, password: &str) -> Found {
        Found::Credentials(Credentials::Password { username: username.into(), password: password.into() })
    }

    fn helper(helper: &str, server: &str, optional: bool) -> Found {
        Found::Helper { helper: helper.into(), server: server.into(), optional }
    }

    #[test]
    fn the_most_specific_entry_counts() {
        // What `podman login` writes, for a registry, a namespace and a repository.
        let file = AuthFile::parse(
            br#"{"auths":{
                "registry.example":{"auth":"YWxpY2U6cmVnaXN0cnk="},
                "registry.example/team":{"auth":"YWxpY2U6dGVhbQ=="},
                "registry.example/team/app":{"auth":"YWxpY2U6YXBw"},
                "other.example":{"auth":"Ym9iOng6eQ=="}
            }}"#,
        )
        .unwrap();
        let first = |location: &str| file.find(location).into_iter().next();
        assert_eq!(first("registry.example/team/app"), Some(password("alice", "app")));
        assert_eq!(first("registry.example/team/more"), Some(password("alice", "team")));
        assert_eq!(first("registry.example/teams"), Some(password("alice", "registry")));
        assert_eq!(first("registry.example:5000/team/app"), None);
        assert_eq!(first("other.example/x"), Some(password("bob", "x:y")));
    }

    #[test]
    fn what_docker_writes() {
        let file = AuthFile::parse(
            br#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWxpY2U6c2VzYW1l"},
                "https://ghcr.example/v2/":{"identitytoken":"refresh","auth":"PHRva2VuPjo="},
                "token.example":{"registrytoken":"bearer"}, "words.example":{"username":"a","password":"b"},
                "store.example":{}, "broken.example":{"auth":"%%%"}},
                "credHelpers":{"ecr.example":"ecr-login"},
                "HttpHeaders":{"User-Agent":"Docker-Client"},"currentContext":"default"}"#,
        )
        .unwrap();
        assert_eq!(file.find("docker.io/library/debian"), [password("alice", "sesame")]);
        let identity = Credentials::Identity { identity_token: "refresh".into() };
        assert_eq!(file.find("ghcr.example/x"), [Found::Credentials(identity)]);
        let token = Credentials::Registry { registry_token: "bearer".into() };
        assert_eq!(file.find("token.example/x"), [Found::Credentials(token)]);
        assert_eq!(file.find("words.example/x"), [password("a", "b")]);
        assert_eq!(file.find("ecr.example/x"), [helper("ecr-login", "ecr.example", false)]);
        assert_eq!((file.find("store.example/x"), file.find("broken.example/x")), (vec![], vec![]));
    }

    #[test]
    fn a_store_is_asked_for_every_registry() {
        let file = AuthFile::parse(
            br#"{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"desktop","credHelpers":{"docker.io":"mine"}}"#,
        )
        .unwrap();
        assert_eq!(file.find("r.example:5/x"), [helper("desktop", "r.example:5", true)]);
        assert_eq!(
            file.find("docker.io/library/x"),
            [helper("mine", "docker.io", false), helper("desktop", DOCKER, true)]
        );
    }

    #[test]
    fn a_damaged_file_is_told_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        assert!(AuthFile::read(&path, false).unwrap().is_none());
        assert!(matches!(AuthFile::read(&path, true), Err(Error::File { .. })));
        std::fs::write(&path, "{\n \"auths\": {\"x\": {\"auth\": [\"sesame\"]}}}").unwrap();
        let error = AuthFile::read(&path, false).err().unwrap().to_string();
        assert!(error.contains("auth.json") && error.contains("line 2"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
        std::fs::write(&path, "\n").unwrap();
        assert!(AuthFile::read(&path, false).unwrap().unwrap().find("x/y").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,60}|\\{\"auths\":\\{\"[a-z./]{0,9}\":\\{\"auth\":\"[A-Za-z0-9=]{0,12}\"\\}\\}\\})", location in "[a-z./]{0,20}") {
            if let Ok(file) = AuthFile::parse(text.as_bytes()) {
                let _ = file.find(&location);
            }
        }
    }
}
