//! Signals as something to wait for, so that one thread can watch its children, its terminal and the clock.

use crate::error::{Doing, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp, tcsetpgrp},
};
use std::{
    os::fd::AsFd,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

/// SIGCHLD, SIGINT, SIGTERM and SIGHUP, kept back for this thread until it asks.
///
/// Programs inherit that: start a child first, or start it through [`crate::launch`], which lets them through.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Drop for Signals {
    fn drop(&mut self) {
        // What comes from now on does what it does by default; what came before was read or is not wanted.
        while let Ok(Some(_)) = self.0.read_signal() {}
        let _ = caught().thread_unblock();
    }
}

fn caught() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Lets every signal through to this thread, and to what it becomes.
///
/// # Errors
/// [`crate::HarnessError::Io`] when the kernel refuses.
pub fn let_through() -> Result<()> {
    SigSet::empty().thread_set_mask().doing("let signals through")
}

impl Signals {
    /// Keeps the signals back from now on.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when the kernel refuses.
    pub fn catch() -> Result<Self> {
        let set = caught();
        set.thread_block().doing("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).doing("make a signalfd")?))
    }

    /// The next signal, or none when `until` has passed.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when waiting itself fails.
    pub fn next(&self, until: Option<Instant>) -> Result<Option<Signal>> {
        loop {
            if let Some(info) = self.0.read_signal().doing("read a signal")? {
                if let Ok(signal) = i32::try_from(info.ssi_signo).map_err(|_| ()).and_then(to_signal) {
                    return Ok(Some(signal));
                }
                continue;
            }
            let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(None),
                // Rounded up, so that the last fraction of a millisecond is not spent spinning.
                Some(rest) => PollTimeout::try_from(rest.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            };
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).doing("wait for a signal"),
            }
        }
    }

    /// Waits for `child` and passes SIGTERM and SIGHUP on to it. The terminal sends SIGINT to it anyway.
    ///
    /// # Errors
    /// [`crate::HarnessError::Io`] when waiting fails.
    pub fn wait_for(&self, child: &mut Child) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().doing("wait for the child")? {
                return Ok(status);
            }
            if let Some(signal @ (Signal::SIGTERM | Signal::SIGHUP)) = self.next(None)? {
                // It may have ended in between, then there is nothing to pass on.
                let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
            }
        }
    }
}

fn to_signal(number: i32) -> std::result::Result<Signal, ()> {
    Signal::try_from(number).map_err(|_| ())
}

/// Every child that has ended and was not waited for yet: its pid and its exit code.
pub fn ended_children() -> Vec<(Pid, i32)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push((pid, code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended.push((pid, 128 + signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ended,
        }
    }
}

/// The exit code that a shell would give: 128 + the signal's number for a process that a signal ended.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Puts this process group back into the terminal's foreground, where a shell that ended has left another.
pub fn take_terminal() {
    let stdin = std::io::stdin();
    let ttou = SigSet::from(Signal::SIGTTOU);
    // No terminal, or not ours: then there is nothing to take.
    if nix::unistd::isatty(&stdin) == Ok(true) && ttou.thread_block().is_ok() {
        let _ = tcsetpgrp(&stdin, getpgrp());
        let _ = ttou.thread_unblock();
    }
}
