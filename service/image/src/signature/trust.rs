//! A trust root: the authorities and logs of one sigstore instance (sigstore/protobuf-specs, sigstore_trustroot.proto, as
//! JSON).

use super::{Refused, base64, key::PublicKey};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

/// Whom keyless signatures are checked with.
#[derive(Debug)]
pub(crate) struct TrustRoot {
    authorities: Vec<Authority>,
    certificate_logs: Vec<Log>,
    signature_logs: Vec<Log>,
}

/// Who issues certificates.
#[derive(Debug)]
pub(super) struct Authority {
    intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    valid: Span,
}

/// Who keeps a public log.
#[derive(Debug)]
struct Log {
    id: Vec<u8>,
    key: PublicKey,
    valid: Span,
}

/// From a second to a second, since 1970.
#[derive(Debug, Clone, Copy)]
struct Span(u64, u64);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    tlogs: Vec<WrittenLog>,
    #[serde(default)]
    ctlogs: Vec<WrittenLog>,
    #[serde(default)]
    certificate_authorities: Vec<WrittenAuthority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenLog {
    public_key: WrittenKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenKey {
    raw_bytes: String,
    valid_for: Option<WrittenSpan>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAuthority {
    cert_chain: WrittenChain,
    valid_for: Option<WrittenSpan>,
}

#[derive(Deserialize)]
struct WrittenChain {
    certificates: Vec<WrittenCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct WrittenSpan {
    start: Option<String>,
    end: Option<String>,
}

impl TrustRoot {
    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// The end of a sentence.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let logs = |all: Vec<WrittenLog>| -> Result<Vec<Log>, String> {
            all.into_iter().filter_map(Log::read).collect()
        };
        let root = Self {
            authorities: written
                .certificate_authorities
                .into_iter()
                .map(Authority::read)
                .collect::<Result<_, _>>()?,
            certificate_logs: logs(written.ctlogs)?,
            signature_logs: logs(written.tlogs)?,
        };
        match root.authorities.is_empty() || root.signature_logs.is_empty() {
            true => Err("it names no authority (certificateAuthorities) or no log (tlogs)".to_owned()),
            false => Ok(root),
        }
    }

    /// The authorities that were valid then.
    pub(super) fn authorities_at(&self, time: u64) -> impl Iterator<Item = &Authority> {
        self.authorities.iter().filter(move |authority| authority.valid.has(time))
    }

    pub(super) fn has_certificate_logs(&self) -> bool {
        !self.certificate_logs.is_empty()
    }

    /// The key of the certificate log with this id.
    pub(super) fn certificate_log(&self, id: &[u8], time: u64) -> Option<&PublicKey> {
        find(&self.certificate_logs, id, time)
    }

    /// The key of the signature log with this id.
    pub(super) fn signature_log(&self, id: &[u8], time: u64) -> Option<&PublicKey> {
        find(&self.signature_logs, id, time)
    }
}

fn find<'a>(logs: &'a [Log], id: &[u8], time: u64) -> Option<&'a PublicKey> {
    logs.iter().find(|log| log.id == id && log.valid.has(time)).map(|log| &log.key)
}

impl Authority {
    fn read(written: WrittenAuthority) -> Result<Self, String> {
        let certificates = written.cert_chain.certificates.iter();
        let mut chain = certificates
            .map(|written| base64(&written.raw_bytes).map(CertificateDer::from))
            .collect::<Option<Vec<_>>>()
            .ok_or("a certificate in it is not base64")?;
        // The root is the last one, or the first in older files: the one that it issued itself.
        let own =
            |c: &CertificateDer<'_>| EndEntityCert::try_from(c).is_ok_and(|c| c.issuer() == c.subject());
        let last = chain.len().checked_sub(1).ok_or("an authority in it has no certificates")?;
        let root = chain.remove(chain.iter().position(own).unwrap_or(last));
        webpki::anchor_from_trusted_cert(&root).map_err(|_| "a certificate in it cannot be read")?;
        Ok(Self { intermediates: chain, root, valid: Span::read(written.valid_for)? })
    }

    pub(super) fn anchor(&self) -> Result<TrustAnchor<'_>, Refused> {
        webpki::anchor_from_trusted_cert(&self.root).map_err(|_| "its authority cannot be read".into())
    }

    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }
}

impl Log {
    /// A log whose key is of another kind is passed over: nothing can be checked with it.
    fn read(written: WrittenLog) -> Option<Result<Self, String>> {
        let Some(der) = base64(&written.public_key.raw_bytes) else {
            return Some(Err("a key in it is not base64".to_owned()));
        };
        // A log's id is the hash of its key (RFC 6962, section 3.2).
        let id = Sha256::digest(&der).to_vec();
        let key = PublicKey::new(der).ok()?;
        Some(Span::read(written.public_key.valid_for).map(|valid| Self { id, key, valid }))
    }
}

impl Span {
    fn read(written: Option<WrittenSpan>) -> Result<Self, String> {
        let time = |text: Option<String>, otherwise| match text {
            None => Ok(otherwise),
            Some(text) => seconds(&text).ok_or_else(|| format!("{text:?} in it is not a time")),
        };
        let (start, end) = written.map_or((None, None), |span| (span.start, span.end));
        Ok(Self(time(start, 0)?, time(end, u64::MAX)?))
    }

    fn has(self, time: u64) -> bool {
        (self.0..=self.1).contains(&time)
    }
}

/// Seconds since 1970 of a time in UTC (RFC 3339); parts of seconds do not count.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: char| {
        let numbers: Option<Vec<u64>> = text.split(between).map(|n| n.parse().ok()).collect();
        <[u64; 3]>::try_from(numbers?).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(crate::registry::days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        // `date -u -d TEXT +%s`
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2021-03-07T03:20:29.000Z"), Some(1_615_087_229));
        assert_eq!(seconds("2022-10-31T23:59:59.999Z"), Some(1_667_260_799));
        for bad in ["", "2021-03-07", "2021-13-07T00:00:00Z", "2021-03-07T03:20:29", "2021-03-07T03:20Z"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
