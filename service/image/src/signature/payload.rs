//! The text that a cosign signature signs (containers/image, docs/containers-signature.5.md, "JSON data format").

use super::Refused;
use crate::{Digest, Reference, error::shorten};
use serde::Deserialize;

const TYPE: &str = "cosign container image signature";

/// What the signer says: which image, and what it was called.
#[derive(Debug, Deserialize)]
pub(super) struct Payload {
    critical: Critical,
}

// Unknown fields of `critical` would be critical ones that are not understood.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Payload {
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        serde_json::from_slice(bytes).map_err(|error| Refused(format!("its payload cannot be read: {error}")))
    }

    /// The reference that was signed, when this is about the image with `digest` in the repository of `reference`. The
    /// tag does not count, as with containers-policy.json(5), `matchRepository`: signers often leave it out.
    pub fn check(&self, digest: &Digest, reference: &Reference) -> Result<String, Refused> {
        let Critical { kind, image, identity } = &self.critical;
        if kind != TYPE {
            return Err(Refused(format!("its type is {:?}, not {TYPE:?}", shorten(kind.as_bytes()))));
        }
        if image.digest != digest.to_string() {
            return Err(Refused(format!("it is of {}, not of {digest}", shorten(image.digest.as_bytes()))));
        }
        let named: Option<Reference> = identity.reference.parse().ok();
        match named.is_some_and(|named| named.location() == reference.location()) {
            true => Ok(identity.reference.clone()),
            false => {
                let named = shorten(identity.reference.as_bytes());
                Err(Refused(format!("it is of {named:?}, not of {}", reference.location())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn payload(reference: &str, digest: &Digest) -> Value {
        json!({"critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": TYPE,
        }, "optional": {"creator": "somebody", "timestamp": 1_700_000_000}})
    }

    fn check(value: &Value, reference: &str, digest: &Digest) -> Result<String, String> {
        let read = Payload::parse(value.to_string().as_bytes()).map_err(|r| r.0)?;
        read.check(digest, &reference.parse().unwrap()).map_err(|r| r.0)
    }

    #[test]
    fn digest_type_and_repository_count_and_the_tag_does_not() {
        let (digest, other) = (Digest::of(b"one"), Digest::of(b"two"));
        let good = payload("r.example/team/app", &digest);
        assert_eq!(check(&good, "r.example/team/app:2", &digest).unwrap(), "r.example/team/app");
        let tagged = payload("r.example/team/app:1", &digest);
        assert!(check(&tagged, "r.example/team/app", &digest).is_ok());
        // What one tool calls index.docker.io and another docker.io is one registry.
        for name in ["index.docker.io/library/debian", "docker.io/library/debian:12", "debian"] {
            assert!(check(&payload(name, &digest), "debian:12", &digest).is_ok(), "{name}");
        }
        for (value, reference, digest, why) in [
            (&good, "r.example/team/app", &other, "not of sha256:"),
            (&good, "r.example/team/apps", &digest, "not of r.example/team/apps"),
            (&good, "s.example/team/app", &digest, "not of s.example/team/app"),
            (&payload("", &digest), "r.example/team/app", &digest, "not of r.example"),
        ] {
            let error = check(value, reference, digest).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let mut wrong = good.clone();
        wrong["critical"]["type"] = json!("atomic container signature");
        assert!(check(&wrong, "r.example/team/app", &digest).unwrap_err().contains("its type"));
    }

    #[test]
    fn what_is_missing_or_not_understood_is_refused() {
        let digest = Digest::of(b"one");
        let good = payload("r.example/app", &digest);
        for path in ["/critical/identity", "/critical/image", "/critical"] {
            let mut value = good.clone();
            *value.pointer_mut(path).unwrap() = json!({});
            assert!(check(&value, "r.example/app", &digest).is_err(), "{path}");
            let mut value = good.clone();
            value.pointer_mut(path).unwrap()["also"] = json!("unheard of");
            assert!(check(&value, "r.example/app", &digest).is_err(), "{path}");
        }
    }
}
