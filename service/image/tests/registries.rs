//! Credentials, scopes and mirrors: who is shown what, and who gets what.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

mod fake;

use banger_image::{Digest, ImageError, Limits};
use banger_model::Credentials;
use fake::{Client, Image, Layer, Registry, Reply, noise, quick, tar};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// base64 of `alice:sesame`.
const BASIC: &str = "Basic YWxpY2U6c2VzYW1l";
const LARGE: usize = 4 << 20;

fn image() -> Image {
    Image::new(vec![Layer::plain(tar(&[("big", &noise(7, LARGE))]))])
}

fn layer() -> Digest {
    Digest::of(&image().layers[0].blob)
}

fn password() -> Credentials {
    Credentials::Password { username: "alice".into(), password: "sesame".into() }
}

fn start() -> Registry {
    let registry = Registry::start();
    registry.put_image("1", &image());
    registry
}

fn shown(request: &fake::Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

/// A registry that wants this header, and answers with this challenge until it gets it.
fn wanting(header: &'static str, challenge: impl Fn(&str) -> String + Send + Sync + 'static) -> Registry {
    let registry = start();
    registry.change(move |request, reply| match shown(request) {
        Some(value) if value == header => reply,
        _ => Reply::new(401, "").header("WWW-Authenticate", challenge(&request.headers["host"])),
    });
    registry
}

/// No request shows anything.
fn assert_shown_nothing(registry: &Registry) {
    for request in registry.requests("/") {
        assert_eq!(shown(&request), None, "{}", request.path);
    }
}

#[tokio::test]
async fn a_password_is_shown_when_it_is_asked_for() {
    let registry = wanting(BASIC, |_| "Basic realm=\"test\"".into());
    let client = Client::new(quick());
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert_eq!(shown(&registry.requests("/manifests/")[0]), None, "not unasked");
    let denied = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(denied, ImageError::RegistryDenied { shown: false, .. }), "{denied}");
    assert!(denied.to_string().contains("podman login 127.0.0.1:"), "{denied}");
    let wrong = Credentials::Password { username: "alice".into(), password: "hushed".into() };
    let denied = client.pull_as(registry.reference(":1"), 1000, wrong).await.unwrap_err();
    assert!(matches!(denied, ImageError::RegistryDenied { shown: true, .. }), "{denied}");
    assert!(!format!("{denied} {denied:?}").contains("hushed"), "{denied:?}");
}

#[tokio::test]
async fn a_registry_that_asks_for_nothing_is_shown_nothing() {
    let registry = start();
    Client::new(quick()).pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert_shown_nothing(&registry);
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let registry = wanting("Bearer given", |_| "Bearer realm=\"https://192.0.2.1/token\"".into());
    let token = Credentials::Registry { registry_token: "given".into() };
    Client::new(quick()).pull_as(registry.reference(":1"), 1000, token).await.unwrap();
}

/// A registry with a token server of its own; `give` answers who asks it.
fn with_tokens(give: impl Fn(&fake::Request) -> Reply + Send + Sync + 'static) -> Registry {
    let registry = start();
    registry.change(move |request, reply| {
        let host = &request.headers["host"];
        match (request.path.starts_with("/token"), shown(request)) {
            (true, _) => give(request),
            (false, Some("Bearer good")) => reply,
            _ => Reply::new(401, "")
                .header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\",service=\"s\"")),
        }
    });
    registry
}

#[tokio::test]
async fn a_password_and_a_refresh_token_get_a_token() {
    let good = || Reply::new(200, r#"{"access_token":"good"}"#);
    let registry = with_tokens(move |request| match (request.method.as_str(), shown(request)) {
        ("GET", Some(BASIC)) => good(),
        _ => Reply::new(401, ""),
    });
    let client = Client::new(quick());
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert_eq!(registry.requests("/token").len(), 1, "one for all downloads");
    assert!(registry.requests("/v2/").iter().all(|request| shown(request) != Some(BASIC)));

    let registry = with_tokens(move |request| {
        let fields: Vec<&str> = request.body.split('&').collect();
        let expected = [
            "grant_type=refresh_token",
            "client_id=banger",
            "refresh_token=re+fresh%26x",
            "service=s",
            "scope=repository%3Aapp%3Apull",
        ];
        match request.method == "POST" && expected.iter().all(|field| fields.contains(field)) {
            true if !request.path.contains("fresh") => good(),
            _ => Reply::new(400, format!("{fields:?}")),
        }
    });
    let identity = |token: &str| Credentials::Identity { identity_token: token.into() };
    client.pull_as(registry.reference(":1"), 1001, identity("re fresh&x")).await.unwrap();
    let denied = client.pull_as(registry.reference(":1"), 1001, identity("expired")).await.unwrap_err();
    assert!(matches!(denied, ImageError::RegistryDenied { shown: true, .. }), "{denied}");
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_replaced_once() {
    let registry = start();
    let layer = layer().to_string();
    registry.change(move |request, reply| {
        let host = &request.headers["host"];
        let wanted = if request.path.ends_with(&layer) { "Bearer 2" } else { "Bearer 1" };
        match (request.path.starts_with("/token"), shown(request)) {
            (true, _) => Reply::new(200, format!(r#"{{"token":"{}"}}"#, request.earlier + 1)),
            (false, Some(value)) if value == wanted => reply,
            _ => Reply::new(401, "")
                .header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\"")),
        }
    });
    Client::new(quick()).pull(registry.reference(":1")).await.unwrap();
    assert_eq!(registry.requests("/token").len(), 2);
}

#[tokio::test]
async fn a_store_behind_a_redirect_is_shown_nothing() {
    let store = start();
    let registry = wanting(BASIC, |_| "Basic realm=\"test\"".into());
    let to = store.address;
    registry.change(move |request, reply| match (shown(request), request.path.contains("/blobs/")) {
        (Some(BASIC), true) => Reply::new(307, "").header("Location", format!("http://{to}{}", request.path)),
        (Some(BASIC), false) => reply,
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\""),
    });
    let client = Client::new(quick());
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert!(!store.requests("/blobs/").is_empty());
    assert_shown_nothing(&store);
    // Not even when it asks.
    store.change(|_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\""));
    let error = Client::new(quick()).pull_as(registry.reference(":1"), 1000, password()).await.unwrap_err();
    assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
    assert_shown_nothing(&store);
}

