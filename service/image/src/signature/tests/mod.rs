//! What verifies, and everything that must not.

mod world;

use super::*;
use crate::{ImageError, Required};
use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType, SigningKey};
use serde_json::{Value, json};
use std::sync::LazyLock;
pub(super) use world::b64;
use world::{ISSUER, REFERENCE, SUBJECT, Sigstore, TIME, Wanted, annotated, image, payload, pem};

/// One day.
const DAY: u64 = 86_400;

fn asked(rules: &Rules, claim: &Claim) -> Result<String, String> {
    verify(rules, &REFERENCE.parse().unwrap(), &image(), claim).map(|v| v.text()).map_err(|r| r.0)
}

#[track_caller]
fn assert_refused(rules: &Rules, claim: &Claim, why: &str) {
    let answer = asked(rules, claim);
    assert!(answer.as_ref().is_err_and(|error| error.contains(why)), "{why}: {answer:?}");
}

/// Rules that trust these keys, by the names of files.
fn rules_of(keys: &[(&str, &str)]) -> Result<Rules, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, pem): &(&str, &str)| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    Rules::read(&Required { keys: keys.iter().map(write).collect(), ..Required::default() })
}

fn signed_by(key: &KeyPair, payload: &[u8]) -> Claim {
    let signature = b64(key.sign(payload).unwrap());
    Claim::Payload { payload: payload.to_vec(), annotations: [(SIGNATURE.to_owned(), signature)].into() }
}

#[test]
fn any_of_several_keys_suffices_and_is_named() {
    let (team, release, other) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let both = format!("a comment\n{}{}", pem(&other), pem(&release));
    let rules = rules_of(&[("team.pub", &pem(&team)), ("all.pub", &both)]).unwrap();
    let text = |key| asked(&rules, &signed_by(key, &payload(&image())));
    assert_eq!(text(&team).unwrap(), "key team.pub, signed as r.example/team/app");
    assert_eq!(text(&release).unwrap(), "key all.pub, signed as r.example/team/app");
    let stranger = KeyPair::generate().unwrap();
    assert!(text(&stranger).unwrap_err().contains("not made with a key that is trusted"));
}

#[test]
fn a_good_signature_of_something_else_does_not_count() {
    let key = KeyPair::generate().unwrap();
    let rules = rules_of(&[("team.pub", &pem(&key))]).unwrap();
    let good = signed_by(&key, &payload(&image()));
    assert!(asked(&rules, &good).is_ok());

    let other = Signable::new(b"another".to_vec());
    assert_refused(&rules, &signed_by(&key, &payload(&other)), "not of sha256:");
    let elsewhere = String::from_utf8(payload(&image())).unwrap().replace("team/app", "team/lib");
    assert_refused(&rules, &signed_by(&key, elsewhere.as_bytes()), "not of r.example/team/app");
    // Somebody adds to what was signed.
    let Claim::Payload { payload, annotations } = &good else { panic!() };
    let tampered = [&payload[..], b" "].concat();
    let tampered = Claim::Payload { payload: tampered, annotations: annotations.clone() };
    assert_refused(&rules, &tampered, "not made with a key");
    assert_refused(&rules, &annotated(&good, SIGNATURE, None), "without a signature");
    let cut = annotations[SIGNATURE][..21].to_owned();
    assert_refused(&rules, &annotated(&good, SIGNATURE, Some(cut)), "base64");
    assert_refused(&rules, &signed_by(&key, b"{}"), "cannot be read");
    assert_refused(&rules, &Claim::Bundle(payload.clone()), "bundle cannot be read");
}

