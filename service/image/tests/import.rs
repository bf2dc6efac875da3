//! Images that come out of archives, and go into them: each way gives what a pull gives.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

mod fake;

use banger_image::{
    Export, Filesystem, Format, ImageError, ImportRequest, Imported, Input, Limits, Opened, Platform,
    RunConfig, Silent, Unsafe, Unsupported, export,
};
use banger_model::Bytes;
use fake::{Client, Image, Layer, Registry, cat, check, debugfs, noise, quick, tar};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Three layers in three compressions, with something hidden.
fn image() -> Image {
    Image::new(vec![
        Layer::gzip(tar(&[
            ("etc/", b""),
            ("etc/old", b"old"),
            ("etc/kept", b"kept"),
            ("big", &noise(1, 1 << 20)),
        ])),
        Layer::zstd(tar(&[("etc/.wh.old", b""), ("etc/new", b"new")])),
        Layer::plain(tar(&[("etc/kept", b"changed"), ("zeros", &[0; 100_000])])),
    ])
}

/// The files of an image layout, the index first.
fn layout(image: &Image, name: &str) -> Vec<(String, Vec<u8>)> {
    let manifest = image.manifest().into_bytes();
    let digest = banger_image::Digest::of(&manifest);
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest.to_string(), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }]});
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    let blobs = [manifest, image.config().into_bytes()];
    for blob in blobs.into_iter().chain(image.layers.iter().map(|layer| layer.blob.clone())) {
        files.push((format!("blobs/sha256/{}", banger_image::Digest::of(&blob).hex()), blob));
    }
    files
}

/// What `docker save` makes of an image: layers as plain archives, one of them by a link.
fn saved(image: &Image, tag: &str) -> Vec<(String, Vec<u8>)> {
    let config = image.config().into_bytes();
    let id = banger_image::Digest::of(&config);
    let layers: Vec<String> = (0..image.layers.len()).map(|n| format!("{n:064x}/layer.tar")).collect();
    let manifest = json!([{"Config": format!("{}.json", id.hex()), "RepoTags": [tag], "Layers": layers}]);
    let mut files = vec![(format!("{}.json", id.hex()), config)];
    for (name, layer) in layers.iter().zip(&image.layers) {
        files.push((name.clone(), layer.tar.clone()));
    }
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    files
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, body)| (name.as_str(), body.as_slice())).collect();
    tar(&files)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A place to import to.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn rootfs(&self) -> PathBuf {
        self.0.path().join("rootfs.ext4")
    }

    fn request(&self) -> ImportRequest {
        ImportRequest {
            select: None,
            platform: Platform::host(),
            config: RunConfig::default(),
            scratch: self.0.path().to_owned(),
        }
    }

    fn import_with(
        &self,
        input: Input,
        format: Format,
        request: &ImportRequest,
        limits: &Limits,
    ) -> Result<(Imported, Option<String>), ImageError> {
        let opened = Opened::new(input, format, limits)?;
        let cancel = CancellationToken::new();
        let imported = opened.prepare(request, limits, &Silent, &cancel).and_then(|prepared| {
            let reference = prepared.reference().map(str::to_owned);
            let size = Some(Bytes::mib(64));
            Ok((prepared.build(size, self.0.path(), limits, &Silent, &cancel)?, reference))
        });
        if imported.is_err() {
            assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 0, "something is left");
        }
        imported
    }

    fn import(&self, input: Input) -> Result<(Imported, Option<String>), ImageError> {
        self.import_with(input, Format::Auto, &self.request(), &quick())
    }
}

fn pipe(bytes: &[u8]) -> Input {
    Input::Stream(Box::new(Cursor::new(bytes.to_vec())))
}

