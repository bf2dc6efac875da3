//! Who signed an image: the policy of a registry prefix, and the check of it before anything is downloaded.
//!
//! `find` fetches what claims to be a signature, `verify` is pure and decides about one such claim. Any one good
//! signature suffices, of the index that the reference names or of the platform's manifest in it: the one names the
//! other by digest. docs/adr/0015-signatures.md says what is checked, and what is not.

mod bundle;
mod certificate;
mod der;
mod find;
mod key;
mod keyless;
mod log;
mod payload;
mod policy;
mod proof;
mod rules;
#[cfg(test)]
mod tests;
mod timestamp;
mod trust;

use crate::{Digest, Reference};
use bundle::Bundle;
pub(crate) use find::check;
use keyless::Keyless;
use log::Entry;
use payload::Payload;
pub use policy::{Identity, Required, SignaturePolicy, Subject};
pub(crate) use rules::Rules;
use std::{collections::BTreeMap, fmt};

/// The annotation of a layer that holds the signature of it (cosign, specs/SIGNATURE_SPEC.md).
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Those of the signer's certificate, of the certificates above it, and of the log's entry.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";

const NO_KEY: &str = "it is not made with a key that is trusted";
const NO_TIME: &str = "it has a certificate, and no log entry proves that it was made while that was valid";

/// A manifest or index that may be signed.
#[derive(Debug)]
pub(crate) struct Signable {
    /// Its sha256, by which signatures name it.
    pub digest: Digest,
    /// Its text.
    body: Vec<u8>,
}

impl Signable {
    /// The document with this text.
    pub fn new(body: Vec<u8>) -> Self {
        Self { digest: Digest::of(&body), body }
    }
}

/// What claims to be a signature.
#[derive(Debug, Clone)]
pub(crate) enum Claim {
    /// A layer of cosign's `.sig` image: a payload, and annotations that hold the rest.
    Payload { payload: Vec<u8>, annotations: BTreeMap<String, String> },
    /// A sigstore bundle, as its text.
    Bundle(Vec<u8>),
}

/// Why a claim is none, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub String);

/// A signature that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Whose it is: `key team.pub`, or `me@example.org by https://issuer.example`.
    by: String,
    /// The reference that was signed, where the signature says so.
    signed_as: Option<String>,
}

impl Verified {
    /// In words, for `image show`.
    pub fn text(&self) -> String {
        match &self.signed_as {
            Some(reference) => format!("{}, signed as {reference}", self.by),
            None => self.by.clone(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Refused {
    fn from(why: &str) -> Self {
        Refused(why.to_owned())
    }
}

/// Whether `claim` is a signature of `signed` that `rules` want, for the image that the user called `reference`.
pub(crate) fn verify(
    rules: &Rules,
    reference: &Reference,
    signed: &Signable,
    claim: &Claim,
) -> Result<Verified, Refused> {
    match claim {
        Claim::Payload { payload, annotations } => {
            let signature = annotations.get(SIGNATURE).ok_or("a payload without a signature")?;
            let signature = base64(signature).ok_or("a signature that is not base64")?;
            let signed_as = Payload::parse(payload)?.check(&signed.digest, reference)?;
            let by = match rules.key_of(payload, &signature) {
                Some(key) => key,
                None => with_certificate(rules, payload, &signature, annotations)?,
            };
            Ok(Verified { by, signed_as: Some(signed_as) })
        }
        Claim::Bundle(text) => {
            let bundle = Bundle::parse(text, signed)?;
            let by = match rules.key_of(&bundle.message, &bundle.signature) {
                Some(key) => key,
                None => of_bundle(rules, bundle)?,
            };
            Ok(Verified { by, signed_as: None })
        }
    }
}

/// Whose signature of `payload` this is, by the certificate in the annotations.
fn with_certificate(
    rules: &Rules,
    payload: &[u8],
    signature: &[u8],
    annotations: &BTreeMap<String, String>,
) -> Result<String, Refused> {
    let pem = annotations.get(CERTIFICATE).ok_or(NO_KEY)?;
    let certificate = &certificate::from_pem(pem.as_bytes())?[0];
    let chain = annotations.get(CHAIN).filter(|chain| !chain.trim_ascii().is_empty());
    let intermediates =
        chain.map_or_else(|| Ok(Vec::new()), |chain| certificate::from_pem(chain.as_bytes()))?;
    let entry = annotations.get(LOG_ENTRY).ok_or(NO_TIME)?;
    let entry = Entry::from_annotation(entry)?;
    let (intermediates, entry, kind) = (&intermediates[..], &entry, "hashedrekord");
    Keyless { message: payload, signature, certificate, intermediates, entry, logged: payload, kind }
        .check(rules)
}

/// Whose signature a bundle with a certificate holds.
fn of_bundle(rules: &Rules, bundle: Bundle) -> Result<String, Refused> {
    let Bundle { certificate, entries, message, logged, kind, signature } = bundle;
    let certificate = &certificate.ok_or(NO_KEY)?;
    let entry = &Entry::from_bundle(entries.into_iter().next().ok_or(NO_TIME)?)?;
    let (message, signature, logged) = (&message[..], &signature[..], &logged[..]);
    Keyless { message, signature, certificate, intermediates: &[], entry, logged, kind }.check(rules)
}

/// What standard base64 holds.
fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text.trim_ascii_end()).ok()
}
