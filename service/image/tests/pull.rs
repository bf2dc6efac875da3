//! Whole pulls from a registry in this process.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

mod fake;

use banger_image::{Digest, ImageError, Limits, Platform, Puller, Silent, Unsafe, Unsupported};
use banger_model::{Bytes, Phase};
use fake::{Client, Heard, Image, Layer, Registry, cat, check, debugfs, noise, quick, tar};
use serde_json::json;
use std::{
    fs,
    sync::{Arc, Condvar, Mutex},
};
use tokio_util::sync::CancellationToken;

/// Three layers in three compressions, with something hidden.
fn image() -> Image {
    Image::new(vec![
        Layer::gzip(tar(&[
            ("etc/", b""),
            ("etc/old", b"old"),
            ("etc/kept", b"kept"),
            ("big", &noise(1, 3 << 20)),
        ])),
        Layer::zstd(tar(&[("etc/.wh.old", b""), ("etc/new", b"new")])),
        Layer::plain(tar(&[("etc/kept", b"changed"), ("zeros", &[0; 100_000])])),
    ])
}

#[tokio::test]
async fn an_image_becomes_a_filesystem() {
    let registry = Registry::start();
    let digest = registry.put_image("1", &image());
    let client = Client::new(quick());
    let heard = Heard::default();
    let request = client.request(registry.reference(":1"));
    let pulled = client.puller.pull(&request, &heard, &CancellationToken::new()).await.unwrap();
    let rootfs = request.staging.join("rootfs.ext4");
    check(&rootfs);
    assert_eq!(cat(&rootfs, "/etc/kept"), b"changed");
    assert_eq!(cat(&rootfs, "/etc/new"), b"new");
    assert_eq!(cat(&rootfs, "/big"), noise(1, 3 << 20));
    assert!(!String::from_utf8_lossy(&debugfs(&rootfs, "ls /etc")).contains("old"));

    assert_eq!(pulled.manifest_digest, digest);
    assert_eq!(pulled.platform, Platform::host());
    assert_eq!((pulled.config.cmd, pulled.config.env), (vec!["/bin/sh".to_owned()], vec!["A=b".to_owned()]));
    assert_eq!(pulled.size, Bytes::gib(1));
    assert_eq!(fs::metadata(&rootfs).unwrap().len(), pulled.size.0);
    assert_eq!(pulled.layers.len(), 3);
    assert!(pulled.content >= Bytes::mib(3) && pulled.content < Bytes::mib(4), "{}", pulled.content);

    assert_eq!(*heard.phases.lock().unwrap(), [Phase::Resolving, Phase::Pulling, Phase::Writing]);
    let (total, done) = (*heard.total.lock().unwrap(), heard.done.lock().unwrap());
    assert_eq!(total, pulled.compressed.0);
    assert!(done.is_sorted(), "{done:?}");
    assert_eq!(done.last(), Some(&total));
}

