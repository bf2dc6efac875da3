//! Images that have to be signed: by openssl's keys, in the form in which cosign stores signatures.

use crate::support::{ALICE, image_names, refused, system};
use banger_harness::{
    REGISTRY,
    images::Tree,
    inside::{self, Ran, assert_no_residue, banger, run},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A repository under a policy of its own, and a key to sign with.
struct Signed {
    repository: &'static str,
    key: PathBuf,
    policy: PathBuf,
    folder: tempfile::TempDir,
}

impl Signed {
    /// A new key, and the policy that wants it for this repository.
    fn new(repository: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = format!("/etc/banger/registries.d/{}.toml", repository.replace('/', "-")).into();
        let signed = Self { repository, key: folder.path().join("team.key"), policy, folder };
        make_key(&signed.key);
        let public = format!("/etc/banger/keys/{}/team.pub", repository.replace('/', "-"));
        fs::create_dir_all(Path::new(&public).parent().unwrap()).unwrap();
        openssl(&["pkey", "-pubout", "-in", signed.key.to_str().unwrap(), "-out", &public], b"");
        signed.policy(&format!("policy = \"require\"\nkeys = [\"{public}\"]"));
        signed
    }

    fn policy(&self, text: &str) {
        fs::create_dir_all(self.policy.parent().unwrap()).unwrap();
        let prefix = format!("{REGISTRY}/{}", self.repository);
        let text = format!("[[registry]]\nprefix = \"{prefix}\"\n[registry.signatures]\n{text}\n");
        fs::write(&self.policy, text).unwrap();
    }

    /// Publishes an image with this text in it: reference and digest.
    fn publish(&self, text: &str) -> (String, String) {
        let layers = [system(), Tree::default().file("signed", 0o644, text.as_bytes()).finish().unwrap()];
        let config = json!({"Cmd": ["/bin/cat", "/signed"]});
        inside::publish(&format!("{}:1", self.repository), &layers, &config).unwrap()
    }

    /// Signs `digest` with `key` as an image that is called `name`, and stores that as a signature of `of`.
    fn sign(&self, of: &str, digest: &str, name: &str, key: &Path) {
        let payload = json!({"critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }, "optional": null})
        .to_string();
        let payload_file = self.folder.path().join("payload");
        fs::write(&payload_file, &payload).unwrap();
        let signature = self.folder.path().join("signature");
        let (key, file) = (key.to_str().unwrap(), payload_file.to_str().unwrap());
        openssl(&["dgst", "-sha256", "-sign", key, "-out", signature.to_str().unwrap(), file], b"");
        let signature = openssl(&["base64", "-A", "-in", signature.to_str().unwrap()], b"").text();
        let layer = self.upload(payload.as_bytes());
        let config = self.upload(b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": layer,
                "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature.trim()},
            }],
        });
        let tag = format!("{}.sig", of.replace(':', "-"));
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let answer = http("PUT", &path, MANIFEST, manifest.to_string().as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Signs as it should be.
    fn sign_well(&self, digest: &str) {
        self.sign(digest, digest, &format!("{REGISTRY}/{}", self.repository), &self.key);
    }

    /// Uploads a blob (distribution specification, "POST then PUT"): its digest.
    fn upload(&self, body: &[u8]) -> String {
        let mut sum = Command::new("/usr/bin/sha256sum");
        sum.arg("-");
        let sum = run(sum, body).expect(0).text();
        let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap());
        let started = http("POST", &format!("/v2/{}/blobs/uploads/", self.repository), "text/plain", b"");
        let location = started.lines().find_map(|line| line.strip_prefix("Location: ")).expect(&started);
        let path = location.trim().strip_prefix(&format!("http://{REGISTRY}")).unwrap_or(location.trim());
        let put = format!("{path}&digest={digest}");
        let answer = http("PUT", &put, "application/octet-stream", body);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        digest
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.policy);
    }
}

fn make_key(path: &Path) {
    let curve = "ec_paramgen_curve:P-256";
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", path.to_str().unwrap()], b"");
}

#[track_caller]
fn openssl(args: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(args);
    run(command, input).expect(0)
}