#[test]
fn a_file_of_keys_that_cannot_be_used_is_told() {
    let key = KeyPair::generate().unwrap();
    for (text, why) in [
        (String::new(), "no PEM public key"),
        (pem(&key).replace("PUBLIC", "PRIVATE"), "no PEM public key"),
        (pem(&key).replace("MF", "MG"), "not a public key"),
        ("x".repeat(2 << 20), "larger than"),
    ] {
        let error = rules_of(&[("team.pub", &text)]).unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, ImageError::Configuration { .. }), "{shown}");
        assert!(shown.contains("team.pub") && shown.contains(why), "{why}: {shown}");
    }
    let missing = Required { keys: vec!["/nowhere/team.pub".into()], ..Required::default() };
    assert!(Rules::read(&missing).unwrap_err().to_string().contains("/nowhere/team.pub"));
}

#[test]
fn somebody_without_a_key_signs_by_who_they_are() {
    let sigstore = Sigstore::new();
    let claim = sigstore.claim(&sigstore.person(&Wanted::default()), &payload(&image()), TIME);
    let expected = format!("{SUBJECT} by {ISSUER}, signed as r.example/team/app");
    assert_eq!(asked(&sigstore.rules(), &claim), Ok(expected));
    // Who trusts keys alone does not trust certificates.
    let keys = rules_of(&[("team.pub", &pem(&KeyPair::generate().unwrap()))]).unwrap();
    assert_refused(&keys, &claim, "only keys are trusted");
    assert_refused(&Sigstore::new().rules(), &claim, "a log that the trust root does not know");
}

#[test]
fn a_certificate_counts_for_whom_it_names_when_the_log_saw_the_signature() {
    let sigstore = Sigstore::new();
    let (rules, payload) = (sigstore.rules(), payload(&image()));
    let good = Wanted::default();
    let claim = |wanted: &Wanted| sigstore.claim(&sigstore.person(wanted), &payload, TIME);
    let url = SanType::URI(SUBJECT.try_into().unwrap());
    let other = Some(SanType::Rfc822Name("you@example.org".try_into().unwrap()));
    for (wanted, why) in [
        (Wanted { subject: other, ..good.clone() }, "who is not trusted"),
        (Wanted { issuer: "https://accounts.example.org", ..good.clone() }, "who is not trusted"),
        (Wanted { subject: None, ..good.clone() }, "does not name one subject"),
        (Wanted { purpose: ExtendedKeyUsagePurpose::ServerAuth, ..good.clone() }, "certificate is not good"),
        (Wanted { in_log: false, ..good.clone() }, "no certificate log"),
    ] {
        assert_refused(&rules, &claim(&wanted), why);
    }
    assert!(
        asked(&rules, &claim(&Wanted { subject: Some(url), ..good.clone() })).is_ok(),
        "a URL is a name too"
    );

    let person = sigstore.person(&good);
    for time in [TIME - DAY, TIME + DAY] {
        assert_refused(&rules, &sigstore.claim(&person, &payload, time), "certificate is not good");
    }
    // Before the authority and the log were trusted, and after.
    for time in [TIME - 365 * DAY, TIME + 365 * DAY] {
        assert_refused(&rules, &sigstore.claim(&person, &payload, time), "not for that time");
    }
    let claim = sigstore.claim(&person, &payload, TIME);
    assert_refused(&rules, &annotated(&claim, LOG_ENTRY, None), "no log entry proves");
    assert_refused(&rules, &annotated(&claim, CERTIFICATE, None), "not made with a key that is trusted");
    // Somebody else's certificate of the same authority.
    let stranger = sigstore.claim(&sigstore.person(&good), &payload, TIME);
    for (key, why) in [
        (CERTIFICATE, "about another signature"),
        (LOG_ENTRY, "about another signature"),
        (SIGNATURE, "about another signature"),
    ] {
        let Claim::Payload { annotations, .. } = &stranger else { panic!() };
        assert_refused(&rules, &annotated(&claim, key, Some(annotations[key].clone())), why);
    }
    // A time that the log did not say.
    let Claim::Payload { annotations, .. } = &claim else { panic!() };
    let later = annotations[LOG_ENTRY].replace(&TIME.to_string(), &(TIME + 1).to_string());
    assert_refused(&rules, &annotated(&claim, LOG_ENTRY, Some(later)), "not signed by the log");
    assert_refused(&rules, &annotated(&claim, LOG_ENTRY, Some("{}".into())), "cannot be read");
}

