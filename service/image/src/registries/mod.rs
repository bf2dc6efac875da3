//! What the administrator says about registries: `/etc/banger/registries.d/*.toml`.
//!
//! The files are read in the order of their names. Of several entries that fit a reference the one with the longest
//! prefix counts, as a whole; of two with the same prefix the later one. docs/registries.md shows a file.

mod entry;
mod folder;

use crate::{
    ImageError, Reference, SignaturePolicy,
    reference::{DOCKER, is_on_this_machine},
    signature::Rules,
};
pub use entry::Registry;
use entry::{EVERY, File};
pub use folder::RegistriesFolder;
use folder::Stamp;
use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
};

/// The folder of certificates, as `<host[:port]>/*.crt`, beside that of the registries.
const CERTIFICATES: &str = "certs.d";

/// Everything that is said about registries.
#[derive(Debug, Clone, PartialEq)]
pub struct Registries {
    short_names: String,
    /// The longest prefix first.
    entries: Vec<Registry>,
    certificates: Option<PathBuf>,
}

/// How to reach one host: what HTTP clients differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Connection {
    /// Whether plain HTTP is allowed.
    pub insecure: bool,
    /// Files of certificates that count beside the host's.
    pub certificates: Vec<Stamp>,
    /// The proxy to use, instead of the one that the environment names.
    pub proxy: Option<String>,
}

impl Default for Registries {
    fn default() -> Self {
        Self { short_names: DOCKER.to_owned(), entries: Vec::new(), certificates: None }
    }
}

impl Registries {
    /// Reads the files of a folder, each with its text.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] with file and line.
    fn read(
        files: impl IntoIterator<Item = (PathBuf, String)>,
        certificates: PathBuf,
    ) -> Result<Self, ImageError> {
        let mut all = Self { certificates: Some(certificates), ..Self::default() };
        for (path, text) in files {
            let File { short_name_default, registry } = File::parse(&path, &text)?;
            if let Some(registry) = short_name_default {
                all.short_names = registry;
            }
            for entry in registry {
                all.entries.retain(|earlier| earlier.prefix != entry.prefix);
                all.entries.push(entry);
            }
        }
        all.entries.sort_by_key(|entry| (entry.prefix == EVERY, Reverse(entry.prefix.len())));
        Ok(all)
    }

    /// Reads a reference, with the registry of short names where it names none.
    ///
    /// # Errors
    /// [`ImageError::InvalidReference`].
    pub fn reference(&self, text: &str) -> Result<Reference, ImageError> {
        Reference::parse(text, &self.short_names)
    }

    /// What is said about a reference.
    pub fn of(&self, reference: &Reference) -> Option<&Registry> {
        self.find(&reference.location())
    }

    /// Whose signatures a reference needs, with the keys read: what the entry with the longest prefix says that says
    /// something of signatures. An entry that is about mirrors alone takes no requirement away.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] when they cannot be read.
    pub(crate) fn signatures(&self, reference: &Reference) -> Result<Option<Rules>, ImageError> {
        match self.all(&reference.location()).find_map(|entry| entry.signatures.as_ref()) {
            Some(SignaturePolicy::Require(required)) => Rules::read(required).map(Some),
            Some(SignaturePolicy::Accept) | None => Ok(None),
        }
    }

    /// The entry with the longest prefix of `location`, a registry with or without a repository.
    fn find(&self, location: &str) -> Option<&Registry> {
        self.all(location).next()
    }

    /// The entries with a prefix of `location`, the longest first.
    fn all(&self, location: &str) -> impl Iterator<Item = &Registry> {
        self.entries.iter().filter(move |entry| entry.fits(location))
    }

    /// The mirrors of a reference, in order: registry and repository of each.
    pub(crate) fn mirrors(&self, reference: &Reference) -> Vec<(String, String)> {
        let location = reference.location();
        let Some(entry) = self.find(&location).filter(|entry| !entry.mirrors.is_empty()) else {
            return Vec::new();
        };
        let rest = &location[entry.prefix.len()..];
        let full = entry.mirrors.iter().map(|mirror| format!("{mirror}{rest}"));
        full.filter_map(|full| full.split_once('/').map(|(host, path)| (host.to_owned(), path.to_owned())))
            .collect()
    }

    /// How to reach the host of a location, which for a mirror is said under its own prefix.
    pub(crate) fn connection(&self, registry: &str, repository: &str) -> Connection {
        let entry = self.find(&format!("{registry}/{repository}"));
        let own = entry.and_then(|entry| entry.ca.clone());
        let folder = self.certificates.as_ref().map(|folder| folder.join(registry));
        // What cannot be read is not trusted, and the connection fails for it.
        let found = folder.and_then(|folder| folder::files(&folder, "crt").ok()).unwrap_or_default();
        Connection {
            insecure: entry.is_some_and(|entry| entry.insecure),
            certificates: own.into_iter().chain(found).map(Stamp::of).collect(),
            proxy: entry.and_then(|entry| entry.proxy.clone()),
        }
    }
}

