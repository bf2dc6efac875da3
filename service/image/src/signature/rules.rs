//! A policy whose files have been read.

use super::{
    key::PublicKey,
    policy::{Identity, Required},
    trust::TrustRoot,
};
use crate::ImageError;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// The largest file of keys or of a trust root, in bytes.
const LARGEST: u64 = 1 << 20;

/// Whose signatures count.
#[derive(Debug)]
pub(crate) struct Rules {
    keys: Vec<(String, PublicKey)>,
    identities: Vec<Identity>,
    trust_root: Option<TrustRoot>,
}

impl Rules {
    /// Reads the files that a policy names, every time: they are small, and a key that is taken out counts no more.
    ///
    /// # Errors
    /// [`ImageError::Configuration`] with the file.
    pub fn read(required: &Required) -> Result<Self, ImageError> {
        let mut keys = Vec::new();
        for path in &required.keys {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let found = keys_in(&contents(path)?).map_err(|why| wrong(path, why))?;
            keys.extend(found.into_iter().map(|key| (name.clone(), key)));
        }
        let trust_root = match &required.trust_root {
            Some(path) => Some(TrustRoot::parse(&contents(path)?).map_err(|why| wrong(path, why))?),
            None => None,
        };
        Ok(Self { keys, identities: required.identities.clone(), trust_root })
    }

    /// The same with the trust root of this text.
    #[cfg(test)]
    pub(super) fn with_trust_root(self, text: &[u8]) -> Result<Self, String> {
        Ok(Self { trust_root: Some(TrustRoot::parse(text)?), ..self })
    }

    /// What keyless signatures are checked with.
    pub(super) fn trust_root(&self) -> Option<&TrustRoot> {
        self.trust_root.as_ref().filter(|_| !self.identities.is_empty())
    }

    /// Whether this subject, known to this issuer, may sign.
    pub(super) fn has_identity(&self, issuer: &str, subject: &str) -> bool {
        self.identities.iter().any(|identity| identity.issuer == issuer && identity.subject.fits(subject))
    }

    /// Which key signed `message`.
    pub fn key_of(&self, message: &[u8], signature: &[u8]) -> Option<String> {
        let (name, _) = self.keys.iter().find(|(_, key)| key.signed(message, signature))?;
        Some(format!("key {name}"))
    }
}

fn keys_in(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| format!("it is not PEM: {error}"))?;
        keys.push(PublicKey::new(der.to_vec())?);
    }
    match keys.is_empty() {
        true => Err("there is no PEM public key in it (\"-----BEGIN PUBLIC KEY-----\")".to_owned()),
        false => Ok(keys),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, ImageError> {
    let unreadable = |error: std::io::Error| wrong(path, format!("it cannot be read: {error}"));
    let mut body = Vec::new();
    File::open(path).map_err(unreadable)?.take(LARGEST + 1).read_to_end(&mut body).map_err(unreadable)?;
    match body.len() as u64 > LARGEST {
        true => Err(wrong(path, format!("it is larger than {LARGEST} bytes"))),
        false => Ok(body),
    }
}

fn wrong(path: &Path, why: String) -> ImageError {
    ImageError::Configuration { path: PathBuf::from(path), line: None, why }
}
