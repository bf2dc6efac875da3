//! Signatures of people and workflows that have no key of their own: an authority certified for some minutes who they
//! are, and a public log saw the signature within these.

use super::{
    Refused, Rules,
    certificate::{self, Signer},
    log::{Entry, Subject},
};
use rustls::pki_types::CertificateDer;

/// A signature with a certificate.
pub(super) struct Keyless<'a> {
    /// What was signed.
    pub message: &'a [u8],
    pub signature: &'a [u8],
    pub certificate: &'a CertificateDer<'a>,
    /// Certificates that may lead to the authority.
    pub intermediates: &'a [CertificateDer<'a>],
    pub entry: &'a Entry,
    /// What the entry has the hash of, and its kind.
    pub logged: &'a [u8],
    pub kind: &'a str,
}

impl Keyless<'_> {
    /// Whose it is, if it is somebody's whom `rules` name.
    pub fn check(&self, rules: &Rules) -> Result<String, Refused> {
        let trust = rules.trust_root().ok_or("it has a certificate, and only keys are trusted")?;
        let (message, signature, kind) = (self.logged, self.signature, self.kind);
        let subject = Subject { message, signature, certificate: self.certificate, kind };
        let time = self.entry.time_of(&subject, trust)?;
        let signer = certificate::check(self.certificate, self.intermediates, trust, time)?;
        if !signer.key.signed(self.message, self.signature) {
            return Err("it is not made with the key of its certificate".into());
        }
        let Signer { issuer, subject, .. } = signer;
        match rules.has_identity(&issuer, &subject) {
            true => Ok(format!("{subject} by {issuer}")),
            false => Err(Refused(format!("it is of {subject:?} by {issuer:?}, who is not trusted"))),
        }
    }
}