impl Connection {
    /// Whether plain HTTP is tried before TLS: on this machine, unless there are certificates to check it with.
    pub(crate) fn prefers_plain(&self, registry: &str) -> bool {
        is_on_this_machine(registry) && self.certificates.is_empty()
    }

    /// Whether plain HTTP is ever used.
    pub(crate) fn allows_plain(&self, registry: &str) -> bool {
        self.insecure || self.prefers_plain(registry)
    }
}

/// The folder of certificates that belongs to a folder of registries.
fn certificates_beside(registries: &Path) -> PathBuf {
    registries.with_file_name(CERTIFICATES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(files: &[&str]) -> Registries {
        let named = files
            .iter()
            .enumerate()
            .map(|(n, text)| (PathBuf::from(format!("{n}.toml")), (*text).to_owned()));
        Registries::read(named, "/none".into()).unwrap()
    }

    #[test]
    fn the_longest_prefix_counts_and_ends_between_components() {
        let registries = registries(&[
            "[[registry]]\nprefix = 'registry.example'\ninsecure = true\n\
             [[registry]]\nprefix = 'registry.example/team'\nmirrors = ['one.example/proxy', 'two.example']\n",
            "short-name-default = 'quay.example'\n[[registry]]\nprefix = 'docker.io/library'\nmirrors = ['m.example/hub']\n",
        ]);
        let mirrors = |text: &str| registries.mirrors(&registries.reference(text).unwrap());
        let pair = |host: &str, path: &str| (host.to_owned(), path.to_owned());
        assert_eq!(
            mirrors("registry.example/team/app:1"),
            [pair("one.example", "proxy/app"), pair("two.example", "app")]
        );
        assert_eq!(mirrors("registry.example/teams/app"), []);
        assert!(registries.connection("registry.example", "teams/app").insecure);
        assert!(
            !registries.connection("registry.example", "team/app").insecure,
            "an entry counts as a whole"
        );
        assert!(!registries.connection("registry.example:5000", "app").insecure);
        assert_eq!(mirrors("index.docker.io/debian"), [pair("m.example", "hub/debian")]);
        assert_eq!(registries.reference("debian").unwrap().to_string(), "quay.example/debian:latest");
    }

    #[test]
    fn an_entry_about_mirrors_takes_no_required_signature_away() {
        let registries = registries(&[
            "[[registry]]\nprefix = 'r.example'\n[registry.signatures]\npolicy = 'require'\nkeys = ['/none/key.pub']\n\
             [[registry]]\nprefix = 'r.example/team'\nmirrors = ['m.example']\n\
             [[registry]]\nprefix = 'r.example/free'\n[registry.signatures]\npolicy = 'accept'\n",
        ]);
        let asked = |text: &str| registries.signatures(&registries.reference(text).unwrap());
        // The key is not there, which shows that it is wanted.
        assert!(asked("r.example/app").is_err());
        assert!(asked("r.example/team/app").is_err());
        assert!(asked("r.example/free/app").unwrap().is_none());
        assert!(asked("other.example/app").unwrap().is_none());
    }

    #[test]
    fn signatures_can_be_required_of_every_registry() {
        let registries = registries(&[
            "[[registry]]\nprefix = '*'\n[registry.signatures]\npolicy = 'require'\nkeys = ['/none/key.pub']\n\
             [[registry]]\nprefix = 'r.example'\nmirrors = ['m.example']\n\
             [[registry]]\nprefix = 'f.example'\n[registry.signatures]\npolicy = 'accept'\n",
        ]);
        let asked = |text: &str| registries.signatures(&registries.reference(text).unwrap());
        assert!(asked("f.example/app").unwrap().is_none());
        assert!(asked("debian").is_err() && asked("other.example:5000/app").is_err());
        assert!(asked("r.example/app").is_err());
        assert!(registries.mirrors(&registries.reference("other.example/app").unwrap()).is_empty());
        assert!(!registries.connection("other.example", "app").insecure);
    }

    #[test]
    fn a_later_file_replaces_an_entry() {
        let registries = registries(&[
            "short-name-default = 'a.example'\n[[registry]]\nprefix = 'r.example'\nmirrors = ['one.example']\n",
            "short-name-default = 'b.example'\n[[registry]]\nprefix = 'R.example'\ninsecure = true\n",
        ]);
        let reference = registries.reference("r.example/app").unwrap();
        assert!(registries.mirrors(&reference).is_empty() && registries.of(&reference).unwrap().insecure);
        assert_eq!(registries.reference("x").unwrap().registry(), "b.example");
    }

    #[test]
    fn plain_http_is_for_this_machine_and_where_it_is_allowed() {
        let plain = Connection::default();
        assert!(plain.prefers_plain("127.0.0.1:5000") && plain.allows_plain("[::1]:5000"));
        assert!(!plain.prefers_plain("registry.example") && !plain.allows_plain("registry.example"));
        let insecure = Connection { insecure: true, ..Connection::default() };
        assert!(!insecure.prefers_plain("registry.example") && insecure.allows_plain("registry.example"));
        let checked = Connection { certificates: vec![Stamp::of("/ca.pem".into())], ..Connection::default() };
        assert!(!checked.allows_plain("127.0.0.1:5000"), "there is a certificate to check it with");
    }
}
