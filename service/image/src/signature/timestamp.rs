//! The promise of a certificate log that a certificate is public (RFC 6962, sections 3.2 and 3.3): an authority that was
//! broken into can issue nothing that nobody sees.

use super::{
    Refused,
    certificate::{TIMESTAMPS, extension, extensions, fields, named},
    der::{self, OCTETS, SEQUENCE},
    trust::TrustRoot,
};
use sha2::{Digest as _, Sha256};

/// A timestamp of version 1.
struct Timestamp<'a> {
    log: &'a [u8],
    /// Milliseconds since 1970.
    time: u64,
    extensions: &'a [u8],
    signature: &'a [u8],
}

/// Whether a log of `trust` promised to hold `certificate`, issued with the key `issuer` (a SubjectPublicKeyInfo). A
/// trust root without certificate logs asks for none.
pub(super) fn check(certificate: &[u8], issuer: &[u8], trust: &TrustRoot) -> Result<(), Refused> {
    if !trust.has_certificate_logs() {
        return Ok(());
    }
    let none = "no certificate log of the trust root knows its certificate";
    let list = extension(certificate, TIMESTAMPS).and_then(|value| der::only(value, OCTETS)).ok_or(none)?;
    let unsigned = without_timestamps(certificate).ok_or(none)?;
    let good = timestamps(list).ok_or(none)?.iter().any(|stamp| {
        let key = trust.certificate_log(stamp.log, stamp.time / 1000);
        key.is_some_and(|key| key.signed(&stamp.signed(issuer, &unsigned), stamp.signature))
    });
    good.then_some(()).ok_or_else(|| none.into())
}

impl Timestamp<'_> {
    /// What the log signed: the certificate before it had timestamps.
    fn signed(&self, issuer: &[u8], certificate: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0];
        out.extend(self.time.to_be_bytes());
        out.extend([0, 1]);
        out.extend(Sha256::digest(issuer));
        out.extend(&(certificate.len() as u32).to_be_bytes()[1..]);
        out.extend(certificate);
        out.extend((self.extensions.len() as u16).to_be_bytes());
        out.extend(self.extensions);
        out
    }
}

/// A list of timestamps, each behind its length.
fn timestamps(list: &[u8]) -> Option<Vec<Timestamp<'_>>> {
    let (mut list, rest) = sized(list)?;
    let mut all = Vec::new();
    while !list.is_empty() {
        let (one, others) = sized(list)?;
        list = others;
        let ([version], one) = one.split_first_chunk()?;
        let (log, one) = one.split_first_chunk::<32>()?;
        let (time, one) = one.split_first_chunk()?;
        let (extensions, one) = sized(one)?;
        // Hash and signature algorithm: the key says what it can.
        let (_, one) = one.split_first_chunk::<2>()?;
        let (signature, end) = sized(one)?;
        if *version == 0 && end.is_empty() {
            all.push(Timestamp { log, time: u64::from_be_bytes(*time), extensions, signature });
        }
    }
    rest.is_empty().then_some(all)
}

/// As many bytes as the first two say, and those behind.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// What the authority signed, without the timestamps in it.
pub(super) fn without_timestamps(certificate: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for field in fields(certificate)? {
        match extensions(&field) {
            None => out.extend(field.whole),
            Some(all) => {
                let others = all.filter(|e| named(e).is_none_or(|(id, _)| id != TIMESTAMPS));
                let others: Vec<u8> = others.flat_map(|e| e.whole.to_vec()).collect();
                out.extend(der::element(0xa3, &der::element(SEQUENCE, &others)));
            }
        }
    }
    Some(der::element(SEQUENCE, &out))
}
