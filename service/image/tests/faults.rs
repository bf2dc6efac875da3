//! Registries that break, refuse and lie.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

mod fake;

use banger_image::{Digest, ImageError, Limits, Unsafe};
use fake::{Client, Image, Layer, Registry, Reply, cat, check, noise, quick, tar};
use std::time::Duration;

const LARGE: usize = 4 << 20;

fn image() -> Image {
    Image::new(vec![Layer::plain(tar(&[("big", &noise(7, LARGE))]))])
}

fn layer() -> String {
    Digest::of(&image().layers[0].blob).to_string()
}

/// Pulls through a registry whose answers for the layer are changed, which has to work.
async fn survives(
    change: impl Fn(usize, Reply) -> Reply + Send + Sync + 'static,
    limits: Limits,
) -> Registry {
    let registry = Registry::start();
    registry.put_image("1", &image());
    let layer = layer();
    registry.change(move |request, reply| match request.path.ends_with(&layer) {
        true => change(request.earlier, reply),
        false => reply,
    });
    let client = Client::new(limits);
    let (_, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
    check(&rootfs);
    assert_eq!(cat(&rootfs, "/big"), noise(7, LARGE));
    registry
}

/// The error of a pull through a registry whose answers are changed.
async fn fails(change: impl Fn(&fake::Request, Reply) -> Reply + Send + Sync + 'static) -> ImageError {
    let registry = Registry::start();
    registry.put_image("1", &image());
    registry.change(change);
    Client::new(quick()).pull(registry.reference(":1")).await.unwrap_err()
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_ended() {
    let cut = |earlier, reply| match earlier {
        0 => Reply { cut: Some(LARGE / 2), ..reply },
        1 => Reply { cut: Some(10), ..reply },
        _ => reply,
    };
    let registry = survives(cut, quick()).await;
    let ranges: Vec<Option<usize>> = registry.requests(&layer()).iter().map(|r| r.range()).collect();
    assert_eq!(ranges, [None, Some(LARGE / 2), Some(LARGE / 2 + 10)]);
}

#[tokio::test]
async fn a_registry_without_ranges_starts_again() {
    let body = image().layers[0].blob.clone();
    let change = move |earlier, reply| match earlier {
        0 => Reply { cut: Some(LARGE / 2), ..reply },
        _ => Reply::new(200, body.clone()),
    };
    assert_eq!(survives(change, quick()).await.requests(&layer()).len(), 2);
}

#[tokio::test]
async fn a_stalled_connection_is_given_up_and_goes_on() {
    let limits = Limits { stall: Duration::from_millis(300), ..quick() };
    let stall = |earlier, reply| match earlier {
        0 => Reply { cut: Some(LARGE / 3), stall: true, ..reply },
        _ => reply,
    };
    let registry = survives(stall, limits).await;
    assert_eq!(registry.requests(&layer())[1].range(), Some(LARGE / 3));
}

#[tokio::test]
async fn busy_registries_are_asked_again() {
    let busy = |earlier, reply| match earlier {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, "").header("Retry-After", "0"),
        2 => Reply::new(500, ""),
        _ => reply,
    };
    assert_eq!(survives(busy, quick()).await.requests(&layer()).len(), 4);
}

#[tokio::test]
async fn a_chunked_blob_is_as_good() {
    survives(|_, reply| Reply { chunked: true, ..reply }, quick()).await;
}

#[tokio::test]
async fn attempts_are_bounded() {
    let error = fails(|request, reply| match request.path.contains("/blobs/") {
        true => Reply { cut: Some(1), ..reply },
        false => reply,
    })
    .await;
    assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
    let error = fails(|_, _| Reply::new(502, "")).await;
    assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("502"), "{error}");
}