/// One request to the host's registry: the answer's head and body.
fn http(method: &str, path: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(REGISTRY).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn signature_of(image: &str) -> Value {
    banger(ALICE, &["image", "show", image, "--format", "json"]).expect(0).json()[0]["signature"].clone()
}

/// Asserts that a pull is refused for its signature, and that nothing of the image is here.
#[track_caller]
fn assert_refused(name: &str, (reference, digest): &(String, String), why: &str) {
    let before = image_names();
    let told = refused(ALICE, &["image", "pull", "--name", name, reference], "SignatureRequired").errors();
    assert!(told.contains(why), "{why}: {told}");
    assert_eq!(image_names(), before, "a row is left");
    let manifest: Value = serde_json::from_slice(&fs::read(inside::registry_blob(digest)).unwrap()).unwrap();
    let own = manifest["layers"][1]["digest"].as_str().unwrap();
    let blob = Path::new("/var/lib/banger/blobs").join(own.replace(':', "/"));
    assert!(!blob.exists(), "a layer was downloaded before its signature was checked");
    let staging = fs::read_dir("/var/lib/banger/images").unwrap();
    let left = staging.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "staging"));
    assert_eq!(left.count(), 0, "a staging folder is left");
    assert_no_residue();
}

#[test]
fn a_signed_image_is_pulled_and_says_who_signed_it() {
    let signed = Signed::new("signed/app");
    let image = signed.publish("one");
    assert_refused("signed", &image, "there is none in its repository");
    // The pull that is part of a run asks for the same.
    refused(ALICE, &["run", "--rm", &image.0], "SignatureRequired");

    signed.sign_well(&image.1);
    banger(ALICE, &["image", "pull", "--name", "signed", &image.0]).expect(0);
    let by = format!("key team.pub, signed as {REGISTRY}/signed/app");
    assert_eq!(signature_of("signed"), by);
    let table = banger(ALICE, &["image", "show", "signed"]).expect(0).text();
    assert!(table.contains(&by), "{table}");

    // The tag moves to an image that nobody signed: the image that is here stays what it is.
    let moved = signed.publish("two");
    assert_refused("signed", &moved, "there is none in its repository");
    assert_eq!(signature_of("signed"), by);
    let text = banger(ALICE, &["run", "--rm", "signed"]).expect(0).text();
    assert_eq!(text, "one");
    banger(ALICE, &["image", "rm", "signed"]).expect(0);
    assert_no_residue();
}

#[test]
fn a_signature_by_another_key_of_another_image_or_for_another_repository_does_not_count() {
    let signed = Signed::new("signed/wrong");
    let image = signed.publish("wrong");
    let digest = &image.1;
    let name = format!("{REGISTRY}/signed/wrong:1");
    let other = signed.folder.path().join("other.key");
    make_key(&other);
    signed.sign(digest, digest, &name, &other);
    assert_refused("wrong", &image, "not made with a key that is trusted");

    let elsewhere = digest.replace(|c: char| c.is_ascii_digit(), "0");
    signed.sign(digest, &elsewhere, &name, &signed.key);
    assert_refused("wrong", &image, "not of sha256:");

    signed.sign(digest, digest, &format!("{REGISTRY}/signed/another"), &signed.key);
    assert_refused("wrong", &image, "not of 127.0.0.1");

    signed.sign(digest, digest, &name, &signed.key);
    banger(ALICE, &["image", "pull", "--name", "wrong", &image.0]).expect(0);
    assert_eq!(signature_of("wrong"), format!("key team.pub, signed as {name}"));
    banger(ALICE, &["image", "rm", "wrong"]).expect(0);
    assert_no_residue();
}

#[test]
fn an_image_that_is_here_already_does_not_get_around_the_policy() {
    let signed = Signed::new("signed/later");
    let image = signed.publish("later");
    let written = fs::read_to_string(&signed.policy).unwrap();
    signed.policy("policy = \"accept\"");
    banger(ALICE, &["image", "pull", "--name", "later", &image.0]).expect(0);
    assert_eq!(signature_of("later"), "", "accept asks nothing and records nothing");

    fs::write(&signed.policy, &written).unwrap();
    for name in ["later", "shared"] {
        refused(ALICE, &["image", "pull", "--name", name, &image.0], "SignatureRequired");
    }
    assert!(!image_names().contains(&"shared".to_owned()), "it was made of the file that is here");
    signed.sign_well(&image.1);
    for name in ["later", "shared"] {
        banger(ALICE, &["image", "pull", "--name", name, &image.0]).expect(0);
        assert_eq!(signature_of(name), format!("key team.pub, signed as {REGISTRY}/signed/later"));
    }
    banger(ALICE, &["image", "rm", "later", "shared"]).expect(0);

    // What could never work is the administrator's to repair, and told with its place.
    signed.policy("policy = \"require\"");
    let told = refused(ALICE, &["image", "pull", &image.0], "HostNotReady").errors();
    assert!(told.contains("signed-later.toml, line"), "{told}");
    signed.policy("policy = \"require\"\nkeys = [\"/etc/banger/keys/none.pub\"]");
    let told = refused(ALICE, &["image", "pull", &image.0], "HostNotReady").errors();
    assert!(told.contains("/etc/banger/keys/none.pub"), "{told}");
    assert_no_residue();
}