#[test]
fn logs_and_authorities_count_by_their_own_keys() {
    let (sigstore, other) = (Sigstore::new(), Sigstore::new());
    let payload = payload(&image());
    let rules = |change: &dyn Fn(&mut Value)| {
        let mut root = sigstore.trust_root();
        change(&mut root);
        sigstore.rules().with_trust_root(root.to_string().as_bytes())
    };
    let claim = sigstore.claim(&sigstore.person(&Wanted::default()), &payload, TIME);
    assert!(asked(&rules(&|_| ()).unwrap(), &claim).is_ok());
    for (part, why) in [
        ("tlogs", "the trust root does not know"),
        ("ctlogs", "no certificate log"),
        ("certificateAuthorities", "certificate is not good"),
    ] {
        let swapped = rules(&|root| root[part] = other.trust_root()[part].clone()).unwrap();
        assert_refused(&swapped, &claim, why);
    }
    // The root may be the first of an authority's certificates too.
    let other = json!({"rawBytes": b64(&sigstore.person(&Wanted::default()).der)});
    let chain = "/certificateAuthorities/0/certChain/certificates";
    let longer =
        rules(&|root| root.pointer_mut(chain).unwrap().as_array_mut().unwrap().push(other.clone())).unwrap();
    assert!(asked(&longer, &claim).is_ok());
    for part in ["tlogs", "certificateAuthorities"] {
        assert!(rules(&|root| root[part] = json!([])).unwrap_err().contains("names no"), "{part}");
    }
}

#[test]
fn a_bundle_states_that_the_image_is_signed() {
    const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
    let sigstore = Sigstore::new();
    let (rules, person) = (sigstore.rules(), sigstore.person(&Wanted::default()));
    let claim = |bundle: Value| Claim::Bundle(bundle.to_string().into_bytes());
    let good = sigstore.bundle(&person, &image(), SIGNED);
    assert_eq!(asked(&rules, &claim(good.clone())), Ok(format!("{SUBJECT} by {ISSUER}")));

    let other = Signable::new(b"another".to_vec());
    assert_refused(&rules, &claim(sigstore.bundle(&person, &other, SIGNED)), "not about sha256:");
    let list = sigstore.bundle(&person, &image(), "https://spdx.dev/Document");
    assert_refused(&rules, &claim(list), "not that the image is signed");
    let entry = "/verificationMaterial/tlogEntries/0";
    for (path, value, why) in [
        ("/mediaType", json!("text/plain"), "not the type of a bundle"),
        ("/dsseEnvelope/payloadType", json!("text/plain"), "payload is of type"),
        ("/dsseEnvelope/signatures", json!([]), "no signature, or several"),
        ("/messageSignature", json!({"signature": "AAAA"}), "no signature, or several"),
        ("/verificationMaterial/certificate", Value::Null, "not made with a key"),
        ("/verificationMaterial/tlogEntries", json!([]), "no log entry proves"),
        (&format!("{entry}/inclusionPromise"), Value::Null, "no signed time"),
        (&format!("{entry}/integratedTime"), json!("1714564801"), "not signed by the log"),
        (&format!("{entry}/logIndex"), json!("seven"), "cannot be read"),
    ] {
        let mut bundle = good.clone();
        match bundle.pointer_mut(path) {
            Some(place) => *place = value,
            None => bundle["messageSignature"] = value,
        }
        assert_refused(&rules, &claim(bundle), why);
    }
}

