//! Help, usage errors, and a service or a bus that is not there.

use crate::bus::Bus;

#[test]
fn usage_errors_have_podmans_code() {
    let bus = Bus::empty();
    for words in
        ["run", "run --memory lots debian", "exec box", "frobnicate", "vm rm", "image ls --format xml"]
    {
        let error = bus.banger(&words.split(' ').collect::<Vec<_>>()).failed(125);
        assert!(error.starts_with("error: "), "{words}: {error}");
    }
    assert!(bus.banger(&[]).failed(125).contains("Usage: banger"), "no command at all");
    let error = bus.banger(&["run", "-e", "=x", "debian"]).failed(125);
    assert!(error.contains("no name before the '='"), "{error}");
}

#[test]
fn help_teaches_by_example() {
    let bus = Bus::empty();
    for words in ["--help", "help", "run --help", "exec --help", "image pull --help", "kernel import --help"]
    {
        let help = bus.banger(&words.split(' ').collect::<Vec<_>>()).ok();
        assert!(help.contains("Usage: banger") && help.contains("banger "), "{words}: {help}");
    }
    assert!(bus.banger(&["--help"]).ok().contains("Exit codes"));
}

#[test]
fn completions_know_the_commands() {
    let bus = Bus::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = bus.banger(&["completion", shell]).ok();
        assert!(script.contains("banger") && script.contains("console"), "{shell}");
    }
}

#[test]
fn a_service_that_is_not_there_has_a_remedy() {
    let bus = Bus::empty();
    for words in [vec!["image", "ls"], vec!["run", "--rm", "debian", "true"], vec!["vm", "start", "x"]] {
        let error = bus.banger(&words).failed(125);
        assert!(
            error.starts_with("Error: ") && error.contains("systemctl start bangerd"),
            "{words:?}: {error}"
        );
    }
}

#[test]
fn a_bus_that_is_not_there_has_a_remedy() {
    let bus = Bus::empty();
    let mut command = bus.command(&["image", "ls"]);
    let output = command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/no/such/bus").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(error.contains("there is no system bus") && error.contains("DBUS_SYSTEM_BUS_ADDRESS"), "{error}");
}

#[test]
fn both_versions_are_shown() {
    let bus = Bus::new();
    let versions = bus.banger(&["version"]).ok();
    assert_eq!(versions, format!("client:  {}\nservice: 9.9.9\n", env!("CARGO_PKG_VERSION")));
    let alone = Bus::empty().banger(&["version"]).ok();
    assert!(alone.contains("service: not reachable: the banger service is not there"), "{alone}");
}

#[test]
fn what_the_service_says_is_no_instruction_to_the_terminal() {
    let bus = Bus::new();
    let error = bus.banger(&["-q", "image", "pull", "a b"]).failed(125);
    assert_eq!(error, "Error: \"a b\" is no reference?[31m\n");
}

#[test]
fn no_colour_where_none_is_wanted() {
    let bus = Bus::empty();
    let mut command = bus.command(&["frobnicate"]);
    let output = command.env("NO_COLOR", "1").env("CLICOLOR_FORCE", "0").output().unwrap();
    assert!(!output.stderr.contains(&0x1b));
}