fn file(bytes: &[u8]) -> Input {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Input::File(Arc::new(file))
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

#[tokio::test]
async fn importing_a_layout_gives_what_pulling_gives() {
    let (registry, client) = (Registry::start(), Client::new(quick()));
    let digest = registry.put_image("1", &image());
    let (pulled, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
    let mut backwards = layout(&image(), "registry.example/team/app:1");
    backwards.reverse();
    let forwards = archive(&layout(&image(), "registry.example/team/app:1"));
    for input in [
        file(&forwards),
        pipe(&forwards),
        pipe(&archive(&backwards)),
        file(&gzip(&forwards)),
        pipe(&zstd::encode_all(forwards.as_slice(), 1).unwrap()),
    ] {
        let place = Place::new();
        let (imported, reference) = place.import(input).unwrap();
        assert_eq!(imported.manifest_digest, digest);
        assert_eq!(reference.as_deref(), Some("registry.example/team/app:1"));
        assert_eq!((imported.config, imported.layers), (pulled.config.clone(), pulled.layers.clone()));
        assert_eq!((imported.size, imported.content), (pulled.size, pulled.content));
        assert!(same(&place.rootfs(), &rootfs), "other bytes");
    }
}

#[test]
fn what_docker_saves_is_the_same_image() {
    let files = saved(&image(), "app:1");
    let mut packed = files.clone();
    let layers = packed.iter_mut().filter(|(name, _)| name.ends_with("layer.tar"));
    layers.for_each(|(_, body)| *body = gzip(body));
    let mut digests = Vec::new();
    for input in [file(&archive(&files)), pipe(&archive(&files)), pipe(&archive(&packed))] {
        let place = Place::new();
        let (imported, reference) = place.import(input).unwrap();
        assert_eq!(reference.as_deref(), Some("app:1"));
        assert_eq!(imported.config.cmd, ["/bin/sh"]);
        check(&place.rootfs());
        assert_eq!(cat(&place.rootfs(), "/etc/kept"), b"changed");
        assert!(!String::from_utf8_lossy(&debugfs(&place.rootfs(), "ls /etc")).contains("old"));
        digests.push(imported.manifest_digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_newer_form_of_docker_is_read_as_the_layout_that_it_also_is() {
    let (plain, image) = (Image::new(vec![Layer::plain(tar(&[("a", b"a")]))]), image());
    for image in [plain, image] {
        let mut files = layout(&image, "1");
        files.extend(
            saved(&image, "docker.io/library/app:1").into_iter().filter(|(n, _)| n == "manifest.json"),
        );
        let place = Place::new();
        let (imported, _) = place.import(pipe(&archive(&files))).unwrap();
        assert_eq!(
            imported.manifest_digest.to_string(),
            banger_image::Digest::of(image.manifest().as_bytes()).to_string()
        );
    }
}

#[test]
fn layers_that_are_links_are_followed_inside_the_archive() {
    let image = Image::new(vec![Layer::plain(tar(&[("a", b"a")])), Layer::plain(tar(&[("b", b"b")]))]);
    let linked = |target: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, body) in saved(&image, "app:1") {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            if name.starts_with("000") && name.contains("1/layer") {
                header.set_size(body.len() as u64);
                builder.append_data(&mut header, "real.tar", body.as_slice()).unwrap();
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, &name, target).unwrap();
            } else {
                header.set_size(body.len() as u64);
                builder.append_data(&mut header, &name, body.as_slice()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    };
    let place = Place::new();
    place.import(file(&linked("../real.tar"))).unwrap();
    assert_eq!(cat(&place.rootfs(), "/b"), b"b");
    for outside in ["../../etc/passwd", "/etc/passwd", "layer.tar"] {
        let error = Place::new().import(pipe(&linked(outside))).unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Entry { .. })), "{outside}: {error}");
    }
}

#[test]
fn a_root_filesystem_has_the_configuration_that_it_is_given() {
    let archive = tar(&[("bin/", b""), ("bin/sh", b"shell"), ("etc/", b""), ("etc/motd", b"hello")]);
    let config = RunConfig { cmd: vec!["/bin/sh".into()], ..RunConfig::default() };
    let mut digests = Vec::new();
    for input in [file(&archive), pipe(&archive), pipe(&gzip(&archive))] {
        let place = Place::new();
        let request = ImportRequest { config: config.clone(), ..place.request() };
        let (imported, reference) = place.import_with(input, Format::Auto, &request, &quick()).unwrap();
        assert_eq!((imported.config, reference), (config.clone(), None));
        assert_eq!(cat(&place.rootfs(), "/etc/motd"), b"hello");
        check(&place.rootfs());
        digests.push(imported.manifest_digest);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    // Another configuration is another image.
    let place = Place::new();
    assert_ne!(place.import(file(&archive)).unwrap().0.manifest_digest, digests[0]);
}

#[test]
fn a_damaged_compression_is_noticed() {
    let mut packed = gzip(&tar(&[("a", b"a")]));
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    let error = Place::new().import(pipe(&packed)).unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(_)), "{error}");
}

#[test]
fn one_of_several_images_has_to_be_named() {
    let (one, two) = (image(), Image::new(vec![Layer::plain(tar(&[("two", b"2")]))]));
    let (mut files, other) = (layout(&one, "app:1"), layout(&two, "app:2"));
    let index = |files: &[(String, Vec<u8>)]| serde_json::from_slice::<Value>(&files[1].1).unwrap();
    let mut both = index(&files);
    both["manifests"].as_array_mut().unwrap().push(index(&other)["manifests"][0].clone());
    files[1].1 = both.to_string().into_bytes();
    files.extend(other.into_iter().skip(2).filter(|f| !f.1.is_empty()));
    let archive = archive(&files);
    let pick = |select: Option<&str>| {
        let place = Place::new();
        let request = ImportRequest { select: select.map(Into::into), ..place.request() };
        place.import_with(file(&archive), Format::Auto, &request, &quick()).map(|i| i.0.manifest_digest)
    };
    assert_eq!(pick(Some("app:2")).unwrap(), banger_image::Digest::of(two.manifest().as_bytes()));
    assert_eq!(pick(Some("app:1")).unwrap(), banger_image::Digest::of(one.manifest().as_bytes()));
    for (select, text) in [(None, "which one has to be said: app:1, app:2"), (Some("app:3"), "no such image")]
    {
        let error = pick(select).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(Unsupported::Choice { .. })), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_wrong_blob_is_told_from_a_damaged_archive() {
    let sound = layout(&image(), "app:1");
    for blob in 2..sound.len() {
        let mut files = sound.clone();
        let last = files[blob].1.len() - 1;
        files[blob].1[last] ^= 1;
        for input in [file(&archive(&files)), pipe(&archive(&files))] {
            let error = Place::new().import(input).unwrap_err();
            assert!(matches!(error, ImageError::DigestMismatch { .. }), "blob {blob}: {error}");
        }
        let mut short = sound.clone();
        short[blob].1.pop();
        let error = Place::new().import(file(&archive(&short))).unwrap_err();
        assert!(matches!(error, ImageError::DigestMismatch { .. }), "blob {blob}: {error}");
        let mut missing = sound.clone();
        missing.remove(blob);
        let error = Place::new().import(pipe(&archive(&missing))).unwrap_err();
        assert!(error.to_string().contains("it has no file"), "{error}");
    }
    let mut saved = saved(&image(), "app:1");
    let layer = saved.iter().position(|(name, _)| name.ends_with("layer.tar")).unwrap();
    saved[layer].1 = tar(&[("other", b"other")]);
    let error = Place::new().import(pipe(&archive(&saved))).unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let refuse = |files: &[(&str, &[u8])], text: &str| {
        for input in [file(&tar(files)), pipe(&tar(files))] {
            let error = Place::new().import(input).unwrap_err();
            assert!(matches!(error, ImageError::Unsafe(_)), "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    };
    refuse(&[("index.json", b"{}"), ("../../etc/passwd", b"x")], "..");
    refuse(&[("index.json", b"{}"), ("/etc/passwd", b"x")], "slash");
    refuse(&[("index.json", b"{}"), ("./index.json", b"{}")], "twice");
    refuse(&[("index.json", b"nonsense")], "not valid");
    refuse(&[("oci-layout", b"{}")], "neither index.json nor manifest.json");
    refuse(&[("manifest.json", b"[]")], "names no image");
    let whole = archive(&layout(&image(), "app:1"));
    for length in [700, 5_000, whole.len() / 2, whole.len() - 100_000] {
        for input in [file(&whole[..length]), pipe(&whole[..length])] {
            let error = Place::new().import(input).unwrap_err();
            assert!(matches!(error, ImageError::Unsafe(_)), "{length}: {error}");
        }
    }
}

#[test]
fn every_limit_holds() {
    let whole = archive(&layout(&image(), "app:1"));
    let exceeds = |input: Input, change: fn(&mut Limits)| {
        let (mut limits, place) = (quick(), Place::new());
        change(&mut limits);
        let error = place.import_with(input, Format::Auto, &place.request(), &limits).unwrap_err();
        match error {
            ImageError::Unsafe(Unsafe::Limit { what, .. }) => what,
            other => panic!("{other}"),
        }
    };
    assert_eq!(exceeds(file(&whole), |l| l.members = 3), "the number of files in the archive");
    assert_eq!(exceeds(pipe(&whole), |l| l.compressed = Bytes(10_000)), "the size of the archive");
    assert_eq!(exceeds(file(&whole), |l| l.manifest = Bytes(10)), "the size of the index");
    assert_eq!(exceeds(file(&whole), |l| l.config = Bytes(10)), "the size of the configuration");
    assert_eq!(exceeds(file(&whole), |l| l.layers = 2), "the number of layers");
    let bomb = gzip(&tar(&[("zeros", &[0; 40 << 20])]));
    let ratio: fn(&mut Limits) = |l| (l.ratio, l.ratio_from) = (100, Bytes::mib(1));
    assert_eq!(exceeds(pipe(&bomb), ratio), "the compression ratio of the archive");
    assert_eq!(exceeds(file(&bomb), |l| l.unpacked = Bytes::mib(1)), "the unpacked size of the archive");
    assert_eq!(
        exceeds(pipe(&tar(&[("x", &[1; 9000])])), |l| l.unpacked = Bytes(5_000)),
        "the size of the archive"
    );
}

#[test]
fn a_raw_filesystem_is_judged_from_outside() {
    let place = Place::new();
    place.import(file(&tar(&[("x", b"x")]))).unwrap();
    let rootfs = File::options().read(true).write(true).open(place.rootfs()).unwrap();
    let looked = Filesystem::inspect(&rootfs).unwrap();
    assert_eq!(looked.size, Bytes::mib(64));
    assert!(looked.used > Bytes(0) && looked.used < looked.size);
    let opened =
        Opened::new(Input::File(Arc::new(rootfs.try_clone().unwrap())), Format::Auto, &quick()).unwrap();
    assert_eq!(opened.format(), Format::Ext4);
    rootfs.set_len(32 << 20).unwrap();
    assert!(Filesystem::inspect(&rootfs).unwrap_err().to_string().contains("cut off"));
    rootfs.set_len(100).unwrap();
    assert!(Filesystem::inspect(&rootfs).is_err());
}

/// Exports what is in `place`.
fn exported(place: &Place, config: &RunConfig) -> Result<Vec<u8>, ImageError> {
    let rootfs = File::open(place.rootfs()).unwrap();
    let scratch = TempDir::new().unwrap();
    let image = Export {
        rootfs: &rootfs,
        config,
        platform: &Platform::host(),
        name: "app:1",
        scratch: scratch.path(),
    };
    let mut bytes = Vec::new();
    let done = export(&image, &mut bytes, &quick(), &Silent, &CancellationToken::new())?;
    assert_eq!(done.size, Bytes(bytes.len() as u64));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    Ok(bytes)
}

/// An archive with one of everything that a layer can have.
fn everything() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, link: &str, body: &[u8], pax: &[(&str, &[u8])]| {
        builder.append_pax_extensions(pax.iter().copied()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6755);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_700_000_000);
        header.set_size(body.len() as u64);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(260).unwrap();
            header.set_device_minor(70_000).unwrap();
        }
        match link {
            "" => builder.append_data(&mut header, name, body).unwrap(),
            link => builder.append_link(&mut header, name, link).unwrap(),
        }
    };
    use tar::EntryType as T;
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl: &[u8] = &[
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255,
        255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    add(T::Directory, "d/", "", b"", &[("mtime", b"-5.25"), ("uid", b"4000000000")]);
    add(T::Regular, "d/file", "", &noise(3, 300_000), &[("SCHILY.xattr.security.capability", capability)]);
    add(
        T::Regular,
        "d/acl",
        "",
        b"acl",
        &[
            ("mtime", b"9000000000.123456789"),
            ("gid", b"3000000000"),
            ("SCHILY.xattr.system.posix_acl_access", acl),
            ("SCHILY.xattr.user.long", &[b'v'; 2000]),
            ("LIBARCHIVE.xattr.user.a%3Db", b"AAEC"),
        ],
    );
    add(T::Link, "d/same", "d/file", b"", &[]);
    add(T::Symlink, "d/short", "file", b"", &[]);
    add(T::Symlink, "d/long", &"x/".repeat(200), b"", &[]);
    add(T::Char, "d/char", "", b"", &[]);
    add(T::Block, "d/block", "", b"", &[]);
    add(T::Fifo, "d/fifo", "", b"", &[]);
    add(T::Regular, &format!("d/{}", "n".repeat(200)), "", b"long name", &[]);
    let map = "GNU.sparse.map";
    add(
        T::Regular,
        "d/sparse",
        "",
        &noise(5, 8192),
        &[("GNU.sparse.size", b"5000000"), (map, b"0,4096,1048576,4096")],
    );
    add(
        T::Regular,
        "d/gaps",
        "",
        &noise(7, 8192),
        &[("GNU.sparse.size", b"20480"), (map, b"0,4096,16384,4096")],
    );
    builder.into_inner().unwrap()
}

#[test]
fn an_exported_image_imports_as_it_was() {
    let config = RunConfig {
        entrypoint: vec!["/e".into()],
        cmd: vec!["c".into()],
        env: vec!["A=b".into()],
        user: Some("1:2".into()),
        working_dir: Some("/w".into()),
        stop_signal: Some("SIGINT".into()),
        exposed_ports: vec!["80/tcp".into()],
        volumes: vec!["/v".into()],
        labels: [("k".to_owned(), "v".to_owned())].into(),
    };
    let first = Place::new();
    let request = ImportRequest { config: config.clone(), ..first.request() };
    first.import_with(file(&everything()), Format::Rootfs, &request, &quick()).unwrap();
    let archive = exported(&first, &config).unwrap();
    assert!(archive.len() < 1 << 20, "holes stay holes");
    assert!(archive == exported(&first, &config).unwrap(), "the same bytes each time");

    let second = Place::new();
    let (imported, reference) = second.import(pipe(&archive)).unwrap();
    assert_eq!(reference.as_deref(), Some("app:1"));
    assert_eq!(imported.config, config);
    check(&second.rootfs());
    // What is read of the copy is what was read of the first: its layer has the same bytes.
    let again = exported(&second, &config).unwrap();
    assert!(archive == again, "the second export differs");
    // debugfs shows ids as signed numbers.
    let stat = String::from_utf8(debugfs(&second.rootfs(), "stat /d/acl")).unwrap();
    for part in ["Group: -1294967296", "system.posix_acl_access", "user.long", "user.a=b", "Mode:  06755"] {
        assert!(stat.contains(part), "{part}: {stat}");
    }
    assert_eq!(cat(&second.rootfs(), "/d/same"), noise(3, 300_000));
    assert!(String::from_utf8(debugfs(&second.rootfs(), "stat /d/same")).unwrap().contains("Links: 2"));
}

#[test]
fn a_name_that_would_take_something_away_is_not_exported() {
    let place = Place::new();
    place.import(file(&tar(&[("a", b"a")]))).unwrap();
    let renamed = std::process::Command::new("/usr/sbin/debugfs")
        .args(["-w", "-R", "ln /a /.wh.b"])
        .arg(place.rootfs())
        .output()
        .unwrap();
    assert!(renamed.status.success());
    let error = exported(&place, &RunConfig::default()).unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_refused_or_harmless(
        at in any::<prop::sample::Index>(),
        byte in 1u8..,
        docker: bool,
        piped: bool,
    ) {
        let image = Image::new(vec![Layer::gzip(tar(&[("a", b"a")])), Layer::plain(tar(&[("b", b"b")]))]);
        let mut bytes = archive(&if docker { saved(&image, "app:1") } else { layout(&image, "app:1") });
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        let place = Place::new();
        if place.import(if piped { pipe(&bytes) } else { file(&bytes) }).is_ok() {
            check(&place.rootfs());
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000), format in 0usize..5) {
        let format = [Format::Auto, Format::Oci, Format::Docker, Format::Rootfs, Format::Ext4][format];
        let place = Place::new();
        let _ = place.import_with(pipe(&bytes), format, &place.request(), &quick());
    }
}

#[test]
fn a_pipe_is_read_to_its_end() {
    let (read, write) = std::io::pipe().unwrap();
    let bytes = archive(&layout(&image(), "app:1"));
    let writer = std::thread::spawn(move || (&write).write_all(&bytes));
    let place = Place::new();
    place.import(Input::Stream(Box::new(read))).unwrap();
    writer.join().unwrap().unwrap();
}

#[test]
fn a_file_is_read_from_its_start_and_its_place_is_left_alone() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&archive(&layout(&image(), "app:1"))).unwrap();
    let end = file.stream_position().unwrap();
    let shared = Arc::new(file.try_clone().unwrap());
    Place::new().import(Input::File(shared)).unwrap();
    assert_eq!(file.stream_position().unwrap(), end);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
