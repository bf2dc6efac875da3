//! Certificates of keyless signatures: short-lived ones, which name somebody whom an issuer knew.

use super::{
    Refused,
    der::{self, Element, OCTETS, OID, Reader, SEQUENCE, UTF8},
    key::PublicKey,
    trust::TrustRoot,
};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};

/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// subjectAltName, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// The issuer that knew the subject, 1.3.6.1.4.1.57264.1.1, as bare text (fulcio, docs/oid-info.md).
const ISSUER_TEXT: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 1];
/// The same as a UTF8String, 1.3.6.1.4.1.57264.1.8; it counts when there are both.
const ISSUER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8];
/// Signed certificate timestamps, 1.3.6.1.4.1.11129.2.4.2 (RFC 6962, section 3.3).
pub(super) const TIMESTAMPS: &[u8] = &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2];

/// Certificates beside the signer's own that are looked at.
const MOST_INTERMEDIATES: usize = 8;

/// rfc822Name and uniformResourceIdentifier (RFC 5280, section 4.2.1.6).
const NAMES: [u8; 2] = [0x81, 0x86];

/// A certificate whose chain was checked.
pub(super) struct Signer {
    pub key: PublicKey,
    /// The issuer that knew the subject.
    pub issuer: String,
    /// The subject: one mail address or URL.
    pub subject: String,
}

/// The certificates in a PEM text, the signer's own first.
pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MOST_INTERMEDIATES).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| "its certificate is not PEM".into())
}

/// Whom `certificate` names, when an authority of `trust` had signed it by `time` (seconds since 1970).
pub(super) fn check(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &TrustRoot,
    time: u64,
) -> Result<Signer, Refused> {
    let leaf = EndEntityCert::try_from(certificate).map_err(|_| "its certificate cannot be read")?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(time));
    let mut why: Refused = "no authority of the trust root was valid when it was signed".into();
    for authority in trust.authorities_at(time) {
        let anchors = [authority.anchor()?];
        let between: Vec<_> = authority.intermediates().iter().chain(intermediates).cloned().collect();
        let path = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &between,
            at,
            KeyUsage::required(CODE_SIGNING),
            None,
            None,
        );
        match path {
            Ok(path) => {
                let issuer_key = match path.intermediate_certificates().next() {
                    Some(issuer) => issuer.subject_public_key_info().to_vec(),
                    None => der::element(SEQUENCE, &path.anchor().subject_public_key_info),
                };
                super::timestamp::check(certificate, &issuer_key, trust)?;
                return signer(certificate, &leaf);
            }
            Err(error) => why = Refused(format!("its certificate is not good: {error}")),
        }
    }
    Err(why)
}

fn signer(certificate: &[u8], leaf: &EndEntityCert<'_>) -> Result<Signer, Refused> {
    let wrong = "its certificate does not name one subject and one issuer";
    let extension = |id| extension(certificate, id);
    let subject = extension(ALTERNATIVE_NAMES).and_then(subject).ok_or(wrong)?;
    let issuer = match extension(ISSUER) {
        Some(value) => der::only(value, UTF8),
        None => extension(ISSUER_TEXT),
    };
    let issuer = issuer.and_then(|text| std::str::from_utf8(text).ok()).ok_or(wrong)?;
    let key = PublicKey::new(leaf.subject_public_key_info().to_vec())?;
    Ok(Signer { key, issuer: issuer.to_owned(), subject })
}

/// The one name in the alternative names.
fn subject(value: &[u8]) -> Option<String> {
    let mut names = Reader(der::only(value, SEQUENCE)?);
    let name = names.next().filter(|name| NAMES.contains(&name.tag) && names.is_empty())?;
    std::str::from_utf8(name.content).ok().map(str::to_owned)
}

/// The fields of what the authority signed (RFC 5280, section 4.1).
pub(super) fn fields(certificate: &[u8]) -> Option<impl Iterator<Item = Element<'_>>> {
    Some(Reader(Reader(der::only(certificate, SEQUENCE)?).value(SEQUENCE)?))
}

/// The extensions in the field that has them.
pub(super) fn extensions<'a>(field: &Element<'a>) -> Option<impl Iterator<Item = Element<'a>>> {
    (field.tag == 0xa3).then(|| der::only(field.content, SEQUENCE).map(Reader)).flatten()
}

/// Identifier and value of an extension.
pub(super) fn named<'a>(extension: &Element<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut parts = Reader(extension.content);
    let id = parts.value(OID)?;
    parts.value(der::BOOLEAN);
    Some((id, parts.value(OCTETS)?))
}

/// The value of the only extension with this identifier.
pub(super) fn extension<'a>(certificate: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    let field = fields(certificate)?.last()?;
    let mut fitting = extensions(&field)?.filter_map(|e| named(&e)).filter(|(found, _)| *found == id);
    let (_, value) = fitting.next()?;
    fitting.next().is_none().then_some(value)
}
