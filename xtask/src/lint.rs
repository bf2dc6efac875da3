//! `cargo xtask lint`: format, clippy, licences and sources of dependencies, documentation.

use crate::{
    cargo::cargo,
    machine,
    packages::{self, Purpose},
};
use anyhow::Result;
use std::process::{Command, ExitCode, Stdio};

/// Runs every lint, and stops at the first that finds something.
pub fn run() -> Result<ExitCode> {
    packages::install(&[Purpose::Build])?;
    let step = |arguments: &[&str]| {
        println!("== cargo {}", arguments.join(" "));
        machine::run(cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    };
    step(&["fmt", "--all", "--check"])?;
    step(&["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])?;
    step(&["doc", "--quiet", "--workspace", "--no-deps"])?;
    if !has_deny() {
        step(&["install", "--quiet", "--locked", "cargo-deny"])?;
    }
    // Advisories are left out: their database is not within reach of every machine that builds this.
    step(&["deny", "--log-level", "warn", "check", "bans", "licenses", "sources"])?;
    Ok(ExitCode::SUCCESS)
}

fn has_deny() -> bool {
    let mut command: Command = cargo();
    let status = command.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
