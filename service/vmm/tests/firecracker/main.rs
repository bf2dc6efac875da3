//! The client of Firecracker's API against a script that has the real one's rules.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod script;
mod server;

use banger_model::{Bytes, Cpus, MachineSize};
use banger_vmm::firecracker::{self, Request, Setup, SnapshotCreate, State, Step, Version};
use banger_vmm::{Api, ApiError, Control, ControlError, IoLimits, RunState, VmmKind};
use proptest::prelude::*;
use script::{Phase, Script};
use server::{Server, answer_once};
use tokio::net::UnixStream;

const NEW: &str = "1.17.0";

fn setup() -> Setup {
    Setup {
        size: MachineSize { cpus: Cpus(2), memory: Bytes::mib(256), disk: Bytes::gib(1) },
        writable: vec![true, false],
        tap: "bngr1".into(),
        mac: [2, 0xba, 0x6e, 0, 0, 1],
        cid: 4,
        limits: IoLimits { disk: Some(Bytes::mib(10)), network: Some(Bytes::mib(1)) },
    }
}

async fn api(server: &Server) -> Api {
    Api::connect(UnixStream::connect(&server.socket).await.unwrap()).await.unwrap()
}

fn root_or_me() -> u32 {
    rustix::process::getuid().as_raw()
}

#[tokio::test]
async fn a_life_from_start_over_pause_and_snapshot_to_restore() {
    let server = Server::start(Script::new(NEW));
    let mut control = Control::connect(VmmKind::Firecracker, &server.socket, root_or_me()).await.unwrap();
    assert_eq!(control.version().await.unwrap(), NEW);
    assert_eq!(control.state().await.unwrap(), RunState::Other("not started".into()));
    let Control::Firecracker(api) = &mut control else { panic!("a QEMU") };
    let version = api.at_least(Version::OLDEST).await.unwrap();
    api.all(&firecracker::boot(&setup(), version)).await.unwrap();
    assert_eq!(control.state().await.unwrap(), RunState::Running);
    let memory = control.memory().await.unwrap();
    assert_eq!((memory.total, memory.free), (Some(Bytes(2_097_152)), Some(Bytes(1_048_576))));
    control.pause().await.unwrap();
    control.pause().await.unwrap();
    assert_eq!(control.state().await.unwrap(), RunState::Paused);
    let Control::Firecracker(api) = &mut control else { panic!("a QEMU") };
    api.save().await.unwrap();
    control.resume().await.unwrap();
    control.power_down().await.unwrap();

    let restored = Server::start(Script::new(NEW));
    let mut api = self::api(&restored).await;
    api.at_least(Version::OVERRIDES).await.unwrap();
    api.all(&firecracker::load("bngr9")).await.unwrap();
    assert_eq!(restored.script.lock().unwrap().phase, Phase::Paused);
    api.resume().await.unwrap();
    assert_eq!(api.state().await.unwrap(), RunState::Running);
    assert!(api.guest_memory().await.is_ok(), "the balloon came with the snapshot");
}

#[tokio::test]
async fn each_request_that_fails_is_told_by_its_step() {
    let boot = firecracker::boot(&setup(), Version::REPORTING);
    for (number, request) in boot.iter().enumerate() {
        let mut script = Script::new(NEW);
        script.failing = Some(number);
        let server = Server::start(script);
        let error = api(&server).await.all(&boot).await.unwrap_err();
        let ApiError::Refused { step, status, fault } = &error else { panic!("{error}") };
        assert_eq!((*step, *status), (Step::of(request), 400));
        assert!(fault.contains("told to fail"), "{fault}");
        let accepted = server.script.lock().unwrap().accepted.len();
        assert_eq!(accepted, number, "nothing is asked after a refusal");
    }
}

#[tokio::test]
async fn what_comes_at_the_wrong_time_is_refused_as_firecracker_does() {
    let server = Server::start(Script::new(NEW));
    let mut api = api(&server).await;
    let boot = firecracker::boot(&setup(), Version::REPORTING);
    let start = boot.last().unwrap();
    let message = |error: ApiError| match error {
        ApiError::Refused { fault, .. } => fault,
        other => panic!("{other}"),
    };
    assert!(message(api.ask(start).await.unwrap_err()).contains("without kernel configuration"));
    assert!(message(api.pause().await.unwrap_err()).contains("not supported before starting"));
    assert!(message(api.ctrl_alt_del().await.unwrap_err()).contains("not supported before starting"));
    assert!(message(api.guest_memory().await.unwrap_err()).contains("not supported before starting"));
    api.all(&boot).await.unwrap();
    for request in &boot {
        assert!(message(api.ask(request).await.unwrap_err()).contains("not supported after starting"));
    }
    assert!(message(api.save().await.unwrap_err()).contains("not paused"));
    let late = firecracker::load("bngr9").pop().unwrap();
    assert!(message(api.ask(&late).await.unwrap_err()).contains("not supported after starting"));

    let configured = Server::start(Script::new(NEW));
    let mut api = self::api(&configured).await;
    api.all(&boot[..4]).await.unwrap();
    assert!(message(api.ask(&late).await.unwrap_err()).contains("boot-specific resources"));
}