#[tokio::test]
async fn a_token_server_that_redirects_gives_nothing_away() {
    let elsewhere = start();
    let to = elsewhere.address;
    for credentials in [password(), Credentials::Identity { identity_token: "refresh".into() }] {
        let registry =
            with_tokens(move |_| Reply::new(307, "").header("Location", format!("http://{to}/token")));
        let error =
            Client::new(quick()).pull_as(registry.reference(":1"), 1000, credentials).await.unwrap_err();
        assert!(matches!(error, ImageError::RegistryUnavailable { .. }), "{error}");
    }
    assert!(elsewhere.requests("/").is_empty());
}

#[tokio::test]
async fn what_came_with_credentials_is_its_owners_alone() {
    let registry = wanting(BASIC, |_| "Basic realm=\"test\"".into());
    let client = Client::new(quick());
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    let downloads = || registry.requests("/blobs/").iter().filter(|r| shown(r) == Some(BASIC)).count();
    assert_eq!(downloads(), 2);
    let hex = layer().hex().to_owned();
    let cached = |scope: &str| client.folder.path().join(format!("blobs/{scope}sha256/{hex}")).exists();
    assert!(cached("users/1000/") && !cached(""));
    // Another owner fetches anew; the same one does not.
    client.pull_as(registry.reference(":1"), 1001, password()).await.unwrap();
    assert_eq!(downloads(), 4);
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert_eq!(downloads(), 4);
    // Nobody's pull of the same blobs from elsewhere finds them.
    let open = start();
    client.pull(open.reference(":1")).await.unwrap();
    assert_eq!(open.requests("/blobs/").len(), 2);
    // What everybody has is good enough for an owner.
    let third = client.pull_as(registry.reference(":1"), 1002, password());
    third.await.unwrap();
    assert_eq!(downloads(), 4);
}

#[tokio::test]
async fn downloads_are_shared_within_a_scope() {
    let registry = wanting(BASIC, |_| "Basic realm=\"test\"".into());
    let client = Client::new(quick());
    let pull = |owner| client.pull_as(registry.reference(":1"), owner, password());
    let (one, two, other) = tokio::join!(pull(1000), pull(1000), pull(1001));
    for pulled in [one, two, other] {
        pulled.unwrap();
    }
    let whole = registry.requests("/blobs/").into_iter().filter(|r| shown(r) == Some(BASIC));
    assert_eq!(whole.count(), 4, "twice each, not three times");
}

fn mirrored(registry: &Registry, mirrors: &[&Registry]) -> Client {
    let mirrors: Vec<String> = mirrors.iter().map(|mirror| format!("\"{}\"", mirror.address)).collect();
    let text =
        format!("[[registry]]\nprefix = \"{}\"\nmirrors = [{}]\n", registry.address, mirrors.join(", "));
    Client::saying(&text)
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_shown_nothing() {
    let (registry, mirror) = (wanting(BASIC, |_| "Basic realm=\"test\"".into()), start());
    let client = mirrored(&registry, &[&mirror]);
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert!(registry.requests("/").is_empty(), "the mirror has it all");
    assert_shown_nothing(&mirror);
    // One that asks for something is passed over.
    mirror.change(|_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""));
    let client = mirrored(&registry, &[&mirror]);
    client.pull_as(registry.reference(":1"), 1000, password()).await.unwrap();
    assert_shown_nothing(&mirror);
}

