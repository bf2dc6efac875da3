//! `cargo xtask dist`: a release, as an archive and as packages.

mod arch;
mod deb;
mod rpm;
mod tree;

pub use deb::build as deb;

use crate::{
    cargo::{self, Profile},
    machine::{self, root},
    packages::{self, Purpose},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

/// The version of all packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What it is, in a line.
const SUMMARY: &str = "Virtual machines from OCI images, for users without privileges";
/// What it is, in a paragraph.
const DESCRIPTION: &str = "\
A D-Bus system service that turns any OCI image into a running microVM. polkit decides who may do what, systemd runs it, and \
machines have names that resolve. With it comes the command banger.";

/// Builds and writes everything into `dist/`. The same sources give the same archive.
pub fn run() -> Result<ExitCode> {
    packages::install(&[Purpose::Build, Purpose::Dist])?;
    let programs = cargo::build(Profile::Release)?;
    let dist = root().join("dist");
    fs::create_dir_all(&dist)?;
    let name = format!("banger-{VERSION}-{}", std::env::consts::ARCH);
    let stage = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tree = stage.path().join(&name);
    tree::install(&programs, &tree)?;

    let archive = dist.join(format!("{name}.tar.zst"));
    let mut tar = Command::new("/usr/bin/tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "--mtime=@0"]);
    tar.args(["--use-compress-program=/usr/bin/zstd -q -19 -T0", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(stage.path());
    machine::run(tar.arg(&name))?;
    println!("{}", archive.display());
    println!("{}", deb::build(&programs, &dist)?.display());
    println!("{}", rpm::build(&tree, &dist)?.display());
    println!("{}", arch::write(&archive, &dist)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Every file under a folder, as paths from there, sorted.
fn files(tree: &Path) -> Result<Vec<String>> {
    let list = banger_harness::output(
        Command::new("/usr/bin/find").arg(tree).args(["-type", "f", "-printf", "%P\\n"]),
    )?;
    let mut files: Vec<String> = list.lines().map(str::to_owned).collect();
    files.sort();
    Ok(files)
}
