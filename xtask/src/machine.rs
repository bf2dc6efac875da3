//! Facts about the machine and the checkout.

use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The top of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where xtask keeps what is made once: images, mostly.
pub fn cache() -> Result<PathBuf> {
    let path = target().join("xtask");
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// A value of os-release(5).
pub fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The owner of one's own folder in /proc is the effective user (proc_pid(5)).
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// A command as root: itself for root, through sudo otherwise.
pub fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/sudo");
    command.args(["--", program]);
    command
}

/// Runs a command with this process's terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let words = |command: &Command| {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    };
    let status = command.status().with_context(|| format!("cannot run {}", words(command)))?;
    anyhow::ensure!(status.success(), "{} ended with {status}", words(command));
    Ok(())
}
