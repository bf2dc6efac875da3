//! `cargo xtask fuzz`: everything that parses bytes from outside, and the ext4 writer, each for a short time.
//!
//! What is fuzzed has no unsafe code, so there is no sanitizer: without one the fuzzer tries many times more.

use crate::{
    cargo, machine,
    packages::{self, Purpose},
};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::{
    fmt, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this target
    #[arg(value_enum)]
    target: Option<Target>,
    /// Seconds for each target
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// A program in `fuzz/fuzz_targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Archives of layers
    Tar,
    /// Layers merged into a filesystem, which is checked
    Merge,
    /// Calls of the ext4 writer, whose filesystem is checked
    Ext4,
    /// Manifests, indexes and configurations
    Manifest,
    /// Image references
    Reference,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Builds the targets and runs them in turn; the first crash ends it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::install(&[Purpose::Build, Purpose::Fuzz])?;
    if !has_cargo_fuzz() {
        machine::run(cargo::cargo().args(["install", "--quiet", "--locked", "cargo-fuzz"]))?;
    }
    machine::run(&mut cargo_fuzz("build")).context("the fuzz targets do not build")?;
    for target in Target::value_variants() {
        if arguments.target.is_none_or(|only| only == *target) {
            one(*target, arguments.seconds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one(target: Target, seconds: u32) -> Result<()> {
    println!("== fuzz {target}: {seconds} s");
    let began = Instant::now();
    // What the fuzzer learns is kept for the next time; the seeds are checked in.
    let learned = machine::cache()?.join("fuzz").join(target.to_string());
    fs::create_dir_all(&learned).with_context(|| format!("cannot make {}", learned.display()))?;
    let mut command = cargo_fuzz("run");
    command.arg(target.to_string()).arg(&learned).arg(machine::root().join(format!("fuzz/seeds/{target}")));
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    command.args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-verbosity=0"]);
    let status = command.arg("-print_final_stats=1").status().context("cannot run cargo fuzz")?;
    ensure!(
        status.success(),
        "{target} failed; the input is in fuzz/artifacts/{target}, and `cargo fuzz run -s none {target} FILE` runs it again"
    );
    println!("== fuzz {target}: nothing found in {} s", began.elapsed().as_secs());
    Ok(())
}

/// `cargo fuzz`, with the nightly compiler where there is one. A stable one takes the flags too when it is told to.
fn cargo_fuzz(what: &str) -> Command {
    let mut command = match has_nightly() {
        true => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            // Those of the compiler that builds xtask.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
            command
        }
        false => {
            let mut command = cargo::cargo();
            command.env("RUSTC_BOOTSTRAP", "1");
            command
        }
    };
    command.current_dir(machine::root());
    command.args(["fuzz", what, "--sanitizer=none", "--fuzz-dir=fuzz", "--target-dir"]);
    command.arg(absolute(&machine::target()).join("fuzz"));
    command
}

/// cargo-fuzz changes to another folder.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn has_nightly() -> bool {
    let output = Command::new("rustup").args(["toolchain", "list"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with("nightly"))
    })
}

fn has_cargo_fuzz() -> bool {
    let mut command = cargo::cargo();
    command.args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program_and_seeds() {
        let programs = fs::read_dir(machine::root().join("fuzz/fuzz_targets")).unwrap().count();
        assert_eq!(programs, Target::value_variants().len());
        for target in Target::value_variants() {
            let root = machine::root();
            assert!(root.join(format!("fuzz/fuzz_targets/{target}.rs")).exists(), "{target}");
            let seeds = fs::read_dir(root.join(format!("fuzz/seeds/{target}"))).unwrap();
            let bytes: u64 = seeds.map(|seed| seed.unwrap().metadata().unwrap().len()).sum();
            assert!(bytes > 0 && bytes < 100_000, "{target}: {bytes} bytes of seeds");
        }
    }
}
