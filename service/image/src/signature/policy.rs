//! What an administrator asks of the images below a registry prefix: `[registry.signatures]` in `registries.d`.

use serde::Deserialize;
use std::path::PathBuf;

/// The signatures that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum SignaturePolicy {
    /// None; nothing is recorded either.
    Accept,
    /// One of these. Images without it are refused.
    Require(Required),
}

/// Who may sign: whoever has one of the keys, or is one of the identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required {
    /// Files of PEM public keys.
    pub keys: Vec<PathBuf>,
    /// Whom a certificate of the trust root may name.
    pub identities: Vec<Identity>,
    /// A sigstore `trusted_root.json`: the authorities and logs behind the identities.
    pub trust_root: Option<PathBuf>,
}

/// Whom a keyless signature is from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenIdentity")]
pub struct Identity {
    /// The URL of the service that knew them.
    pub issuer: String,
    /// What it called them.
    pub subject: Subject,
}

/// The name in a certificate: a mail address, or a URL such as that of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Exactly this.
    Is(String),
    /// Anything that begins so.
    BeginsWith(String),
}

impl Subject {
    /// Whether `name` is meant.
    pub fn fits(&self, name: &str) -> bool {
        match self {
            Subject::Is(exactly) => name == exactly,
            Subject::BeginsWith(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    policy: Word,
    #[serde(default)]
    keys: Vec<PathBuf>,
    #[serde(default)]
    identities: Vec<Identity>,
    trust_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Accept,
    Require,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenIdentity {
    issuer: String,
    subject: Option<String>,
    subject_prefix: Option<String>,
}

impl TryFrom<Written> for SignaturePolicy {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let Written { policy, keys, identities, trust_root } = written;
        if keys.iter().chain(&trust_root).any(|path| !path.is_absolute()) {
            return Err("signatures: keys and trust-root are absolute paths");
        }
        match policy {
            Word::Accept => Ok(SignaturePolicy::Accept),
            Word::Require if keys.is_empty() && identities.is_empty() => Err(
                "signatures: policy \"require\" without keys and identities would refuse every image: name whose signatures count",
            ),
            Word::Require if !identities.is_empty() && trust_root.is_none() => Err(
                "signatures: identities need a trust-root, the trusted_root.json of their sigstore instance",
            ),
            Word::Require => Ok(SignaturePolicy::Require(Required { keys, identities, trust_root })),
        }
    }
}

impl TryFrom<WrittenIdentity> for Identity {
    type Error = &'static str;

    fn try_from(written: WrittenIdentity) -> Result<Self, &'static str> {
        let subject = match (written.subject, written.subject_prefix) {
            (Some(exactly), None) => Subject::Is(exactly),
            (None, Some(prefix)) => Subject::BeginsWith(prefix),
            _ => return Err("signatures: an identity has either a subject or a subject-prefix"),
        };
        let (Subject::Is(text) | Subject::BeginsWith(text)) = &subject;
        match written.issuer.is_empty() || text.is_empty() {
            true => Err("signatures: an identity's issuer and subject are not empty"),
            false => Ok(Self { issuer: written.issuer, subject }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SignaturePolicy, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_key_is_read() {
        let read = read(
            r#"policy = "require"
            keys = ["/etc/banger/keys/team.pub"]
            trust-root = "/etc/banger/sigstore/trusted_root.json"
            identities = [
                { issuer = "https://accounts.example", subject = "me@example.org" },
                { issuer = "https://ci.example", subject-prefix = "https://ci.example/team/" },
            ]"#,
        );
        let Ok(SignaturePolicy::Require(required)) = read else { panic!("{read:?}") };
        assert_eq!(required.keys, [PathBuf::from("/etc/banger/keys/team.pub")]);
        assert_eq!(required.identities[0].subject, Subject::Is("me@example.org".into()));
        assert!(required.identities[1].subject.fits("https://ci.example/team/app@main"));
        assert!(!required.identities[1].subject.fits("https://ci.example/teams"));
        assert!(!required.identities[0].subject.fits("me@example.org.example"));
    }

    #[test]
    fn accept_asks_nothing() {
        assert_eq!(read("policy = 'accept'"), Ok(SignaturePolicy::Accept));
        assert_eq!(read("policy = 'accept'\nkeys = ['/a.pub']"), Ok(SignaturePolicy::Accept));
    }

    #[test]
    fn what_could_never_work_is_told() {
        for (text, why) in [
            ("policy = 'require'", "would refuse every image"),
            ("policy = 'require'\nkeys = []", "would refuse every image"),
            ("policy = 'require'\nkeys = ['team.pub']", "absolute"),
            ("policy = 'accept'\nkeys = ['team.pub']", "absolute"),
            ("policy = 'require'\nidentities = [{ issuer = 'i', subject = 's' }]", "trust-root"),
            ("policy = 'require'\nidentities = [{ issuer = 'i' }]", "either a subject or"),
            ("policy = 'require'\nidentities = [{ issuer = '', subject = 's' }]", "not empty"),
            ("policy = 'require'\nidentities = [{ issuer = 'i', subject-prefix = '' }]", "not empty"),
            ("policy = 'reject'", "unknown variant"),
            ("keys = ['/a.pub']", "missing field `policy`"),
            ("policy = 'require'\nkey = ['/a.pub']", "unknown field `key`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
