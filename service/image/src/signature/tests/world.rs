//! A sigstore instance for tests: an authority, a log of certificates, a log of signatures, and who signs there.

use crate::signature::{CERTIFICATE, Claim, LOG_ENTRY, Rules, SIGNATURE, Signable, der, timestamp};
use crate::{Identity, Required, Subject};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SigningKey, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

pub const REFERENCE: &str = "r.example/team/app:1";
pub const ISSUER: &str = "https://accounts.example";
pub const SUBJECT: &str = "me@example.org";
/// 2024-05-01, noon: the certificates of signers are valid on that day.
pub const TIME: u64 = 1_714_564_800;

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub struct Sigstore {
    authority: Issuer<'static, KeyPair>,
    root: Vec<u8>,
    pub log: KeyPair,
    pub certificates: KeyPair,
}

/// A signer's key and certificate.
pub struct Person {
    key: KeyPair,
    pub der: Vec<u8>,
}

/// What differs from a good signer's certificate.
#[derive(Clone)]
pub struct Wanted {
    pub subject: Option<SanType>,
    pub issuer: &'static str,
    pub purpose: ExtendedKeyUsagePurpose,
    pub in_log: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        let subject = Some(SanType::Rfc822Name(SUBJECT.try_into().unwrap()));
        Self { subject, issuer: ISSUER, purpose: ExtendedKeyUsagePurpose::CodeSigning, in_log: true }
    }
}

