//! Sigstore's bundles (sigstore/protobuf-specs, sigstore_bundle.proto, as JSON): a signature with all that checks it.

use super::{Refused, Signable, base64, log};
use crate::error::shorten;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What the media types of bundles begin with, before their version.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// What an envelope holds (in-toto attestation framework, envelope.md).
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// What cosign says by signing an image. Other statements about an image, as its list of parts, are no consent to it.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// A bundle.
pub(super) struct Bundle {
    /// The signer's certificate; a bundle without one is made with a key.
    pub certificate: Option<CertificateDer<'static>>,
    pub entries: Vec<log::Written>,
    /// What was signed.
    pub message: Vec<u8>,
    /// What its log entry has the hash of.
    pub logged: Vec<u8>,
    /// The kind of its log entry.
    pub kind: &'static str,
    pub signature: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    verification_material: Material,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<Certificate>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<log::Written>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

impl MessageDigest {
    /// A digest of another algorithm is only a hint (sigstore_common.proto), and so is this; but it must not lie.
    fn fits(&self, message: &[u8]) -> bool {
        self.algorithm != "SHA2_256"
            || base64(&self.digest).is_some_and(|digest| digest == Sha256::digest(message).as_slice())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<StatementSubject>,
}

#[derive(Deserialize)]
struct StatementSubject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

impl Bundle {
    /// Reads a bundle that says of `signed` that it is signed. Nothing is believed yet.
    pub fn parse(text: &[u8], signed: &Signable) -> Result<Self, Refused> {
        let unreadable = |error: serde_json::Error| Refused(format!("its bundle cannot be read: {error}"));
        let written: Written = serde_json::from_slice(text).map_err(unreadable)?;
        if !written.media_type.starts_with(MEDIA_TYPE) {
            let kind = shorten(written.media_type.as_bytes());
            return Err(Refused(format!("{kind:?} is not the type of a bundle")));
        }
        let material = written.verification_material;
        let chain = material.x509_certificate_chain.and_then(|chain| chain.certificates.into_iter().next());
        let certificate = match material.certificate.or(chain) {
            Some(certificate) => Some(base64(&certificate.raw_bytes).ok_or("its certificate is not base64")?),
            None => None,
        };
        let wrong = "its bundle holds no signature, or several";
        let (message, logged, kind, signature) = match (written.message_signature, written.dsse_envelope) {
            (Some(one), None)
                if one.message_digest.as_ref().is_some_and(|digest| !digest.fits(&signed.body)) =>
            {
                return Err(Refused(format!("its message is not {}", signed.digest)));
            }
            (Some(one), None) => (signed.body.clone(), signed.body.clone(), "hashedrekord", one.signature),
            (None, Some(Envelope { payload, payload_type, mut signatures })) => {
                let payload = base64(&payload).ok_or("its payload is not base64")?;
                let one = signatures.pop().filter(|_| signatures.is_empty()).ok_or(wrong)?;
                check_statement(&payload_type, &payload, signed)?;
                (before_authentication(&payload_type, &payload), payload, "dsse", one.sig)
            }
            _ => return Err(wrong.into()),
        };
        Ok(Self {
            certificate: certificate.map(CertificateDer::from),
            entries: material.tlog_entries,
            message,
            logged,
            kind,
            signature: base64(&signature).ok_or("its signature is not base64")?,
        })
    }
}

/// What an envelope's signature is of (DSSE, protocol.md).
fn before_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend(payload);
    out
}

fn check_statement(kind: &str, payload: &[u8], signed: &Signable) -> Result<(), Refused> {
    if kind != IN_TOTO {
        return Err(Refused(format!(
            "its payload is of type {:?}, not {IN_TOTO:?}",
            shorten(kind.as_bytes())
        )));
    }
    let statement: Statement = serde_json::from_slice(payload)
        .map_err(|error| Refused(format!("its statement cannot be read: {error}")))?;
    if !statement.kind.starts_with("https://in-toto.io/Statement/v") || statement.predicate_type != SIGNED {
        let says = shorten(statement.predicate_type.as_bytes());
        return Err(Refused(format!("it states {says:?}, not that the image is signed")));
    }
    let hex = signed.digest.hex();
    let names = |subject: &StatementSubject| subject.digest.sha256.as_deref() == Some(hex);
    match statement.subject.iter().any(names) {
        true => Ok(()),
        false => Err(Refused(format!("its statement is not about {}", signed.digest))),
    }
}
