//! Where the client finds credentials, and how it hands them over.

use crate::{bus::Bus, pty::Pty};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const REFERENCE: &str = "registry.example/team/app:1";

/// What `podman login` writes: base64 of `alice:sesame`.
const AUTH: &str = r#"{"auths":{"registry.example":{"auth":"YWxpY2U6c2VzYW1l"}}}"#;

/// What the service got.
const HANDED: &str = r#"with credentials {"username":"alice","password":"sesame"}"#;

fn pulled_with(bus: &Bus) -> String {
    bus.state().call("with credentials")
}

#[test]
fn a_file_of_podmans_is_found_and_handed_over() {
    let bus = Bus::new();
    let home = bus.path("home");
    for place in ["home/.config/containers/auth.json", "home/.docker/config.json"] {
        let bus = Bus::new();
        let path = bus.path(place);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, AUTH).unwrap();
        let mut pull = bus.command(&["image", "pull", REFERENCE]);
        let ran = pull.env("HOME", bus.path("home")).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        assert_eq!(pulled_with(&bus), HANDED, "{place}");
        let call = bus.state().call("PullImage");
        assert!(!call.contains("sesame"), "by descriptor, not in the message: {call}");
    }
    // Nothing there, nothing handed over.
    let ran = bus.command(&["image", "pull", REFERENCE]).env("HOME", &home).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(pulled_with(&bus), "with credentials ");
}

#[test]
fn a_file_that_is_named_is_the_only_one() {
    let bus = Bus::new();
    let file = bus.path("auth.json");
    fs::write(&file, AUTH).unwrap();
    bus.banger(&["image", "pull", "--authfile", &file, REFERENCE]).ok();
    assert_eq!(pulled_with(&bus), HANDED);
    let error = bus.banger(&["image", "pull", "--authfile", &bus.path("none"), REFERENCE]).failed(125);
    assert!(error.contains("cannot read") && error.contains("none"), "{error}");

    let bus = Bus::new();
    let ran =
        bus.command(&["run", "--rm", "-q", REFERENCE, "true"]).env("REGISTRY_AUTH_FILE", &file).output();
    assert!(ran.unwrap().status.success());
    assert_eq!(pulled_with(&bus), HANDED);

    let bus = Bus::new();
    let mut pull = bus.command(&["image", "pull", "--anonymous", REFERENCE]);
    assert!(pull.env("REGISTRY_AUTH_FILE", &file).output().unwrap().status.success());
    assert_eq!(pulled_with(&bus), "with credentials ");
}

#[test]
fn short_names_are_looked_up_where_the_service_takes_them_from() {
    let bus = Bus::new();
    let file = bus.path("auth.json");
    fs::write(&file, AUTH.replace("registry.example", "short.example/team")).unwrap();
    bus.banger(&["image", "pull", "--authfile", &file, "team/app"]).ok();
    assert_eq!(pulled_with(&bus), HANDED);
}

#[test]
fn a_helper_on_path_is_asked() {
    let bus = Bus::new();
    let (file, helper) = (bus.path("config.json"), bus.path("docker-credential-mine"));
    fs::write(&file, r#"{"credHelpers":{"registry.example":"mine"}}"#).unwrap();
    fs::write(&helper, "#!/bin/sh\necho '{\"Username\":\"alice\",\"Secret\":\"sesame\"}'\n").unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = bus.path("");
    let pull = |path: &str| {
        let mut command = bus.command(&["image", "pull", "--authfile", &file, REFERENCE]);
        command.env("PATH", path).output().unwrap()
    };
    assert!(pull(folder.trim_end_matches('/')).status.success());
    assert_eq!(pulled_with(&bus), HANDED);
    let failed = pull("/usr/bin:/bin");
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(125), "{error}");
    assert!(error.contains("docker-credential-mine") && error.contains("--anonymous"), "{error}");
}

#[test]
fn name_and_password_on_the_command_line() {
    let bus = Bus::new();
    bus.banger(&["image", "pull", "--creds", "alice:sesame", REFERENCE]).ok();
    assert_eq!(pulled_with(&bus), HANDED);
    let error = bus.banger(&["image", "pull", "--creds", "alice", REFERENCE]).failed(125);
    assert!(error.contains("no terminal") && error.contains("podman login"), "{error}");
    bus.banger(&["image", "pull", "--creds", "alice:x", "--anonymous", REFERENCE]).failed(125);
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let bus = Bus::new();
    let pty = Pty::new(24, 80);
    let before = pty.settings();
    let mut client = pty.start(&bus.command(&["image", "pull", "-q", "--creds", "alice", REFERENCE]));
    pty.read_until("Password of alice: ");
    pty.write("sesame\r");
    let seen = pty.read_until("pulled").replace("\r\n", "");
    assert!(client.wait().unwrap().success());
    assert!(!seen.contains("sesame"), "{seen:?}");
    assert_eq!(pty.settings(), before, "the terminal is as it was");
    assert_eq!(pulled_with(&bus), HANDED);
}