#[tokio::test]
async fn an_old_one_is_not_asked_for_what_it_does_not_know() {
    let server = Server::start(Script::new("1.10.1"));
    let mut api = api(&server).await;
    let version = api.at_least(Version::OLDEST).await.unwrap();
    let error = api.at_least(Version::OVERRIDES).await.unwrap_err().to_string();
    assert!(error.contains("1.10.1") && error.contains("1.12.0"), "{error}");
    api.all(&firecracker::boot(&setup(), version)).await.unwrap();

    let older = Server::start(Script::new("1.7.0"));
    let error = self::api(&older).await.at_least(Version::OLDEST).await.unwrap_err();
    assert!(matches!(error, ApiError::TooOld { .. }), "{error}");
}

#[tokio::test]
async fn a_field_that_the_api_does_not_have_is_refused_by_the_script() {
    let mut script = Script::new(NEW);
    let body = br#"{"guest_cid": 3, "uds_path": "v", "colour": 1}"#;
    assert_eq!(script.answer("PUT", "/vsock", body).0, 400);
    assert_eq!(script.answer("PUT", "/vsock", br#"{"guest_cid": 3}"#).0, 400);
    assert_eq!(script.answer("PUT", "/drives/a", br#"{"drive_id": "b", "is_root_device": false}"#).0, 400);
    assert_eq!(script.answer("POST", "/vsock", b"{}").0, 400);
    assert_eq!(script.answer("PATCH", "/vm", br#"{"state": "Paused"}"#).0, 400);
    assert_eq!(script.answer("PUT", "/vsock", br#"{"guest_cid": 3, "uds_path": "v"}"#).0, 204);
    // Every request that is made here has a form there.
    let create =
        SnapshotCreate { snapshot_type: "Full".into(), snapshot_path: "s".into(), mem_file_path: "m".into() };
    for request in [Request::Vm(State::Paused), Request::SnapshotCreate(create)] {
        let body = request.body().unwrap().unwrap();
        let (_, answer) = script.answer(request.method().as_str(), &request.path(), &body);
        assert!(
            answer.unwrap()["fault_message"].as_str().unwrap().contains("before starting"),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn only_the_vms_own_socket_is_spoken_to() {
    let server = Server::start(Script::new(NEW));
    let stranger = Control::connect(VmmKind::Firecracker, &server.socket, root_or_me() + 7).await;
    match root_or_me() {
        // Root is whom the helper's own sockets belong to.
        0 => assert!(stranger.is_ok()),
        _ => assert!(matches!(stranger, Err(ControlError::Stranger))),
    }
}

async fn version_of(bytes: Vec<u8>) -> Result<Version, ApiError> {
    let folder = tempfile::tempdir().unwrap();
    let socket = answer_once(folder.path(), bytes);
    Api::connect(UnixStream::connect(socket).await.unwrap()).await?.version().await
}

#[tokio::test]
async fn hostile_answers_are_errors_and_bounded() {
    let http =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    assert!(version_of(http(r#"{"firecracker_version": "1.9.0"}"#)).await.is_ok());
    for body in
        ["", "{", "[]", r#"{"firecracker_version": "x"}"#, r#"{"firecracker_version": "1.9.0", "more": 1}"#]
    {
        let error = version_of(http(body)).await.unwrap_err();
        assert!(matches!(error, ApiError::Malformed { .. }), "{body}: {error}");
    }
    let endless = http(&"x".repeat(1 << 20));
    assert!(matches!(version_of(endless).await, Err(ApiError::Http { .. })));
    assert!(matches!(version_of(b"not HTTP\r\n\r\n".to_vec()).await, Err(ApiError::Http { .. })));
    assert!(matches!(version_of(Vec::new()).await, Err(ApiError::Http { .. })));
    let fault = format!("HTTP/1.1 400 Bad\r\nContent-Length: 9000\r\n\r\n{}", "\u{7}".repeat(9000));
    let ApiError::Refused { fault, .. } = version_of(fault.into_bytes()).await.unwrap_err() else { panic!() };
    assert!(fault.len() <= 1024 && !fault.contains('\u{7}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_answers_never_panic(body in prop::collection::vec(any::<u8>(), 0..300), whole: bool) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = if whole { [head.as_bytes(), &body].concat() } else { body };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(version_of(bytes));
    }
}