#[test]
fn a_bundle_may_hold_a_signature_of_the_manifest_itself() {
    let key = KeyPair::generate().unwrap();
    let rules = rules_of(&[("team.pub", &pem(&key))]).unwrap();
    let claim = |message: &[u8], digest: &Digest| {
        let digest: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&digest.hex()[2 * n..2 * n + 2], 16).unwrap()).collect();
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "team"}},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                "signature": b64(key.sign(message).unwrap()),
            },
        });
        Claim::Bundle(bundle.to_string().into_bytes())
    };
    let image = image();
    assert_eq!(asked(&rules, &claim(&image.body, &image.digest)), Ok("key team.pub".to_owned()));
    assert_refused(&rules, &claim(b"another", &image.digest), "not made with a key");
    assert_refused(&rules, &claim(&image.body, &Digest::of(b"another")), "its message is not sha256:");
}

/// A good claim of each kind, as one text.
static GOOD: LazyLock<(Rules, Vec<Claim>)> = LazyLock::new(|| {
    let sigstore = Sigstore::new();
    let person = sigstore.person(&Wanted::default());
    let bundle = sigstore.bundle(&person, &image(), "https://sigstore.dev/cosign/sign/v1");
    let payload = sigstore.claim(&person, &payload(&image()), TIME);
    (sigstore.rules(), vec![payload, Claim::Bundle(bundle.to_string().into_bytes())])
});

proptest! {
    #[test]
    fn what_is_signed_cannot_be_changed(which in 0usize..2, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (rules, claims) = &*GOOD;
        prop_assert!(asked(rules, &claims[which]).is_ok());
        match &claims[which] {
            Claim::Payload { payload, annotations } => {
                let mut payload = payload.clone();
                let at = at.index(payload.len());
                payload[at] ^= 1 << bit;
                let changed = Claim::Payload { payload, annotations: annotations.clone() };
                prop_assert!(asked(rules, &changed).is_err());
            }
            Claim::Bundle(text) => {
                let mut bundle: Value = serde_json::from_slice(text).unwrap();
                let mut payload = base64(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
                let at = at.index(payload.len());
                payload[at] ^= 1 << bit;
                bundle["dsseEnvelope"]["payload"] = json!(b64(payload));
                prop_assert!(asked(rules, &Claim::Bundle(bundle.to_string().into_bytes())).is_err());
            }
        }
    }

    /// A flip may do nothing, as in a space or a letter of a field that does not count; then the answer is the same.
    #[test]
    fn no_flip_makes_another_signer(which in 0usize..5, at in any::<prop::sample::Index>(), bit in 0u8..7) {
        let (rules, claims) = &*GOOD;
        let good = asked(rules, &claims[usize::from(which == 4)]);
        let flip = |text: &[u8]| {
            let mut text = text.to_vec();
            let at = at.index(text.len());
            text[at] ^= 1 << bit;
            text
        };
        let changed = match (&claims[usize::from(which == 4)], which) {
            (Claim::Bundle(text), _) => Claim::Bundle(flip(text)),
            (Claim::Payload { payload, annotations }, 0) => {
                Claim::Payload { payload: flip(payload), annotations: annotations.clone() }
            }
            (claim @ Claim::Payload { annotations, .. }, _) => {
                let key = [SIGNATURE, CERTIFICATE, LOG_ENTRY][which - 1];
                let value = String::from_utf8(flip(annotations[key].as_bytes())).unwrap();
                annotated(claim, key, Some(value))
            }
        };
        let answer = asked(rules, &changed);
        prop_assert!(answer.is_err() || answer == good, "{answer:?}");
    }

    #[test]
    fn nonsense_is_refused(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let (rules, claims) = &*GOOD;
        prop_assert!(asked(rules, &Claim::Bundle(text.clone())).is_err());
        for key in [SIGNATURE, CERTIFICATE, CHAIN, LOG_ENTRY] {
            let text = String::from_utf8_lossy(&text).into_owned();
            let answer = asked(rules, &annotated(&claims[0], key, Some(text.clone())));
            prop_assert!(answer.is_err() || key == CHAIN && text.trim_ascii().is_empty());
        }
        let certificate = rustls::pki_types::CertificateDer::from(text);
        prop_assert!(timestamp::without_timestamps(&certificate).is_none());
    }
}