#[tokio::test]
async fn the_same_manifest_gives_the_same_bytes() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let mut digests = Vec::new();
    for _ in 0..2 {
        let client = Client::new(quick());
        let (_, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
        digests.push(Digest::of(&fs::read(rootfs).unwrap()));
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_layer_without_entries_and_an_image_without_layers() {
    let registry = Registry::start();
    registry.put_image("0", &Image::new(vec![]));
    registry.put_image("1", &Image::new(vec![Layer::plain(vec![]), Layer::gzip(tar(&[]))]));
    let client = Client::new(quick());
    for tag in [":0", ":1"] {
        let (_, rootfs) = client.pull(registry.reference(tag)).await.unwrap();
        check(&rootfs);
    }
}

#[tokio::test]
async fn cached_blobs_need_no_network_and_are_checked() {
    let registry = Registry::start();
    let image = image();
    registry.put_image("1", &image);
    let client = Client::new(quick());
    client.pull(registry.reference(":1")).await.unwrap();
    assert_eq!(registry.requests("/blobs/").len(), 4);
    client.pull(registry.reference(":1")).await.unwrap();
    assert_eq!(registry.requests("/blobs/").len(), 4, "everything is cached");

    let base = Digest::of(&image.layers[0].blob);
    let mut bytes = fs::read(client.blob(&base)).unwrap();
    bytes[1000] ^= 1;
    fs::write(client.blob(&base), &bytes).unwrap();
    let middle = Digest::of(&image.layers[1].blob);
    fs::write(client.blob(&middle), b"short").unwrap();
    let (_, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
    assert_eq!(cat(&rootfs, "/big"), noise(1, 3 << 20));
    assert_eq!(registry.requests("/blobs/").len(), 6, "the damaged ones were fetched again");
}

#[tokio::test]
async fn what_an_earlier_process_left_is_removed() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let client = Client::new(quick());
    client.pull(registry.reference(":1")).await.unwrap();
    let partial = client.folder.path().join("blobs/sha256/abc.0.partial");
    fs::write(&partial, b"x").unwrap();
    Puller::new(client.folder.path().join("blobs"), quick()).unwrap();
    assert!(!partial.exists());
    assert_eq!(client.blobs().len(), 4);
}

#[tokio::test]
async fn two_pulls_share_one_download() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let client = Client::new(quick());
    let (one, two) =
        tokio::join!(client.pull(registry.reference(":1")), client.pull(registry.reference(":1")));
    assert_eq!(fs::read(one.unwrap().1).unwrap(), fs::read(two.unwrap().1).unwrap());
    assert_eq!(registry.requests("/blobs/").len(), 4);
}

#[tokio::test]
async fn a_pull_that_is_cancelled_leaves_nothing_and_hurts_nobody_else() {
    let registry = Registry::start();
    let image = image();
    registry.put_image("1", &image);
    let base = Digest::of(&image.layers[0].blob).to_string();
    // Whoever asks for the base waits until this is open. It may be asked for twice: the patient pull begins again
    // when it comes to it only after the other has gone.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let set = |open: bool| {
        *gate.0.lock().unwrap() = open;
        gate.1.notify_all();
    };
    let waiting = Arc::clone(&gate);
    registry.change(move |request, reply| {
        if request.path.ends_with(&base) {
            drop(waiting.1.wait_while(waiting.0.lock().unwrap(), |open| !*open).unwrap());
        }
        reply
    });
    let client = Client::new(quick());
    let cancel = CancellationToken::new();
    let (cancelled, patient) =
        (client.request(registry.reference(":1")), client.request(registry.reference(":1")));
    let never = CancellationToken::new();
    let both = async {
        let one = client.puller.pull(&cancelled, &Silent, &cancel);
        let two = client.puller.pull(&patient, &Silent, &never);
        let ending = async {
            let error = one.await.unwrap_err();
            assert!(matches!(error, ImageError::Cancelled), "{error}");
            assert_eq!(fs::read_dir(&cancelled.staging).unwrap().count(), 0);
            set(true);
        };
        let cancelling = async {
            while registry.requests("/blobs/").len() < 4 {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        tokio::join!(ending, two, cancelling).1
    };
    both.await.unwrap();
    check(&patient.staging.join("rootfs.ext4"));

    // Alone: its download ends with it.
    set(false);
    let client = Client::new(quick());
    let cancel = CancellationToken::new();
    let request = client.request(registry.reference(":1"));
    let before = registry.requests("/blobs/").len();
    let cancelling = async {
        while registry.requests("/blobs/").len() < before + 4 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(client.puller.pull(&request, &Silent, &cancel), cancelling);
    assert!(matches!(error.unwrap_err(), ImageError::Cancelled));
    client.assert_clean(&request.staging);
    set(true);
}

#[tokio::test]
async fn platforms_are_selected_through_nested_indexes() {
    let registry = Registry::start();
    let digest = registry.put_image("image", &image());
    let manifest = image().manifest();
    let entry = |media_type: &str, digest: &Digest, size: usize| json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
    let host = Platform::host();
    let mut ours = entry(fake::MANIFEST, &digest, manifest.len());
    ours["platform"] = json!({ "os": host.os, "architecture": host.architecture, "variant": host.variant });
    let mut other = entry(fake::MANIFEST, &Digest::of(b"other"), 5);
    other["platform"] = json!({ "os": "plan9", "architecture": "mips" });
    let mut index = json!({ "schemaVersion": 2, "manifests": [other, ours] }).to_string();
    let mut tags = Vec::new();
    for depth in 1..=4 {
        let digest = Digest::of(index.as_bytes());
        for name in [depth.to_string(), digest.to_string()] {
            registry.put(&format!("manifests/{name}"), fake::INDEX, index.as_bytes());
        }
        tags.push(format!(":{depth}"));
        index = json!({ "schemaVersion": 2, "manifests": [entry(fake::INDEX, &digest, index.len())] })
            .to_string();
    }
    let client = Client::new(quick());
    for tag in &tags[..2] {
        let (pulled, _) = client.pull(registry.reference(tag)).await.unwrap();
        assert_eq!(pulled.manifest_digest, digest);
    }
    let error = client.pull(registry.reference(&tags[2])).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { limit: 2, .. })), "{error}");

    let mut request = client.request(registry.reference(":1"));
    request.platform = "linux/s390x".parse().unwrap();
    match client.puller.pull(&request, &Silent, &CancellationToken::new()).await {
        Err(ImageError::Unsupported(Unsupported::Platform { available, .. })) => {
            assert_eq!(available.len(), 2)
        }
        other => panic!("{other:?}"),
    }
    // Without an index the configuration tells.
    request.reference = registry.reference(":image");
    match client.puller.pull(&request, &Silent, &CancellationToken::new()).await {
        Err(ImageError::Unsupported(Unsupported::Platform { available, .. })) => {
            assert_eq!(available, [host])
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_resolved_is_not_asked_again() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let client = Client::new(quick());
    let mut request = client.request(registry.reference(":1"));
    let cancel = CancellationToken::new();
    let resolved =
        client.puller.resolve(&request.reference, &request.platform, None, &Silent, &cancel).await.unwrap();
    assert_eq!(resolved.layers.len(), 3);
    registry.put_image("1", &Image::new(vec![]));
    request.resolved = Some(resolved);
    assert_eq!(client.puller.pull(&request, &Silent, &cancel).await.unwrap().layers.len(), 3);
    assert_eq!(registry.requests("/manifests/").len(), 1);
}

#[tokio::test]
async fn sizes() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let client = Client::new(quick());
    let pull = async |size: Bytes| {
        let mut request = client.request(registry.reference(":1"));
        request.size = Some(size);
        let pulled = client.puller.pull(&request, &Silent, &CancellationToken::new()).await;
        pulled.inspect_err(|_| client.assert_clean(&request.staging)).map(|pulled| (pulled, request.staging))
    };
    let (pulled, staging) = pull(Bytes::mib(300)).await.unwrap();
    assert_eq!(pulled.size, Bytes::mib(300));
    check(&staging.join("rootfs.ext4"));
    let Err(ImageError::InvalidSize { least, .. }) = pull(Bytes::mib(3)).await else {
        panic!("3 MiB cannot do")
    };
    assert!(least > Bytes::mib(3), "{least}");
    let (_, staging) = pull(least).await.unwrap();
    check(&staging.join("rootfs.ext4"));
    for absurd in [Bytes(0), Bytes::gib((16 << 10) + 1), Bytes(u64::MAX)] {
        assert!(matches!(pull(absurd).await, Err(ImageError::InvalidSize { .. })), "{absurd}");
    }
}

#[tokio::test]
async fn no_room_is_known_before_anything_is_fetched() {
    let registry = Registry::start();
    let mut image = image();
    image.manifest["layers"][0]["size"] = json!(1u64 << 50);
    registry.put_image("1", &image);
    let client = Client::new(Limits { compressed: Bytes(u64::MAX), ..quick() });
    let error = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::NoSpace { needed: Some(_), .. }), "{error}");
    assert_eq!(registry.requests("/blobs/").len(), 1, "only the configuration");
}

