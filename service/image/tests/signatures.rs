//! Where signatures are found, and that nothing comes without one that is required.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

mod fake;

use banger_image::{Digest, ImageError, Platform, Unsafe};
use banger_model::Credentials;
use base64::{Engine, engine::general_purpose::STANDARD};
use fake::{Client, INDEX, Image, Layer, MANIFEST, Registry, Reply, noise, tar};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn image() -> Image {
    Image::new(vec![Layer::plain(tar(&[("file", &noise(9, 4096))]))])
}

/// A registry with an image, and a key whose signature of it is wanted.
struct Signed {
    registry: Registry,
    key: KeyPair,
    /// Digest and text of the manifest.
    manifest: (Digest, String),
}

impl Signed {
    fn new() -> Self {
        let registry = Registry::start();
        let manifest = (registry.put_image("1", &image()), image().manifest());
        Self { registry, key: KeyPair::generate().unwrap(), manifest }
    }

    /// Somebody on whose host signatures are required; `also` is said about the registry too.
    fn client(&self, also: &str) -> Client {
        let der = STANDARD.encode(self.key.subject_public_key_info());
        let client = Client::saying("");
        let path = client.folder.path().join("team.pub");
        std::fs::write(&path, format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"))
            .unwrap();
        let text = format!(
            "[[registry]]\nprefix = '{}'\n{also}\n[registry.signatures]\npolicy = 'require'\nkeys = ['{}']\n",
            self.registry.address,
            path.display()
        );
        std::fs::write(client.folder.path().join("registries.d/10-test.toml"), text).unwrap();
        client
    }

    /// Puts `layers` as a manifest under `name`.
    fn carrier(&self, registry: &Registry, name: &str, layers: &[Value]) -> Digest {
        let body = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}).to_string();
        let digest = Digest::of(body.as_bytes());
        registry.put(&format!("manifests/{name}"), MANIFEST, body.as_bytes());
        registry.put(&format!("manifests/{digest}"), MANIFEST, body.as_bytes());
        digest
    }

    /// A layer as cosign makes it.
    fn layer(&self, registry: &Registry, digest: &Digest) -> Value {
        let payload = json!({"critical": {
            "identity": {"docker-reference": format!("{}/app", self.registry.address)},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }})
        .to_string();
        let signature = STANDARD.encode(self.key.sign(payload.as_bytes()).unwrap());
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": registry.put_blob(payload.as_bytes()),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        })
    }

    fn sign(&self, registry: &Registry, digest: &Digest) {
        let layer = self.layer(registry, digest);
        self.carrier(registry, &format!("sha256-{}.sig", digest.hex()), &[layer]);
    }

    /// A list of referrers with a bundle whose message is the manifest.
    fn referrers(&self) -> String {
        let signature = STANDARD.encode(self.key.sign(self.manifest.1.as_bytes()).unwrap());
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "team"}},
            "messageSignature": {"signature": signature},
        });
        let blob = self.registry.put_blob(bundle.to_string().as_bytes());
        let layer = json!({"mediaType": BUNDLE, "digest": blob, "size": 1});
        let carrier = self.carrier(&self.registry, "bundle", &[layer]);
        let other = json!({"mediaType": MANIFEST, "digest": blob, "size": 1, "artifactType": "text/spdx"});
        let entry = json!({"mediaType": MANIFEST, "digest": carrier, "size": 1, "artifactType": BUNDLE});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, entry]}).to_string()
    }
}

#[tokio::test]
async fn nothing_is_downloaded_without_a_signature() {
    let signed = Signed::new();
    let error = signed.client("").pull(signed.registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::SignatureRequired { .. }), "{error}");
    assert!(error.to_string().contains("there is none in its repository"), "{error}");
    let blobs = signed.registry.requests("/blobs/");
    assert!(blobs.is_empty(), "{blobs:?}");

    signed.sign(&signed.registry, &signed.manifest.0);
    let (pulled, _) = signed.client("").pull(signed.registry.reference(":1")).await.unwrap();
    let expected = format!("key team.pub, signed as {}/app", signed.registry.address);
    assert_eq!(pulled.signature, expected);
}

#[tokio::test]
async fn a_signature_of_the_index_covers_the_manifest_in_it() {
    let signed = Signed::new();
    let platform = Platform::host();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST, "digest": signed.manifest.0, "size": signed.manifest.1.len(),
        "platform": {"os": platform.os, "architecture": platform.architecture},
    }]})
    .to_string();
    signed.registry.put("manifests/many", INDEX, index.as_bytes());
    let client = signed.client("");
    assert!(client.pull(signed.registry.reference(":many")).await.is_err());
    signed.sign(&signed.registry, &Digest::of(index.as_bytes()));
    client.pull(signed.registry.reference(":many")).await.unwrap();
    // It says nothing about other ways to the manifest.
    assert!(client.pull(signed.registry.reference(":1")).await.is_err());
    let other = Signed::new();
    other.sign(&other.registry, &other.manifest.0);
    other.client("").pull(other.registry.reference(&format!("@{}", other.manifest.0))).await.unwrap();
}

