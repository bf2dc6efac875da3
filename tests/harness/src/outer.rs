//! The outside of the private host: becomes root where it must, gives init its pid namespace, and reads the report.

use crate::{
    error::{Doing, HarnessError, Result},
    init,
    launch::THIS,
    signals::{Signals, exit_code, take_terminal},
    spec::{BUS_ADDRESS, REGISTRY, Report, Spec, User},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, geteuid},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The argument that makes the executable take this role.
pub const ROLE: &str = "__outer";

/// Where programs are looked for after the caller's own folders, servers included.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec";
const SUDO: &str = "/usr/bin/sudo";
/// Where the state of a temporary host goes: a disk, where `/tmp` may be memory.
const TEMPORARY: &str = "/var/tmp";

/// How a command is to be run in a private host.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is put where a package would put it: installed path, and the file that goes there.
    pub install: BTreeMap<PathBuf, PathBuf>,
    /// The folder that keeps the host's state; a temporary one when there is none.
    pub state: Option<PathBuf>,
    /// Whether bus, registry and command keep the machine's network.
    pub net: bool,
    /// Text of `/etc/banger/config.toml`.
    pub config: String,
    /// Who runs the command; whoever started this process when there is none.
    pub user: Option<User>,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Makes a private host, runs the command in it with this process's terminal, and takes the host down.
///
/// # Errors
/// [`HarnessError`] when the host could not be made; what the command did, and what leaked, is in the report.
pub fn run(request: &Request) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("banger-host-").tempdir_in(TEMPORARY);
    let folder = folder.doing(format!("make a folder in {TEMPORARY}"))?;
    let (file, report) = (folder.path().join("spec.json"), folder.path().join("report.json"));
    let spec = Spec {
        install: request.install.clone(),
        state: request.state.clone().unwrap_or_else(|| folder.path().join("state")),
        temporary: request.state.is_none(),
        net: request.net,
        config: request.config.clone(),
        user: request.user.clone().unwrap_or_else(caller),
        command: request.command.clone(),
        cwd: std::env::current_dir().doing("find the working folder")?,
        report: report.clone(),
    };
    let text = serde_json::to_string(&spec).map_err(std::io::Error::from).doing("describe the host")?;
    fs::write(&file, text).doing(format!("write {}", file.display()))?;

    let mut child = as_root(&file).spawn().doing("start the private host")?;
    let status = Signals::catch()?.wait_for(&mut child)?;
    take_terminal();
    let Ok(text) = fs::read_to_string(&report) else {
        return Err(HarnessError::Missing(format!("the private host failed (code {})", exit_code(status))));
    };
    serde_json::from_str(&text).map_err(std::io::Error::from).doing("read the report")
}

/// Whoever started this process, behind sudo as well.
fn caller() -> User {
    let through_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    match (geteuid().as_raw(), through_sudo) {
        (0, None | Some(0)) => User::Root,
        (0, Some(uid)) | (uid, _) => User::Uid(uid),
    }
}

/// This executable in its outer role. sudo clears the environment, so the caller's is handed over in words.
fn as_root(spec: &Path) -> Command {
    if geteuid() == Uid::from_raw(0) {
        let mut command = Command::new(THIS);
        command.arg(ROLE).arg(spec);
        return command;
    }
    let mut command = Command::new(SUDO);
    command.args(["--", "/usr/bin/env"]);
    command.args(
        std::env::vars().filter(|(name, _)| is_name(name)).map(|(name, value)| format!("{name}={value}")),
    );
    command.arg(format!("/proc/{}/exe", std::process::id())).arg(ROLE).arg(spec);
    command
}

/// Exported shell functions have names that env(1) would take for something else.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Starts init as the first process of a pid namespace and waits for it.
///
/// # Errors
/// [`HarnessError::Io`] when there can be no such namespace.
pub fn main(args: &[String]) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWPID).doing("make a pid namespace")?;
    let path = std::env::var("PATH").map_or(PATH.to_owned(), |own| format!("{own}:{PATH}"));
    let mut init = Command::new(THIS);
    init.arg(init::ROLE).args(args).env("PATH", path);
    init.env("DBUS_SYSTEM_BUS_ADDRESS", BUS_ADDRESS).env("BANGER_REGISTRY", REGISTRY);
    let mut child = init.spawn().doing("start init")?;
    Signals::catch()?.wait_for(&mut child).map(exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_handed_over() {
        assert!(is_name("PATH") && is_name("_x1"));
        assert!(!is_name("BASH_FUNC_x%%") && !is_name("a=b") && !is_name("") && !is_name("-i"));
    }
}
