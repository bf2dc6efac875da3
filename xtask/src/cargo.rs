//! Building our own programs.

use crate::machine::{self, root, target};
use anyhow::{Context, Result};
use std::{path::PathBuf, process::Command};

/// The target of the guest's static binary; naming it keeps the flag away from build scripts and macros.
const GUEST_TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// A build profile of cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Debug,
    /// What users get.
    Release,
}

impl Profile {
    /// What cargo is told for it. The moments at which tests make faults happen are in no release; that does not
    /// even compile.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Profile::Debug => &["--features=bangerd/faults,banger-host/faults"],
            Profile::Release => &["--release"],
        }
    }
}

/// Our programs, built.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The client.
    pub banger: PathBuf,
    /// The service.
    pub bangerd: PathBuf,
    /// The privileged helper.
    pub hostd: PathBuf,
    /// The guest, static.
    pub guest: PathBuf,
}

/// cargo itself, in the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds all four programs. The guest has a profile of its own: the initramfs carries it.
pub fn build(profile: Profile) -> Result<Programs> {
    let mut own = cargo();
    own.args(["build", "--quiet", "--package=banger", "--package=bangerd", "--package=banger-host"]);
    own.args(profile.arguments());
    machine::run(&mut own).context("the programs do not build")?;

    let folder = target().join("guest");
    let mut guest = cargo();
    guest.args([
        "build",
        "--quiet",
        "--profile=guest",
        "--package=banger-guest",
        "--bins",
        "--target",
        GUEST_TARGET,
    ]);
    guest.arg("--target-dir").arg(&folder).env("RUSTFLAGS", "-C target-feature=+crt-static");
    machine::run(&mut guest).context("the guest does not build")?;

    let bin = target().join(if profile == Profile::Release { "release" } else { "debug" });
    Ok(Programs {
        banger: bin.join("banger"),
        bangerd: bin.join("bangerd"),
        hostd: bin.join("banger-hostd"),
        guest: folder.join(GUEST_TARGET).join("guest/banger-guest"),
    })
}

/// Builds what benchmarks call the service with.
pub fn build_caller() -> Result<PathBuf> {
    let mut caller = cargo();
    caller.args(["build", "--quiet", "--release", "--package=banger-tests", "--bin=bus-caller"]);
    machine::run(&mut caller).context("the caller does not build")?;
    Ok(target().join("release/bus-caller"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_release_has_moments_for_faults() {
        assert!(!Profile::Release.arguments().concat().contains("feature"));
        for source in ["service/daemon/src/fault.rs", "service/host/src/hostd/fault.rs"] {
            let text = std::fs::read_to_string(root().join(source)).unwrap();
            let guard = "#[cfg(all(feature = \"faults\", not(debug_assertions)))]\ncompile_error!(";
            assert!(text.contains(guard), "{source} can be built for a release");
        }
        for manifest in ["service/daemon/Cargo.toml", "service/host/Cargo.toml"] {
            let text = std::fs::read_to_string(root().join(manifest)).unwrap();
            assert!(text.contains("faults = []") && !text.contains("default ="), "{manifest}");
        }
    }
}
