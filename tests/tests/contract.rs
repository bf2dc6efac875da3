//! Contract lane: rules that no compiler checks. Needs nothing but the checkout and cargo.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Which of our crates each of our crates may build on. Dependencies point one way: the model knows nobody, the
/// client knows the bus alone, the daemon wires, and nothing that is shipped knows the tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("banger-model", &[]),
    ("banger-ext4", &[]),
    ("banger-guest", &[]),
    ("banger-systemd", &[]),
    ("banger-dbus", &["banger-model"]),
    ("banger-polkit", &["banger-model"]),
    ("banger-kernel", &["banger-model"]),
    ("banger-vmm", &["banger-model"]),
    ("banger-dns", &["banger-model"]),
    ("banger-agent", &["banger-guest", "banger-model"]),
    ("banger-image", &["banger-ext4", "banger-model"]),
    ("banger-host", &["banger-model", "banger-systemd", "banger-vmm"]),
    ("banger", &["banger-dbus"]),
    (
        "bangerd",
        &[
            "banger-agent",
            "banger-dbus",
            "banger-dns",
            "banger-guest",
            "banger-host",
            "banger-image",
            "banger-kernel",
            "banger-model",
            "banger-polkit",
            "banger-systemd",
            "banger-vmm",
        ],
    ),
    ("banger-harness", &["banger-model"]),
    ("xtask", &["banger-harness"]),
];

/// May use everything: it proves how the parts work together.
const TESTS: &str = "banger-tests";

fn packages() -> Vec<Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's metadata is JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let known: BTreeSet<&str> = allowed.keys().copied().chain([TESTS]).collect();
    assert_eq!(names, known, "the workspace's crates, and those that the table above knows");

    for package in packages.iter().filter(|package| package["name"] != TESTS) {
        let name = package["name"].as_str().unwrap();
        // What a crate's own tests use is its own affair.
        let dependencies = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"] != "dev");
        let used: BTreeSet<&str> =
            dependencies.filter_map(|d| d["name"].as_str()).filter(|name| names.contains(name)).collect();
        let wrong: Vec<_> = used.difference(&allowed[name]).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn every_crate_obeys_the_workspace() {
    for package in packages() {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let name = &package["name"];
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} lacks the workspace's lints");
        assert!(package["license"] == "Apache-2.0", "{name} has another licence");
        assert!(package["publish"] == serde_json::json!([]), "{name} could be published by accident");
        let description = package["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{name} does not say what it is");
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let workspace = [format!("{other}.workspace = true"), format!("{other} = {{ workspace = true")];
            assert!(
                workspace.iter().any(|line| manifest.contains(line)),
                "{name} names a version of {other} of its own"
            );
        }
    }
}

/// The only files that may hold unsafe code are called so.
const UNSAFE_FILE: &str = "ioctl.rs";

#[test]
fn unsafe_code_stands_in_ioctl_files_each_with_its_reason() {
    let mut reasons = 0;
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| has_unsafe(line)) {
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(
                path.ends_with(UNSAFE_FILE),
                "{place}: unsafe code belongs into a file named {UNSAFE_FILE}"
            );
            assert!(
                has_reason(&lines, number),
                "{place}: unsafe code without a SAFETY comment right above it"
            );
            reasons += 1;
        }
    }
    // If this finds none at all, it looks in the wrong place: loop devices and TAPs are made by ioctls.
    assert!(reasons > 0, "no unsafe code found anywhere");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && !name.starts_with("target") {
                found.extend(sources(&path));
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

/// Whether a line of code has the keyword: not in a comment, not in a string, not as part of a longer word.
fn has_unsafe(line: &str) -> bool {
    let mut code = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => code.push(char),
            _ => {}
        }
    }
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

/// Whether the comment above the statement that holds this line says why it is sound.
fn has_reason(lines: &[&str], number: usize) -> bool {
    let above = lines[..number].iter().rev().take(8).take_while(|line| !line.trim().is_empty());
    above
        .map(|line| line.trim())
        .filter(|line| line.starts_with("//"))
        .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

#[test]
fn the_search_for_unsafe_code_finds_it() {
    for code in ["unsafe {", "let x = unsafe { f() };", "pub unsafe fn f();", "\"a\", unsafe { b }"] {
        assert!(has_unsafe(code), "{code}");
    }
    for code in [
        "// unsafe {",
        "#![deny(unsafe_code)]",
        "\"unsafe\"",
        "UnsafeImage",
        "\"a\\\"unsafe\"",
        "not_unsafe()",
    ] {
        assert!(!has_unsafe(code), "{code}");
    }
    assert!(has_reason(&["// SAFETY: it is", "unsafe {"], 1));
    assert!(!has_reason(&["// SAFETY: it is", "", "unsafe {"], 2));
    assert!(!has_reason(&["let a = 1;", "unsafe {"], 1));
}

#[test]
fn the_documentation_names_every_method_signal_and_error() {
    let page = root().join("docs/dbus.md");
    let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let missing: Vec<String> =
        members_in_code().into_iter().filter(|member| !page.contains(&format!("`{member}"))).collect();
    assert!(missing.is_empty(), "docs/dbus.md does not tell of {missing:#?}");
}

/// The members of our interfaces by the introspection data that is checked in.
fn members_in_code() -> BTreeSet<String> {
    let mut members = BTreeSet::new();
    let mut files = Vec::new();
    introspection(&root().join("dbus"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let mut interface = String::new();
        for tag in text.split('<') {
            let name =
                tag.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            match tag.split_whitespace().next() {
                Some("interface") => interface = name.to_owned(),
                Some("method" | "signal") if interface.starts_with("org.banger.") => {
                    members.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    assert!(members.contains("PullImage"), "no introspection data found below dbus/");
    members
        .extend(banger_dbus::Error::NAMES.iter().map(|error| error.rsplit('.').next().unwrap().to_owned()));
    members
}

fn introspection(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            introspection(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "xml") {
            found.push(path);
        }
    }
}