/// Pulls through a mirror whose answers are changed, which has to work. How often mirror and registry were asked for the
/// layer.
async fn survives(change: impl Fn(&fake::Request, Reply) -> Reply + Send + Sync + 'static) -> [usize; 2] {
    let (registry, mirror) = (start(), start());
    mirror.change(change);
    let client = mirrored(&registry, &[&mirror]);
    let (_, rootfs) = client.pull(registry.reference(":1")).await.unwrap();
    fake::check(&rootfs);
    assert_eq!(fake::cat(&rootfs, "/big"), noise(7, LARGE));
    let layer = layer().to_string();
    [mirror.requests(&layer).len(), registry.requests(&layer).len()]
}

#[tokio::test]
async fn whatever_is_wrong_with_a_mirror_does_not_break_a_pull() {
    let of_layer = |request: &fake::Request| request.path.ends_with(&layer().to_string());
    assert_eq!(survives(|_, reply| reply).await, [1, 0]);
    assert_eq!(survives(|_, _| Reply::new(404, "")).await, [1, 1]);
    assert_eq!(survives(|_, _| Reply::new(500, "")).await, [0, 1], "asked once and no more");
    assert_eq!(survives(|_, _| Reply::new(200, "<html>")).await, [0, 1]);
    let missing = move |request: &fake::Request, reply| match of_layer(request) {
        true => Reply::new(404, ""),
        false => reply,
    };
    assert_eq!(survives(missing).await, [1, 1]);
    let broken = move |request: &fake::Request, reply| match of_layer(request) {
        true => Reply { cut: Some(LARGE / 2), ..reply },
        false => reply,
    };
    assert_eq!(survives(broken).await, [1, 1]);
    // Of the right length, and known to be wrong only when they have been used.
    let size = image().layers[0].blob.len();
    let wrong = move |request: &fake::Request, reply| match of_layer(request) {
        true => Reply::new(200, noise(9, size)),
        false => reply,
    };
    assert_eq!(survives(wrong).await, [1, 1]);
    let another = tar(&[("../../evil", &noise(9, LARGE))]);
    let hostile = move |request: &fake::Request, reply| match of_layer(request) {
        true => Reply::new(200, another.clone()),
        false => reply,
    };
    assert_eq!(survives(hostile).await, [1, 1]);
}

#[tokio::test]
async fn a_mirror_that_breaks_off_is_followed_by_the_next() {
    let [registry, broken, good] = [start(), start(), start()];
    let of_layer = layer().to_string();
    broken.change(move |request, reply| match request.path.ends_with(&of_layer) {
        true => Reply { cut: Some(LARGE / 2), ..reply },
        false => reply,
    });
    let client = mirrored(&registry, &[&broken, &good]);
    client.pull(registry.reference(":1")).await.unwrap();
    let layer = layer().to_string();
    assert_eq!(good.requests(&layer)[0].range(), Some(LARGE / 2), "from where the first ended");
    assert!(registry.requests("/").is_empty());
}

#[tokio::test]
async fn a_mirror_that_is_not_there_costs_nothing() {
    let registry = start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let text = format!("[[registry]]\nprefix = \"{}/app\"\nmirrors = [\"{nobody}/app\"]", registry.address);
    Client::saying(&text).pull(registry.reference(":1")).await.unwrap();
}

#[tokio::test]
async fn a_registry_says_when_to_come_again() {
    // A date in the past and a number of zero mean now; were they not read, the backoff of an hour would be waited for.
    let limits = Limits { backoff: Duration::from_secs(3600), ..quick() };
    let registry = start();
    registry.change(|request, reply| match (request.path.contains("/blobs/"), request.earlier) {
        (true, 0) => Reply::new(429, "").header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
        (true, 1) | (false, 0) => Reply::new(503, "").header("Retry-After", "0"),
        _ => reply,
    });
    // The longest backoff of banger's own is ten seconds.
    let before = SystemTime::now();
    Client::new(limits).pull(registry.reference(":1")).await.unwrap();
    assert!(before.elapsed().unwrap() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_registry_that_takes_the_request_and_says_nothing_is_asked_again() {
    let limits = Limits { stall: Duration::from_millis(300), ..quick() };
    let registry = start();
    let silent: Arc<Mutex<Vec<std::sync::mpsc::Sender<()>>>> = Arc::default();
    let held = Arc::clone(&silent);
    registry.change(move |request, reply| {
        if request.path.contains("/manifests/") && request.earlier == 0 {
            // Until the test ends: the client gives up before.
            let (hold, wait) = std::sync::mpsc::channel();
            held.lock().unwrap().push(hold);
            let _ = wait.recv();
        }
        reply
    });
    Client::new(limits).pull(registry.reference(":1")).await.unwrap();
    assert_eq!(registry.requests("/manifests/").len(), 2);
    silent.lock().unwrap().clear();
}

#[tokio::test]
async fn a_mistake_in_what_is_said_stops_every_pull() {
    let registry = start();
    let client = Client::saying("[[registry]]\nprefix = 'a.example'\nmiror = []\n");
    let error = client.pull(registry.reference(":1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Configuration { line: Some(3), .. }), "{error}");
    assert!(registry.requests("/").is_empty());
}