#[tokio::test]
async fn blobs_that_are_not_what_they_should_be() {
    let wrong = noise(8, image().layers[0].blob.len());
    let one_more = [image().layers[0].blob.as_slice(), b"x"].concat();
    let one_less = image().layers[0].blob[1..].to_vec();
    let size = image().layers[0].blob.len() as u64;
    for (body, chunked, length) in [
        (wrong, false, None),
        (one_more.clone(), false, Some(size + 1)),
        (one_more, true, Some(size + 1)),
        (one_less.clone(), false, Some(size - 1)),
        (one_less, true, Some(size - 1)),
    ] {
        let layer = layer();
        let error = fails(move |request, reply| match request.path.ends_with(&layer) {
            true => Reply { chunked, ..Reply::new(200, body.clone()) },
            false => reply,
        })
        .await;
        match (&error, length) {
            (ImageError::DigestMismatch { .. }, None) => {}
            (ImageError::Unsafe(Unsafe::Length { declared, actual, .. }), Some(length)) => {
                assert_eq!((*declared, *actual), (size, length));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let layer = layer();
    let error = fails(move |request, reply| match request.path.ends_with(&layer) {
        true if request.earlier == 0 => Reply { cut: Some(100), ..reply },
        true => Reply::new(206, "x").header("Content-Range", "bytes 4000000-4000000/4195328"),
        false => reply,
    })
    .await;
    assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn manifests_are_checked() {
    let digest = Digest::of(image().manifest().as_bytes());
    let registry = Registry::start();
    registry.put_image("1", &image());
    registry.put(&format!("manifests/{digest}"), fake::MANIFEST, b"{}");
    let client = Client::new(quick());
    let by_digest = registry.reference(&format!("@{digest}"));
    let error = client.pull(by_digest).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let promised = Digest::of(b"other").to_string();
    let error = fails(move |_, reply| reply.header("Docker-Content-Digest", promised.clone())).await;
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    for chunked in [false, true] {
        let error = fails(move |_, _| Reply { chunked, ..Reply::new(200, vec![b' '; (4 << 20) + 1]) }).await;
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { .. })), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_and_kept_secret() {
    const SECRET: &str = "c2VjcmV0";
    let registry = Registry::start();
    registry.put_image("1", &image());
    let address = registry.address;
    registry.change(move |request, reply| {
        if request.path.starts_with("/token?") {
            assert!(request.path.contains("scope=repository%3Aapp%3Apull"), "{}", request.path);
            assert!(request.path.contains("service=test"), "{}", request.path);
            return Reply::new(200, format!(r#"{{"token":"{SECRET}","expires_in":300}}"#));
        }
        match request.headers.get("authorization").map(String::as_str) {
            Some(value) if value == format!("Bearer {SECRET}") => reply,
            _ => Reply::new(401, "").header(
                "WWW-Authenticate",
                format!(
                    r#"Bearer realm="http://{address}/token",service="test",scope="repository:app:pull""#
                ),
            ),
        }
    });
    let client = Client::new(quick());
    client.pull(registry.reference(":1")).await.unwrap();
    assert_eq!(registry.requests("/token").len(), 1);

    // A token that does not help.
    let error = fails(move |request, _| match request.path.starts_with("/token") {
        true => Reply::new(200, format!(r#"{{"access_token":"{SECRET}"}}"#)),
        false => {
            let host = &request.headers["host"];
            Reply::new(401, "").header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#))
        }
    })
    .await;
    assert!(matches!(error, ImageError::RegistryDenied { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains(SECRET));
}

#[tokio::test]
async fn refusals_by_kind() {
    for (status, header, variant) in [
        (404, None, "NotFound"),
        (403, None, "RegistryDenied"),
        (401, None, "RegistryDenied"),
        (401, Some("Basic realm=\"x\""), "RegistryDenied"),
        (401, Some("Bearer realm=\"http://192.0.2.1/token\""), "RegistryUnavailable"),
        (401, Some("Bearer realm=\"file:///etc/passwd\""), "RegistryUnavailable"),
        (418, None, "RegistryUnavailable"),
    ] {
        let error = fails(move |_, _| {
            let reply = Reply::new(status, "");
            header.map_or(reply.clone(), |header| reply.header("WWW-Authenticate", header))
        })
        .await;
        assert!(format!("{error:?}").starts_with(variant), "{status} {header:?}: {error:?}");
    }
    let layer = layer();
    let error = fails(move |request, reply| match request.path.ends_with(&layer) {
        true => Reply::new(404, ""),
        false => reply,
    })
    .await;
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn redirects_stay_on_this_machine() {
    let store = Registry::start();
    store.put_image("1", &image());
    let to = store.address;
    let elsewhere = Registry::start();
    elsewhere.put_image("1", &image());
    elsewhere.change(move |request, reply| match request.path.contains("/blobs/") {
        true => Reply::new(307, "").header("Location", format!("http://{to}{}", request.path)),
        false => reply,
    });
    Client::new(quick()).pull(elsewhere.reference(":1")).await.unwrap();
    let error = fails(|_, _| Reply::new(302, "").header("Location", "http://192.0.2.1/x")).await;
    match &error {
        ImageError::RegistryUnavailable { why, .. } => assert!(why.contains("without TLS"), "{why}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/app:1", free.local_addr().unwrap()).parse().unwrap();
    drop(free);
    let error = Client::new(quick()).pull(reference).await.unwrap_err();
    match &error {
        ImageError::RegistryUnavailable { registry, why } => {
            assert!(registry.starts_with("127.0.0.1:"));
            assert!(why.contains("cannot connect"), "{why}");
        }
        other => panic!("{other}"),
    }
}
