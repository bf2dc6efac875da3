//! The introspection XML in `dbus/xml` is what the service says of itself, documentation included.
//!
//! `BANGER_UPDATE=1 cargo xtask test host --only interfaces` writes the files anew.

use crate::support::{ALICE, Vm};
use banger_dbus::names::INTERFACES;
use banger_harness::inside::{self, as_user, banger, client, eventually, run};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

const SERVICE: &str = "org.banger.Manager";

fn file(interface: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dbus/xml").join(format!("{interface}.xml"))
}

/// The paths of all objects of the service.
fn objects() -> Vec<String> {
    let mut tree = as_user(ALICE, "/usr/bin/busctl");
    tree.args(["--system", "tree", "--list", SERVICE]);
    run(tree, b"").expect(0).text().lines().map(str::to_owned).collect()
}

/// What an object says of one of its interfaces, between its tags and with them.
fn live(path: &str, interface: &str) -> Option<String> {
    let mut introspect = as_user(ALICE, "/usr/bin/busctl");
    introspect.args(["--system", "introspect", "--xml-interface", SERVICE, path]);
    let xml = run(introspect, b"").expect(0).text();
    let start = xml.find(&format!("<interface name=\"{interface}\">"))?;
    let length = xml[start..].find("</interface>")? + "</interface>".len();
    // Without the indentation that its place in the document gives it.
    let indented = xml[..start].lines().last().map_or(0, |line| line.len());
    let lines = xml[start..start + length].lines();
    let unindented = lines.map(|line| {
        line.split_at_checked(indented).filter(|(i, _)| i.trim().is_empty()).map_or(line, |(_, rest)| rest)
    });
    Some(unindented.collect::<Vec<_>>().join("\n"))
}

fn document(interface: &str) -> String {
    let doctype = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
                   \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">";
    format!("{doctype}\n<node>\n{interface}\n</node>\n")
}

#[test]
fn the_interfaces_are_the_ones_that_are_written_down() {
    // One object of each kind: pruning is the job, a command that waits the exec.
    banger(ALICE, &["image", "prune", "--yes"]).expect(0);
    let vm = Vm::start("introspected");
    banger(ALICE, &["volume", "create", "introspected", "--size", "16M"]).expect(0);
    let mut waits = client(ALICE, &["exec", vm.0, "--", "sleep", "1000"]);
    let mut waits = waits.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the command is on the bus", || objects().iter().any(|path| path.contains("/Exec/")));

    let paths = objects();
    for interface in INTERFACES {
        let found = paths.iter().find_map(|path| live(path, interface));
        let said = document(&found.unwrap_or_else(|| panic!("no object has {interface}: {paths:?}")));
        assert!(said.contains("<!--"), "{interface} has no documentation");
        let path = file(interface);
        if std::env::var_os("BANGER_UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &said).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(said == written, "{} is not what the service says:\n{said}", path.display());
    }
    waits.kill().unwrap();
    waits.wait().unwrap();
    vm.remove();
    banger(ALICE, &["volume", "rm", "introspected"]).expect(0);
    assert!(inside::vm_pids().is_empty());
}
