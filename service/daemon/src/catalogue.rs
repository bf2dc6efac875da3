//! The catalogue as the service sees it: read anew for every question, so that a file counts as soon as it is there.

use crate::{error::Error, service::Service};
use banger_dbus::{CatalogueInfo, Dict, Error as Bus};
use banger_image::{Catalogue, CatalogueEntry, EntryKind, Platform, Problem};
use banger_model::{Bytes, ImageName};
use std::sync::{Mutex, PoisonError};

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// In the catalogue, then in the registry.
    Auto,
    /// In the catalogue alone.
    Catalogue,
    /// In the registry alone.
    Registry,
}

impl Sources {
    /// Reads the option `source`.
    ///
    /// # Errors
    /// [`Error::Spec`] for another word.
    pub fn parse(word: Option<&str>) -> Result<Self, Error> {
        match word {
            None | Some("auto") => Ok(Sources::Auto),
            Some("catalogue") => Ok(Sources::Catalogue),
            Some("registry") => Ok(Sources::Registry),
            Some(_) => {
                Err(Error::Spec("source is neither \"auto\" nor \"catalogue\" nor \"registry\"".into()))
            }
        }
    }
}

/// What can be pulled by a plain name now.
pub fn read(service: &Service) -> Catalogue {
    let catalogue = Catalogue::read(&[&service.config.catalogue, &service.config.kernel_catalogue]);
    // Said once for each new problem, however often it is looked at.
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let problems: Vec<String> = catalogue.problems().iter().map(ToString::to_string).collect();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for problem in problems.iter().filter(|problem| !said.contains(problem)) {
        tracing::warn!("a catalogue does not count: {problem}");
    }
    *said = problems;
    catalogue
}

/// What is told of it: every entry, then the files that do not count.
pub fn describe(catalogue: &Catalogue) -> Vec<Dict> {
    let entry = |entry: &CatalogueEntry| CatalogueInfo {
        kind: entry.kind.to_string(),
        name: entry.name.clone(),
        description: entry.description.clone(),
        architecture: entry.architecture.clone(),
        url: entry.artifact.url.to_string(),
        digest: entry.artifact.digest.to_string(),
        size: entry.artifact.size,
        kernel: entry.kernel.clone(),
        release: entry.release.clone(),
    };
    let problem = |problem: &Problem| CatalogueInfo {
        kind: "problem".into(),
        name: problem.path.display().to_string(),
        description: problem.why.clone(),
        architecture: String::new(),
        url: String::new(),
        digest: String::new(),
        size: Bytes(0),
        kernel: String::new(),
        release: String::new(),
    };
    let entries = catalogue.entries().map(entry);
    entries.chain(catalogue.problems().iter().map(problem)).map(CatalogueInfo::into_dict).collect()
}

/// The image that a plain name means in the catalogue; none where the registry is to be asked.
///
/// # Errors
/// [`Bus::NotFound`] when it is to be in the catalogue and is not there for this platform.
pub fn image(
    service: &Service,
    name: &str,
    platform: &Platform,
    sources: Sources,
) -> Result<Option<CatalogueEntry>, Error> {
    // A reference with a tag, a path or a host is none of the catalogue's.
    if sources == Sources::Registry || sources == Sources::Auto && name.parse::<ImageName>().is_err() {
        return Ok(None);
    }
    match find(&read(service), EntryKind::Image, name, platform) {
        Err(_) if sources == Sources::Auto => Ok(None),
        found => found.map(Some),
    }
}

/// The kernel of this name in the catalogue, for this host.
///
/// # Errors
/// [`Bus::NotFound`].
pub fn kernel(service: &Service, name: &str) -> Result<CatalogueEntry, Error> {
    find(&read(service), EntryKind::Kernel, name, &Platform::host())
}

fn find(
    catalogue: &Catalogue,
    kind: EntryKind,
    name: &str,
    platform: &Platform,
) -> Result<CatalogueEntry, Error> {
    if let Some(entry) = catalogue.find(kind, name, platform) {
        return Ok(entry.clone());
    }
    let name: String = name.chars().take(256).collect();
    let others = match catalogue.architectures(kind, &name).as_slice() {
        [] => String::new(),
        some => format!(" for {platform}, only for {}", some.join(", ")),
    };
    // A file that does not count may be the one that was meant.
    let problems = match catalogue.problems() {
        [] => String::new(),
        some => {
            let some: Vec<String> = some.iter().map(ToString::to_string).collect();
            format!("; files that do not count: {}", some.join("; "))
        }
    };
    let text = format!(
        "the catalogue has no {kind} {name:?}{others}: `banger {kind} catalogue` shows what there is{problems}"
    );
    Err(Bus::NotFound(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;

    #[tokio::test]
    async fn plain_names_alone_are_looked_up() {
        let bench = bench().await;
        let service = &bench.service;
        std::fs::create_dir_all(&service.config.catalogue).unwrap();
        let entry = serde_json::json!({
            "kind": "image", "name": "base", "architecture": Platform::host().architecture,
            "url": "https://files.example/x", "sha256": "ab".repeat(32), "size": 1,
        });
        let text = serde_json::json!({"format": 1, "entries": [entry]}).to_string();
        std::fs::write(service.config.catalogue.join("a.json"), text).unwrap();
        std::fs::write(service.config.catalogue.join("b.json"), "{").unwrap();
        let host = Platform::host();
        let look = |name: &str, sources| image(service, name, &host, sources).map(|found| found.is_some());
        assert!(look("base", Sources::Auto).unwrap() && look("base", Sources::Catalogue).unwrap());
        assert!(!look("base", Sources::Registry).unwrap());
        for name in ["base:latest", "library/base", "other", "Base"] {
            assert!(!look(name, Sources::Auto).unwrap(), "{name}");
            let error = look(name, Sources::Catalogue).unwrap_err().to_string();
            assert!(error.contains("image catalogue") && error.contains("b.json"), "{error}");
        }
        let other = "linux/s390x".parse().unwrap();
        let error = image(service, "base", &other, Sources::Catalogue).unwrap_err().to_string();
        assert!(error.contains("only for"), "{error}");
        assert!(kernel(service, "base").is_err());
        let told = describe(&read(service));
        assert_eq!(told.len(), 2);
        assert!(Sources::parse(Some("disk")).is_err());
    }
}
