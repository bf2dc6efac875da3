//! Entries of the public log of signatures, Rekor: when a signature was there, as the log promised with its own signature.
//!
//! That promise, the signed entry timestamp, is all that proves the time. A proof of inclusion says nothing about it, and has
//! to be right where there is one. docs/adr/0015-signatures.md.

use super::{Refused, base64, certificate::from_pem, proof::Proof, trust::TrustRoot};
use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// An entry, and the log's promise.
#[derive(Debug)]
pub(super) struct Entry {
    /// The log's text, as base64.
    pub body: String,
    /// When it was there, in seconds since 1970.
    pub time: u64,
    /// The hash of the log's key.
    pub log: Vec<u8>,
    pub index: u64,
    /// The log's signature of all of these.
    pub promise: Vec<u8>,
    /// That the log holds it; not everybody stores that.
    pub proof: Option<Proof>,
}

/// What an entry has to be about.
pub(super) struct Subject<'a> {
    /// What was signed, or the payload of an envelope.
    pub message: &'a [u8],
    /// The signature's bytes.
    pub signature: &'a [u8],
    /// The signer's certificate as DER.
    pub certificate: &'a [u8],
    /// `hashedrekord`, or `dsse` for an envelope.
    pub kind: &'a str,
}

/// cosign's annotation `dev.sigstore.cosign/bundle`.
#[derive(Deserialize)]
struct Annotation {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: String,
    #[serde(rename = "Payload")]
    payload: AnnotatedEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnnotatedEntry {
    body: String,
    integrated_time: u64,
    log_index: u64,
    #[serde(rename = "logID")]
    log: String,
}

/// An entry of a sigstore bundle (sigstore/protobuf-specs, sigstore_rekor.proto, as JSON).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(deserialize_with = "number")]
    log_index: u64,
    log_id: WrittenId,
    #[serde(default, deserialize_with = "number")]
    integrated_time: u64,
    inclusion_promise: Option<WrittenPromise>,
    inclusion_proof: Option<Proof>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPromise {
    signed_entry_timestamp: String,
}

/// JSON's numbers of 64 bits are texts in protobuf's mapping.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

#[derive(Deserialize)]
struct Body {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    data: Option<Data>,
    signature: Option<Content>,
    payload_hash: Option<Hash>,
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    content: String,
    public_key: Verifier,
}

#[derive(Deserialize)]
struct Verifier {
    content: String,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    signature: String,
    verifier: String,
}

impl Entry {
    /// Reads cosign's annotation.
    pub fn from_annotation(text: &str) -> Result<Self, Refused> {
        let wrong = "its log entry cannot be read";
        let Annotation { promise, payload } = serde_json::from_str(text).map_err(|_| wrong)?;
        Ok(Self {
            body: payload.body,
            time: payload.integrated_time,
            log: unhex(&payload.log).ok_or(wrong)?,
            index: payload.log_index,
            promise: base64(&promise).ok_or(wrong)?,
            proof: None,
        })
    }

    /// Reads the entry of a bundle.
    pub fn from_bundle(written: Written) -> Result<Self, Refused> {
        let promise = written
            .inclusion_promise
            .ok_or("its log entry has no signed time (signedEntryTimestamp), and others are not supported")?;
        let wrong = "its log entry cannot be read";
        Ok(Self {
            body: written.canonicalized_body,
            time: written.integrated_time,
            log: base64(&written.log_id.key_id).ok_or(wrong)?,
            index: written.log_index,
            promise: base64(&promise.signed_entry_timestamp).ok_or(wrong)?,
            proof: written.inclusion_proof,
        })
    }

    /// When `subject` was in the log, in seconds since 1970: what a log of `trust` signed.
    pub fn time_of(&self, subject: &Subject<'_>, trust: &TrustRoot) -> Result<u64, Refused> {
        let body = base64(&self.body).ok_or("its log entry is not base64")?;
        // The canonical form of JSON (RFC 8785); base64 has nothing to escape.
        let log: String = self.log.iter().map(|byte| format!("{byte:02x}")).collect();
        let promised = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{log}","logIndex":{}}}"#,
            self.body, self.time, self.index
        );
        let key = trust.signature_log(&self.log, self.time);
        let key =
            key.ok_or("its log entry is of a log that the trust root does not know, or not for that time")?;
        if !key.signed(promised.as_bytes(), &self.promise) {
            return Err("its log entry is not signed by the log".into());
        }
        if self.proof.as_ref().is_some_and(|proof| proof.holds(&body, key, &self.log) != Some(true)) {
            return Err("the proof that the log holds its entry is wrong".into());
        }
        match is_about(&body, subject) {
            Some(true) => Ok(self.time),
            _ => Err("its log entry is about another signature".into()),
        }
    }
}

/// Whether an entry is about this signature; nothing when it is of another kind or damaged.
fn is_about(body: &[u8], subject: &Subject<'_>) -> Option<bool> {
    let Body { kind, spec } = serde_json::from_slice(body).ok()?;
    if kind != subject.kind {
        return None;
    }
    let same = |hash: &Hash, signature: &str, verifier: &str| {
        let certificate = from_pem(&base64(verifier)?).ok()?;
        Some(
            hash_with(&hash.algorithm, subject.message)? == unhex(&hash.value)?
                && base64(signature)? == subject.signature
                && certificate.first()?.as_ref() == subject.certificate,
        )
    };
    match kind.as_str() {
        "hashedrekord" => {
            let signature = spec.signature?;
            same(&spec.data?.hash, &signature.content, &signature.public_key.content)
        }
        "dsse" => {
            let hash = spec.payload_hash?;
            let [one] = spec.signatures.as_slice() else { return None };
            same(&hash, &one.signature, &one.verifier)
        }
        _ => None,
    }
}

fn hash_with(algorithm: &str, message: &[u8]) -> Option<Vec<u8>> {
    match algorithm {
        "sha256" => Some(Sha256::digest(message).to_vec()),
        "sha384" => Some(Sha384::digest(message).to_vec()),
        "sha512" => Some(Sha512::digest(message).to_vec()),
        _ => None,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit)).then_some(())?;
    digits.chunks(2).map(pair).collect()
}