impl Sigstore {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2034, 1, 1));
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let authority = Issuer::new(params, key);
        let (log, certificates) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        Self { authority, root, log, certificates }
    }

    pub fn trust_root(&self) -> Value {
        let valid = json!({"start": "2024-01-01T00:00:00.000Z", "end": "2025-01-01T00:00:00Z"});
        let log = |key: &KeyPair| {
            let key = b64(key.subject_public_key_info());
            json!([{"baseUrl": "https://log.example", "publicKey": {"rawBytes": key, "validFor": valid}}])
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": log(&self.log),
            "ctlogs": log(&self.certificates),
            "certificateAuthorities": [
                {"certChain": {"certificates": [{"rawBytes": b64(&self.root)}]}, "validFor": valid},
            ],
        })
    }

    /// Rules that trust [`SUBJECT`] by [`ISSUER`] here.
    pub fn rules(&self) -> Rules {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trusted_root.json");
        std::fs::write(&path, self.trust_root().to_string()).unwrap();
        let identity = Identity { issuer: ISSUER.into(), subject: Subject::Is(SUBJECT.into()) };
        Rules::read(&Required { keys: vec![], identities: vec![identity], trust_root: Some(path) }).unwrap()
    }

    pub fn person(&self, wanted: &Wanted) -> Person {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.subject_alt_names = wanted.subject.clone().into_iter().collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![wanted.purpose.clone()];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 5, 1), date_time_ymd(2024, 5, 2));
        let issuer = der::element(der::UTF8, wanted.issuer.as_bytes());
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer)];
        if wanted.in_log {
            let before = params.signed_by(&key, &self.authority).unwrap();
            let stamp = self.timestamp(&timestamp::without_timestamps(before.der()).unwrap());
            let id = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
            params.custom_extensions.push(CustomExtension::from_oid_content(&id, stamp));
        }
        let der = params.signed_by(&key, &self.authority).unwrap().der().to_vec();
        Person { key, der }
    }

    /// The extension with one timestamp of the certificate log (RFC 6962, section 3.2).
    fn timestamp(&self, certificate: &[u8]) -> Vec<u8> {
        let time = (TIME * 1000).to_be_bytes();
        let issuer = self.authority.key().subject_public_key_info();
        let length = &(certificate.len() as u32).to_be_bytes()[1..];
        let signed =
            [&[0, 0][..], &time, &[0, 1], &Sha256::digest(issuer), length, certificate, &[0, 0]].concat();
        let signature = self.certificates.sign(&signed).unwrap();
        let id = Sha256::digest(self.certificates.subject_public_key_info());
        let length = (signature.len() as u16).to_be_bytes();
        let one = [&[0][..], &id, &time, &[0, 0], &[4, 3], &length, &signature].concat();
        let one = [&(one.len() as u16).to_be_bytes()[..], &one].concat();
        let list = [&(one.len() as u16).to_be_bytes()[..], &one].concat();
        der::element(der::OCTETS, &list)
    }

    /// What the log of signatures answers: its text, and its promise.
    pub fn logged(&self, body: &Value, time: u64) -> (String, String, Vec<u8>) {
        let body = b64(body.to_string());
        let id = Sha256::digest(self.log.subject_public_key_info()).to_vec();
        let promised =
            format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{}","logIndex":7}}"#, hex(&id));
        (body, b64(self.log.sign(promised.as_bytes()).unwrap()), id)
    }

    /// `payload`, signed by `person` at `time`, as cosign stores it.
    pub fn claim(&self, person: &Person, payload: &[u8], time: u64) -> Claim {
        let signature = person.key.sign(payload).unwrap();
        let (body, promise, id) = self.logged(&person.record(payload, &signature), time);
        let entry = json!({
            "SignedEntryTimestamp": promise,
            "Payload": {"body": body, "integratedTime": time, "logIndex": 7, "logID": hex(&id)},
        });
        let annotations =
            [(SIGNATURE, b64(&signature)), (CERTIFICATE, person.pem()), (LOG_ENTRY, entry.to_string())];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        Claim::Payload { payload: payload.to_vec(), annotations }
    }

    /// A bundle in which `person` states that `image` is signed.
    pub fn bundle(&self, person: &Person, image: &Signable, predicate: &str) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "", "digest": {"sha256": image.digest.hex()}}],
            "predicateType": predicate,
            "predicate": {},
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = person.key.sign(message.as_bytes()).unwrap();
        let body = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "00"},
            "payloadHash": {"algorithm": "sha256", "value": hex(&Sha256::digest(&statement))},
            "signatures": [{"signature": b64(&signature), "verifier": b64(person.pem())}],
        }});
        let (body, promise, id) = self.logged(&body, TIME);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(&person.der)},
                "tlogEntries": [{
                    "logIndex": "7",
                    "logId": {"keyId": b64(id)},
                    "kindVersion": {"kind": "dsse", "version": "0.0.1"},
                    "integratedTime": TIME.to_string(),
                    "inclusionPromise": {"signedEntryTimestamp": promise},
                    "canonicalizedBody": body,
                }],
            },
            "dsseEnvelope": {
                "payload": b64(&statement),
                "payloadType": kind,
                "signatures": [{"sig": b64(&signature), "keyid": ""}],
            },
        })
    }
}

impl Person {
    fn pem(&self) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", b64(&self.der))
    }

    /// What the log holds of a signature.
    fn record(&self, payload: &[u8], signature: &[u8]) -> Value {
        json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex(&Sha256::digest(payload))}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(self.pem())}},
        }})
    }
}

/// A key as it is in a file.
pub fn pem(key: &KeyPair) -> String {
    let der = b64(key.subject_public_key_info());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

/// An image.
pub fn image() -> Signable {
    Signable::new(b"{\"schemaVersion\": 2}".to_vec())
}

/// What a signer of [`REFERENCE`] signs.
pub fn payload(image: &Signable) -> Vec<u8> {
    let payload = json!({"critical": {
        "identity": {"docker-reference": "r.example/team/app"},
        "image": {"docker-manifest-digest": image.digest},
        "type": "cosign container image signature",
    }, "optional": null});
    payload.to_string().into_bytes()
}

/// The claim with another value, or none, for an annotation.
pub fn annotated(claim: &Claim, key: &str, value: Option<String>) -> Claim {
    let Claim::Payload { payload, annotations } = claim else { panic!("a bundle") };
    let mut annotations: BTreeMap<String, String> = annotations.clone();
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
    Claim::Payload { payload: payload.clone(), annotations }
}
