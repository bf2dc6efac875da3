//! Passwords: found, shown to the registry alone, kept nowhere; and what they bring is the owner's.

use crate::servers::{
    CLOSED, PASSWORD, TRAVELS, USER, blob, closed, failed_with, folder, image, log_in, say_closed,
};
use banger_harness::{
    ALICE_UID, REGISTRY,
    inside::{banger, busctl, client, eventually, kill_9, run, state},
};
use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{Child, Command, Stdio},
};

const RULE: &str = "/etc/polkit-1/rules.d/11-bob-pulls.rules";

/// Lets bob pull as if he were at the machine, until it is dropped.
struct BobPulls;

impl BobPulls {
    fn new() -> Self {
        let rule = "polkit.addRule(function(action, subject) {\n    if (action.id == 'org.banger.manager.image-pull' && \
                    subject.user == 'bob') {\n        return polkit.Result.YES;\n    }\n});\n";
        fs::write(RULE, rule).unwrap();
        let owner = fs::metadata("/etc/polkit-1/rules.d").unwrap();
        chown(RULE, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).unwrap();
        Self
    }
}

impl Drop for BobPulls {
    fn drop(&mut self) {
        let _ = fs::remove_file(RULE);
    }
}

#[test]
fn what_skopeo_wrote_is_shown_and_what_comes_is_the_owners_alone() {
    let (name, layer) = image("secret");
    let _closed = closed();
    let _said = say_closed("");
    let reference = format!("{CLOSED}/{name}");
    let refused = failed_with(banger("alice", &["--verbose", "image", "pull", &reference]), "RegistryDenied");
    assert!(refused.contains("podman login") && refused.contains(CLOSED), "{refused}");

    let file = log_in("alice");
    assert!(fs::read_to_string(&file).unwrap().contains(TRAVELS), "skopeo writes what we read");
    banger("alice", &["image", "pull", "--name", "secret", &reference]).expect(0);
    assert!(blob(Some(ALICE_UID), &layer).exists() && !blob(None, &layer).exists());
    let listed = banger("bob", &["image", "ls", "--format", "json"]).expect(0).text();
    assert!(!listed.contains("secret"), "bob sees it: {listed}");

    // Bob has nothing to show, and knows the digest from nowhere but the registry, which does not tell him.
    let _bob = BobPulls::new();
    let bob = || banger("bob", &["--verbose", "image", "pull", "--name", "bobs", &reference]);
    eventually("polkit has read the rule", || bob().errors().contains("RegistryDenied"));
    failed_with(bob(), "RegistryDenied");
    // The same digest from a registry that gives it to everybody is fetched, not taken from alice.
    banger("bob", &["image", "pull", "--name", "bobs", &format!("{REGISTRY}/{name}")]).expect(0);
    assert!(blob(None, &layer).exists(), "it came to everybody's cache by itself");

    // He may not make room with what is hers either.
    banger("bob", &["image", "prune", "--yes"]).expect(0);
    assert!(blob(Some(ALICE_UID), &layer).exists() && !blob(None, &layer).exists());
    banger("alice", &["image", "prune", "--yes"]).expect(0);
    assert!(!blob(Some(ALICE_UID), &layer).exists());
    banger("root", &["image", "rm", "secret", "bobs"]).expect(0);
    fs::remove_file(file).unwrap();
}

#[test]
fn each_way_to_give_them_works_and_wrong_ones_are_told() {
    let (name, _) = image("ways");
    let _closed = closed();
    let _said = say_closed("");
    let reference = format!("{CLOSED}/{name}");
    let right = format!("{USER}:{PASSWORD}");
    let wrong = ["--verbose", "image", "pull", "--creds", "carol:wrong", &reference];
    let told = failed_with(banger("alice", &wrong), "RegistryDenied");
    assert!(told.contains("expired") && !told.contains("wrong:"), "{told}");
    banger("alice", &["image", "pull", "--creds", &right, "--name", "ways", &reference]).expect(0);
    banger("alice", &["image", "rm", "ways"]).expect(0);

    // As one busctl call.
    busctl("alice", &words("words", &reference)).expect(0);
    eventually("the image is there", || banger("alice", &["image", "show", "words"]).code == 0);
    banger("alice", &["image", "rm", "words"]).expect(0);

    // A helper program, which the client alone runs.
    let helper = folder().join("docker-credential-test");
    fs::write(&helper, format!("#!/bin/sh\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"))
        .unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = folder().join("config.json");
    fs::write(&config, format!("{{\"credHelpers\":{{\"{CLOSED}\":\"test\"}}}}")).unwrap();
    let file = config.display().to_string();
    let mut pull = client("alice", &["image", "pull", "--authfile", &file, "--name", "ways", &reference]);
    pull.env("PATH", format!("{}:/usr/bin:/bin", folder().display()));
    run(pull, b"").expect(0);
    banger("alice", &["image", "rm", "ways"]).expect(0);
}

/// The arguments of busctl that pull `reference` as `name` with words.
fn words<'a>(name: &'a str, reference: &'a str) -> Vec<&'a str> {
    let call = ["org.banger.Manager", "/org/banger/Manager", "org.banger.Manager", "PullImage", "sa{sv}"];
    let words = [reference, "3", "name", "s", name, "username", "s", USER, "password", "s", PASSWORD];
    [&call[..], &words].concat()
}

/// The service, started by hand with everything logged into a file.
struct Loud(Child);

impl Loud {
    fn start(log: &Path) -> Self {
        kill_9("bangerd");
        let log = fs::File::create(log).unwrap();
        let mut command = Command::new("/usr/libexec/bangerd");
        command.env("BANGER_LOG", "trace").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let loud = Self(command.spawn().unwrap());
        // Not by calling it, which would have the bus start another one.
        let bus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"];
        let has_owner = [&bus[..], &["NameHasOwner", "s", "org.banger.Manager"]].concat();
        eventually("the loud service is there", || busctl("root", &has_owner).text().contains("true"));
        loud
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_logs_or_stores_them() {
    let (name, _) = image("quiet");
    let _closed = closed();
    let _said = say_closed("");
    let reference = format!("{CLOSED}/{name}");
    let (log, given) = (folder().join("loud.log"), format!("{USER}:{PASSWORD}"));
    let loud = Loud::start(&log);
    banger("alice", &["image", "pull", "--creds", &given, "--name", "quiet", &reference]).expect(0);
    let wrong = ["image", "pull", "--creds", "carol:other-secret", "--name", "quieter", &reference];
    banger("alice", &wrong).expect(125);
    busctl("alice", &words("loud-words", &reference)).expect(0);
    eventually("the image is there", || banger("alice", &["image", "show", "loud-words"]).code == 0);
    drop(loud);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("TRACE") && log.contains(CLOSED), "the log is loud: {}", log.len());
    for secret in [PASSWORD, TRAVELS, "other-secret", "Y2Fyb2w6b3RoZXItc2VjcmV0"] {
        assert!(!log.contains(secret), "{secret} in the log");
        // Not in the database nor anywhere else below the service's folder.
        let mut grep = Command::new("/usr/bin/grep");
        grep.args(["-rlaF", "--exclude=*.ext4", secret, &state().join("banger").display().to_string()]);
        assert_eq!(run(grep, b"").text(), "", "{secret}");
    }
    banger("alice", &["image", "rm", "quiet", "loud-words"]).expect(0);
}
