//! Writes the seeds, sound and odd inputs from which the fuzzer goes on: `cargo run --example seeds` in this folder.

#[path = "../../service/image/tests/fake/archive.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod archive;

use archive::{Archive, header, number, sealed};
use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = folder.join(target);
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name), bytes))
    };
    for (name, archive) in archives() {
        put("tar", name, &archive.end())?;
    }
    for (name, layers) in images() {
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Archive::cut).collect();
        put("merge", name, &layers.join(banger_fuzz::SEPARATOR))?;
    }
    for (name, text) in DOCUMENTS {
        put("manifest", name, text.replace("DIGEST", DIGEST).as_bytes())?;
    }
    for (name, text) in REFERENCES {
        put("reference", name, text.replace("DIGEST", DIGEST).as_bytes())?;
    }
    // The writer's calls are made of any bytes; these have many different ones.
    for seed in 0..4u8 {
        let bytes: Vec<u8> =
            (0..600u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect();
        put("ext4", &format!("mixed-{seed}"), &bytes)?;
    }
    Ok(())
}

fn archives() -> Vec<(&'static str, Archive)> {
    let new = Archive::new;
    let mut device = header(b'3', b"dev/null", b"", 0o666, 0);
    number(&mut device[329..337], 1);
    number(&mut device[337..345], 3);
    let mut old = header(b'S', b"sparse", b"", 0o644, 5);
    old[257..265].copy_from_slice(b"ustar  \0");
    number(&mut old[386..398], 512);
    number(&mut old[398..410], 3);
    old[482] = 1;
    number(&mut old[483..495], 9 << 30);
    let mut more = [0; 512];
    number(&mut more[..12], 8 << 30);
    number(&mut more[12..24], 2);
    let mut data = b"abcde".to_vec();
    data.resize(512, 0);
    let mut map = b"2\n5\n3\n1000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let sparse = |major: &str, minor: &str| {
        new().pax("GNU.sparse.major", major).pax("GNU.sparse.minor", minor).pax("GNU.sparse.size", "2000")
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("plain", new().dir("d/").file("d/f", "hello").symlink("s", "d/f").hard_link("h", "d/f")),
        ("device", new().bytes(&sealed(device)).entry(b'6', "pipe", "", "")),
        ("numbers", new().pax("uid", "4294967294").pax("mtime", "-1.5").pax("size", "5").file("x", "hello")),
        ("names", new().pax("path", "long/name").pax("linkpath", "target").symlink("x", "y")),
        (
            "attributes",
            new()
                .xattr("security.capability", capability)
                .pax("LIBARCHIVE.xattr.user.a%3d", "AP8K")
                .file("x", ""),
        ),
        ("gnu-long", new().gnu_long(b'K', "target").gnu_long(b'L', "a/long/name").symlink("x", "y")),
        ("sparse-old", new().bytes(&sealed(old)).bytes(&more).bytes(&data).file("next", "x")),
        (
            "sparse-0.0",
            sparse("0", "0")
                .pax("GNU.sparse.offset", "5")
                .pax("GNU.sparse.numbytes", "3")
                .pax("GNU.sparse.offset", "1000")
                .pax("GNU.sparse.numbytes", "2")
                .file("sparse", "abcde"),
        ),
        ("sparse-0.1", sparse("0", "1").pax("GNU.sparse.map", "5,3,1000,2").file("sparse", "abcde")),
        ("sparse-1.0", sparse("1", "0").pax("GNU.sparse.name", "sparse").file("x", map)),
        ("lies", new().says_size(5000).file("a", "short")),
        ("endless", new().pax("size", "18446744073709551615").file("a", "x")),
        ("ignored", new().entry(b'g', "global", "", "17 path=hijacked\n").entry(b'V', "label", "", "")),
    ]
}

fn images() -> Vec<(&'static str, Vec<Archive>)> {
    let new = Archive::new;
    let folder = || new().dir("a").file("a/b", "x");
    vec![
        ("whiteouts", vec![folder().file("c", "x"), new().file("a/.wh.b", "").file(".wh.c", "")]),
        ("opaque", vec![folder(), new().dir("a").file("a/.wh..wh..opq", "").file("a/c", "c")]),
        ("links", vec![new().file("a", "a").hard_link("b", "a"), new().file("a", "n").hard_link("c", "b")]),
        ("link-below", vec![new().file("a", "a"), new().hard_link("b", "a"), new().file(".wh.a", "")]),
        ("followed", vec![new().dir("u").symlink("l", "/u").file("l/x", "x").file("l/.wh.y", "")]),
        ("replaced", vec![folder(), new().file("a", "x"), new().dir("a").file("a/c", "c")]),
        ("twice", vec![new().file("a", "1").file("a", "2").symlink("a", "3").dir("a").dir("a")]),
        ("root", vec![new().mode(0o711).dir("./").xattr("user.a", vec![7; 200]).dir("/").dir("d")]),
    ]
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const DOCUMENTS: &[(&str, &str)] = &[
    (
        "manifest",
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":2},
        "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"DIGEST","size":0}]}"#,
    ),
    (
        "index",
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
        {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"DIGEST","size":7,
        "platform":{"os":"linux","architecture":"amd64","variant":"v8"}}]}"#,
    ),
    (
        "docker",
        r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
        "config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"DIGEST","size":2},
        "layers":[]}"#,
    ),
    ("schema1", r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#),
    (
        "config",
        r#"{"architecture":"amd64","os":"linux","config":{"User":"1:2","ExposedPorts":{"80/tcp":{}},
        "Env":["A=b"],"Entrypoint":["/x"],"Cmd":"y","Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"b"},
        "StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["DIGEST"]}}"#,
    ),
];

const REFERENCES: &[(&str, &str)] = &[
    ("short", "debian"),
    ("tag", "debian:12-slim"),
    ("registry", "ghcr.io/some/org/my-image:v2.1"),
    ("port", "localhost:5000/a_b/c.d"),
    ("ipv6", "[::1]:5000/x:y"),
    ("digest", "x@DIGEST"),
    ("both", "docker.io/library/x:y@DIGEST"),
];