#[tokio::test]
async fn hostile_layers_leave_nothing() {
    let registry = Registry::start();
    let client = Client::new(Limits {
        unpacked: Bytes::mib(8),
        ratio: 50,
        ratio_from: Bytes::mib(1),
        entries: 20,
        path: 90,
        ..quick()
    });
    let many: Vec<(String, &[u8])> = (0..21).map(|n| (format!("f{n}"), b"" as &[u8])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, body)| (name.as_str(), *body)).collect();
    let cut = |mut layer: Layer, by: usize| {
        layer.blob.truncate(layer.blob.len() - by);
        layer
    };
    let half = tar(&[("a", &[1; 5000])]);
    let mut half = Layer::gzip(half[..3000].to_vec());
    half.tar.truncate(3000);
    let long = format!("{}/x", "p/".repeat(45));
    for (why, layer) in [
        ("\"..\"", Layer::plain(tar(&[("a/../../etc/passwd", b"x")]))),
        ("\"..\"", Layer::gzip(tar(&[("../x", b"x")]))),
        ("below it", Layer::gzip(tar(&[("a", b"x"), ("a/b", b"x")]))),
        ("number of files", Layer::gzip(tar(&many))),
        ("length of a path", Layer::gzip(tar(&[(&long, b"")]))),
        ("compression ratio", Layer::gzip(tar(&[("bomb", &vec![0; 4 << 20])]))),
        ("compression ratio", Layer::zstd(tar(&[("bomb", &vec![0; 4 << 20])]))),
        ("unpacked size", Layer::plain(tar(&[("large", &noise(2, 9 << 20))]))),
        ("compressed data ends early", cut(Layer::gzip(tar(&[("a", b"x")])), 12)),
        ("cannot be unpacked", {
            let mut l = Layer::gzip(tar(&[("a", b"x")]));
            // A block type that there is not (RFC 1951, section 3.2.3).
            l.blob[10] = 0xff;
            l
        }),
        ("ends early", half),
        ("checksum", Layer::plain(vec![b'1'; 1024])),
    ] {
        registry.put_image("1", &Image::new(vec![layer]));
        let error = client.pull(registry.reference(":1")).await.unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(_)), "{why}: {error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let name = "n".repeat(99);
    for (why, layer) in [
        ("is not known", Layer { media_type: "text/plain".into(), ..Layer::plain(vec![]) }),
        (
            "foreign layer",
            Layer {
                media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
                ..Layer::plain(vec![])
            },
        ),
        ("x-xz", Layer::plain(b"\xfd7zXZ\0...".to_vec())),
        ("at most 30 bytes", Layer::plain(tar(&[(&name, b"")]))),
    ] {
        let client = Client::new(Limits { name: 30, ..quick() });
        registry.put_image("1", &Image::new(vec![layer]));
        let error = client.pull(registry.reference(":1")).await.unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(_)), "{why}: {error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn documents_that_lie() {
    let registry = Registry::start();
    let client = Client::new(quick());

    let mut image = image();
    image.config["rootfs"]["diff_ids"][1] = json!(Digest::of(b"other").to_string());
    image.describe();
    registry.put_image("1", &image);
    match client.pull(registry.reference(":1")).await.unwrap_err() {
        ImageError::DigestMismatch { what, .. } => assert!(what.contains("archive in layer"), "{what}"),
        other => panic!("{other}"),
    }

    image.config["rootfs"]["diff_ids"] = json!([]);
    image.describe();
    registry.put_image("1", &image);
    let error = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(Unsafe::Document { .. })), "{error}");

    image.manifest["layers"] = json!([]);
    image.manifest["config"]["size"] = json!(3);
    registry.put_image("1", &image);
    let error = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe(Unsafe::Length { declared: 3, .. })), "{error}");
}