#[tokio::test]
async fn bundles_are_found_by_what_refers_to_the_image() {
    let signed = Signed::new();
    let list = signed.referrers();
    signed.registry.put(&format!("referrers/{}", signed.manifest.0), INDEX, list.as_bytes());
    let (pulled, _) = signed.client("").pull(signed.registry.reference(":1")).await.unwrap();
    assert_eq!(pulled.signature, "key team.pub");

    // Registries without that page, whatever they answer for it.
    for status in [404, 400, 405] {
        let signed = Signed::new();
        let tag = format!("manifests/sha256-{}", signed.manifest.0.hex());
        signed.registry.put(&tag, INDEX, signed.referrers().as_bytes());
        signed.registry.change(move |request, reply| match request.path.contains("/referrers/") {
            true => Reply::new(status, ""),
            false => reply,
        });
        let (pulled, _) = signed.client("").pull(signed.registry.reference(":1")).await.unwrap();
        assert_eq!(pulled.signature, "key team.pub", "{status}");
    }
}

#[tokio::test]
async fn a_mirror_without_the_signature_or_with_a_wrong_one_is_passed_over() {
    for wrong in [false, true] {
        let signed = Signed::new();
        signed.sign(&signed.registry, &signed.manifest.0);
        let mirror = Registry::start();
        mirror.put_image("1", &image());
        if wrong {
            Signed { key: KeyPair::generate().unwrap(), ..Signed::new() }.sign(&mirror, &signed.manifest.0);
        }
        let client = signed.client(&format!("mirrors = ['{}']", mirror.address));
        let (pulled, _) = client.pull(signed.registry.reference(":1")).await.unwrap();
        let expected = format!("key team.pub, signed as {}/app", signed.registry.address);
        assert_eq!(pulled.signature, expected, "the name that the user gave counts");
        assert!(!mirror.requests("/manifests/").is_empty());
    }
}

#[tokio::test]
async fn a_private_registrys_signatures_are_fetched_with_the_same_credentials() {
    let signed = Signed::new();
    signed.sign(&signed.registry, &signed.manifest.0);
    // base64 of `alice:sesame`.
    let wanted = "Basic YWxpY2U6c2VzYW1l";
    signed.registry.change(move |request, reply| {
        match request.headers.get("authorization").is_some_and(|shown| shown == wanted) {
            true => reply,
            false => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\""),
        }
    });
    let client = signed.client("");
    let password = Credentials::Password { username: "alice".into(), password: "sesame".into() };
    let pulled = client.pull_as(signed.registry.reference(":1"), 1000, password).await.unwrap();
    assert!(pulled.signature.starts_with("key team.pub"), "{}", pulled.signature);
    assert!(!signed.registry.requests(".sig").is_empty());
}

#[tokio::test]
async fn signatures_have_limits() {
    let signed = Signed::new();
    let tag = format!("sha256-{}.sig", signed.manifest.0.hex());
    let good = signed.layer(&signed.registry, &signed.manifest.0);
    signed.carrier(&signed.registry, &tag, &vec![good; 65]);
    let pull = async || signed.client("").pull(signed.registry.reference(":1")).await.unwrap_err();
    let error = pull().await;
    let is_limit = |error: &ImageError| matches!(error, ImageError::Unsafe(Unsafe::Limit { .. }));
    assert!(is_limit(&error) && error.to_string().contains("number of signatures is 65"), "{error}");

    let mut large = signed.layer(&signed.registry, &signed.manifest.0);
    large["digest"] = json!(signed.registry.put_blob(&vec![b' '; (1 << 20) + 1]));
    signed.carrier(&signed.registry, &tag, &[large]);
    let error = pull().await;
    assert!(is_limit(&error) && error.to_string().contains("size of a signature"), "{error}");

    // What is listed and is not there, or is no digest, is no signature.
    let mut lost = signed.layer(&signed.registry, &signed.manifest.0);
    for digest in [json!(Digest::of(b"nothing")), json!("../manifests/1")] {
        lost["digest"] = digest;
        signed.carrier(&signed.registry, &tag, std::slice::from_ref(&lost));
        let error = pull().await;
        assert!(matches!(error, ImageError::SignatureRequired { .. }), "{error}");
    }
    signed.registry.put(&format!("manifests/{tag}"), MANIFEST, b"{\"layers\": 1}");
    assert!(matches!(pull().await, ImageError::Unsafe(Unsafe::Document { .. })));
}
