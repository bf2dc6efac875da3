//! The README's busctl lines do what it says.

use crate::support::{ALICE, image_names, system, vms};
use banger_harness::{
    REGISTRY,
    inside::{self, as_user, banger, busctl, run},
};
use serde_json::json;
use std::{collections::BTreeSet, fs, path::Path};

const SERVICE: &str = "org.banger.Manager";

/// The README's lines that begin with `busctl`, continuation lines joined.
fn lines() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(|line| line.trim().trim_start_matches("$ ").to_owned());
    lines.filter(|line| line.starts_with("busctl ")).collect()
}

#[test]
fn each_busctl_line_works_as_it_stands() {
    let lines = lines();
    for method in ["PullImage", "CreateVM"] {
        assert!(lines.iter().any(|line| line.contains(method)), "the README has no busctl line for {method}");
    }
    // Whatever they pull from a registry on this machine is there.
    let words = lines.iter().flat_map(|line| line.split([' ', '"', '\'']));
    let references: BTreeSet<&str> = words.filter(|word| word.starts_with(REGISTRY)).collect();
    for reference in references {
        let name = reference.trim_start_matches(REGISTRY).trim_start_matches('/');
        inside::publish(name, &[system()], &json!({"Cmd": ["/bin/sh"]})).unwrap();
    }
    let before: BTreeSet<String> = image_names().into_iter().collect();
    for line in &lines {
        let mut command = as_user(ALICE, "/bin/sh");
        command.args(["-c", line]);
        let ran = run(command, b"").expect(0);
        // Each object of a job is waited for, so that the next line finds what it made.
        let text = ran.text();
        for job in text.split('"').filter(|word| word.starts_with("/org/banger/Job/")) {
            busctl(ALICE, &[SERVICE, job, "org.banger.Job", "Wait", "a{sv}", "0"]).expect(0);
        }
    }
    for vm in vms(ALICE) {
        banger(ALICE, &["vm", "rm", "--force", vm["name"].as_str().unwrap()]).expect(0);
    }
    for image in image_names().into_iter().filter(|name| !before.contains(name)) {
        banger(ALICE, &["image", "rm", &image]).expect(0);
    }
    inside::assert_no_residue();
}
