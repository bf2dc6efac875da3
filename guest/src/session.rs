//! The session of a command with a terminal.
//!
//! When a session's leader ends, the kernel hangs the session's terminal up, and with that throws away what the
//! command has written and nobody has read yet (linux, `tty_ldisc_hangup` and `pty_flush_buffer`). So the
//! command is not the leader: a small process of ours is, which keeps the session until everything was read.

use crate::ioctl;
use banger_guest::wire::{ExecFailure, Step, pack, unpack};
use nix::{
    fcntl::OFlag,
    unistd::{self, Pid, getpid, pipe2, setpgid, setsid, tcsetpgrp},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

/// A process in a new session with a terminal.
pub struct Born {
    pub pid: Pid,
    /// The session lasts until this is dropped.
    pub session: OwnedFd,
}

/// Forks a process in a new session with this terminal; `None` is that process, which has to [come forward]
/// (come_forward). It is a child of the caller's, not of the session's leader.
pub fn fork(terminal: &OwnedFd) -> Result<Option<Born>, ExecFailure> {
    let failed = |step| move |e: io::Error| ExecFailure::System(step, e.raw_os_error().unwrap_or(0));
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(failed(Step::Pipe));
    let (kept, session) = pipe()?;
    let (birth, midwife) = pipe()?;
    if let Some(leader) = ioctl::fork().map_err(failed(Step::Fork))? {
        drop(midwife);
        let mut message = [0; 64];
        // The leader's first and only word comes at once, or it is gone.
        let length = File::from(birth).read(&mut message).map_err(failed(Step::Pipe))?;
        let born: Result<i32, ExecFailure> =
            unpack(&message[..length]).unwrap_or(Err(ExecFailure::System(Step::Fork, leader.as_raw())));
        return born.map(|pid| Some(Born { pid: Pid::from_raw(pid), session }));
    }
    let sibling = lead(terminal).and_then(|()| ioctl::fork_sibling().map_err(failed(Step::Fork)));
    match sibling {
        Ok(None) => Ok(None),
        outcome => {
            let born = outcome.map(|pid| pid.map_or(0, Pid::as_raw));
            let _ = File::from(midwife).write_all(&pack(&born).unwrap_or_default());
            if born.is_ok() {
                keep(&kept);
            }
            ioctl::exit_now(0)
        }
    }
}

fn lead(terminal: &OwnedFd) -> Result<(), ExecFailure> {
    setsid().map_err(|e| ExecFailure::System(Step::Setup, e as i32))?;
    ioctl::take_terminal(terminal)
        .map_err(|e| ExecFailure::System(Step::Terminal, e.raw_os_error().unwrap_or(0)))
}

/// Moves the calling process to the terminal's foreground, in a group of its own.
pub fn come_forward(terminal: &OwnedFd) -> Result<(), ExecFailure> {
    let failed = |e| ExecFailure::System(Step::Terminal, e as i32);
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(failed)?;
    // Who steps forward from the background is stopped, unless it is blocked.
    ioctl::signal_set(&[libc::SIGTTOU]).thread_block().map_err(failed)?;
    tcsetpgrp(terminal, getpid()).map_err(failed)
}

/// In the leader: waits for the end of the session, and holds nothing else open meanwhile. The signals that the
/// agent blocks stay blocked.
fn keep(kept: &OwnedFd) {
    if unistd::dup2_stdin(kept).is_ok() {
        ioctl::close_from(1);
        while io::stdin().read(&mut [0; 1]).is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {}
    }
}