#[tokio::test]
async fn a_failing_disk_is_told() {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let client = Client::new(quick());
    let mut request = client.request(registry.reference(":1"));
    request.staging = client.folder.path().join("not-there");
    match client.puller.pull(&request, &Silent, &CancellationToken::new()).await {
        Err(ImageError::Io { path, .. }) => assert!(path.ends_with("not-there/rootfs.ext4")),
        other => panic!("{other:?}"),
    }
    // What is there already is not overwritten, nor removed.
    let request = client.request(registry.reference(":1"));
    fs::write(request.staging.join("rootfs.ext4"), b"mine").unwrap();
    assert!(client.puller.pull(&request, &Silent, &CancellationToken::new()).await.is_err());
    assert_eq!(fs::read(request.staging.join("rootfs.ext4")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let registry = Registry::start();
    let image = image();
    registry.put_image("1", &image);
    let base = Digest::of(&image.layers[0].blob).to_string();
    registry.change(move |request, reply| match request.path.ends_with(&base) {
        true => fake::Reply { cut: Some(1000), stall: true, ..reply },
        false => reply,
    });
    let client = std::sync::Arc::new(Client::new(quick()));
    let request = client.request(registry.reference(":1"));
    let staging = request.staging.clone();
    let pulling = std::sync::Arc::clone(&client);
    let task = tokio::spawn(async move {
        let _ = pulling.puller.pull(&request, &Silent, &CancellationToken::new()).await;
    });
    let partial = |client: &Client| client.blobs().iter().any(|name| name.ends_with(".partial"));
    while !(staging.join("rootfs.ext4").exists() && partial(&client)) {
        tokio::task::yield_now().await;
    }
    task.abort();
    while staging.join("rootfs.ext4").exists() || partial(&client) {
        tokio::task::yield_now().await;
    }
    client.assert_clean(&staging);
}

#[tokio::test]
async fn metadata_arrives_in_the_filesystem() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: ::tar::EntryType, extensions: &[(&str, &[u8])]| {
        builder.append_pax_extensions(extensions.iter().copied()).unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o4711);
        header.set_uid(0);
        header.set_gid(42);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header.set_device_major(7).unwrap();
        header.set_device_minor(300).unwrap();
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    add(
        "su",
        ::tar::EntryType::Regular,
        &[
            ("uid", b"3000000000"),
            ("mtime", b"8000000000.123456789"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.com.apple.quarantine", b"not for Linux"),
        ],
    );
    add("loop", ::tar::EntryType::Block, &[]);
    add("pipe", ::tar::EntryType::Fifo, &[]);
    let registry = Registry::start();
    registry.put_image("1", &Image::new(vec![Layer::gzip(builder.into_inner().unwrap())]));
    let client = Client::new(quick());
    let (_, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
    check(&rootfs);
    let stat = |name: &str| String::from_utf8_lossy(&debugfs(&rootfs, &format!("stat {name}"))).into_owned();
    let su = stat("su");
    // debugfs shows owners as signed numbers.
    for part in ["Mode:  04711", "User: -1294967296", "Group:    42", "security.capability (20)"] {
        assert!(su.contains(part), "{part}: {su}");
    }
    assert!(!su.contains("quarantine"), "{su}");
    // The extra field holds the seconds' bits above 32, counted from a signed low half, and 4 times the nanoseconds.
    assert!(su.contains("mtime: 0xdcd65000:1d6f3456"), "{su}");
    assert!(
        stat("loop").contains("Type: block special") && stat("loop").contains("07:300"),
        "{}",
        stat("loop")
    );
    assert!(stat("pipe").contains("Type: FIFO"));
}

#[tokio::test]
async fn what_ext4_cannot_hold_is_told_with_its_name() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let value = vec![b'v'; 5000];
    builder.append_pax_extensions([("SCHILY.xattr.user.large", value.as_slice())]).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(0);
    builder.append_data(&mut header, "etc/large", std::io::empty()).unwrap();
    let registry = Registry::start();
    registry.put_image("1", &Image::new(vec![Layer::plain(builder.into_inner().unwrap())]));
    match Client::new(quick()).pull(registry.reference(":1")).await {
        Err(ImageError::Unsupported(Unsupported::Entry { name, .. })) => assert_eq!(name, "large"),
        other => panic!("{other:?}"),
    }
}
