//! Starts one program in its place: session, network, user, listening socket.
//!
//! `std::process::Command` can do none of these without unsafe code between fork and exec, so a small
//! step in the same executable does them and then becomes the program.

use crate::{
    error::{Doing, HarnessError, Result},
    signals,
};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, dup2_stdin, initgroups, setgid, setsid, setuid},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs::File,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// This executable, also when its file has been replaced by a newer build; and, as the command of a private host,
/// the executable that made the host.
pub const THIS: &str = "/proc/self/exe";

/// The argument that makes the executable take this role.
pub const ROLE: &str = "__launch";

/// First descriptor that socket activation passes (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// Where a program is to be started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// In a session of its own, out of reach of the terminal's signals.
    pub session: bool,
    /// In the network namespace of this file.
    pub network: Option<PathBuf>,
    /// As this user, with its supplementary groups.
    pub user: Option<Account>,
    /// With standard input, a listening socket, passed as socket activation does.
    pub listen: bool,
}

/// A user's entry in the user database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
}

impl Place {
    /// The command that starts `argv` in this place.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when the place cannot be written down, which does not happen.
    pub fn command<S: AsRef<str>>(&self, argv: &[S]) -> Result<Command> {
        let place = serde_json::to_string(self).map_err(std::io::Error::from).doing("describe a place")?;
        let mut command = Command::new(THIS);
        command.arg(ROLE).arg(place).args(argv.iter().map(AsRef::as_ref));
        if let Some(user) = &self.user {
            command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        }
        if !self.listen {
            command.stdin(Stdio::null());
        }
        Ok(command)
    }
}

/// Goes to the place that the first argument describes and becomes the program that the others name.
/// Returns only on failure.
///
/// # Errors
/// [`HarnessError`] says which step failed.
pub fn main(args: &[String]) -> Result<std::convert::Infallible> {
    let [place, program, rest @ ..] = args else {
        return Err(HarnessError::Missing("a place and a program are needed".into()));
    };
    let place: Place = serde_json::from_str(place).map_err(std::io::Error::from).doing("read the place")?;
    let mut command = Command::new(program);
    command.args(rest);
    signals::let_through()?;
    if place.session {
        setsid().doing("start a session")?;
    }
    if let Some(path) = &place.network {
        let network = File::open(path).doing(format!("open {}", path.display()))?;
        setns(network, CloneFlags::CLONE_NEWNET).doing("enter the network namespace")?;
    }
    if place.listen {
        pass_socket(&mut command)?;
    }
    if let Some(user) = &place.user {
        become_user(user)?;
    }
    Err(command.exec()).doing(format!("run {program}"))
}

/// Moves standard input to where socket activation has its first socket.
fn pass_socket(command: &mut Command) -> Result<()> {
    let fd = fcntl(std::io::stdin(), FcntlArg::F_DUPFD(LISTEN_FDS_START)).doing("pass the socket")?;
    if fd != LISTEN_FDS_START {
        return Err(HarnessError::Missing(format!("descriptor {LISTEN_FDS_START} is taken, got {fd}")));
    }
    dup2_stdin(File::open("/dev/null").doing("open /dev/null")?).doing("close standard input")?;
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    Ok(())
}

fn become_user(user: &Account) -> Result<()> {
    let name = CString::new(user.name.as_str()).map_err(std::io::Error::from).doing("name the user")?;
    let gid = Gid::from_raw(user.gid);
    initgroups(&name, gid).doing(format!("set the groups of {}", user.name))?;
    setgid(gid).doing(format!("set gid {gid}"))?;
    setuid(Uid::from_raw(user.uid)).doing(format!("become {}", user.name))
}
