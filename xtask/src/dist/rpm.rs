//! The package for Fedora, openSUSE and their kin, by rpmbuild(8).

use super::{DESCRIPTION, SUMMARY, VERSION, files};
use crate::machine::{self, root};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds `banger-VERSION-1.ARCH.rpm` in `folder`, of the files in `tree`.
///
/// # Errors
/// When rpmbuild fails.
pub fn build(tree: &Path, folder: &Path) -> Result<PathBuf> {
    let stage = tempfile::tempdir().context("cannot make a temporary folder")?;
    let spec = stage.path().join("banger.spec");
    fs::write(&spec, fill(&fs::read_to_string(root().join("packaging/rpm/banger.spec"))?, tree)?)?;
    let mut build = Command::new("/usr/bin/rpmbuild");
    build.args(["-bb", "--quiet", "--define"]).arg(format!("_topdir {}", stage.path().display()));
    build.arg("--define").arg(format!("_rpmdir {}", folder.display()));
    build.args(["--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"]);
    machine::run(build.arg(&spec))?;
    Ok(folder.join(format!("banger-{VERSION}-1.{}.rpm", std::env::consts::ARCH)))
}

/// What the specification leaves open.
fn fill(spec: &str, tree: &Path) -> Result<String> {
    let list: Vec<String> = files(tree)?.iter().map(|file| format!("\"/{file}\"")).collect();
    let values = [
        ("@VERSION@", VERSION.to_owned()),
        ("@SUMMARY@", SUMMARY.to_owned()),
        ("@DESCRIPTION@", DESCRIPTION.to_owned()),
        ("@TREE@", tree.display().to_string()),
        ("@FILES@", list.join("\n")),
    ];
    let filled = values.iter().fold(spec.to_owned(), |text, (key, value)| text.replace(key, value));
    match filled.contains('@') {
        true => None.with_context(|| format!("the specification has a key that nobody fills: {filled}")),
        false => Ok(filled),
    }
}
