//! A VM's process: watched to its end, and ended when asked.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a VMM has to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// How long the kernel has to end it after SIGKILL.
const KILL: Duration = Duration::from_secs(10);

/// A process, known by a pidfd: a number that is used again never stands for it.
#[derive(Debug)]
pub struct Process {
    /// Its number, for people.
    pub pid: u32,
    pidfd: OwnedFd,
    exit: Mutex<Option<String>>,
    ended: Condvar,
}

impl Process {
    /// Watches a child, which has not been waited for.
    pub fn watch(mut child: Child) -> io::Result<Arc<Self>> {
        let watched = open(child.id()).and_then(|pidfd| Self::start_watching(child.id(), pidfd));
        if watched.is_err() {
            child.kill()?;
            child.wait()?;
        }
        watched
    }

    /// Watches a process that another life of this helper started, if it is still the one that began at
    /// `start_time` (see [`crate::record::start_time`]).
    pub fn adopt(pid: u32, start_time: u64) -> io::Result<Option<Arc<Self>>> {
        let pidfd = match open(pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            other => other?,
        };
        // Asked after the pidfd was opened: if this is the process's time, then so is the pidfd its own.
        match crate::record::start_time(pid) {
            // One that has ended and that nobody has collected still has its number.
            Ok(time) if time == start_time && !has_ended(&pidfd)? => {
                Self::start_watching(pid, pidfd).map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn start_watching(pid: u32, pidfd: OwnedFd) -> io::Result<Arc<Self>> {
        let process = Arc::new(Self { pid, pidfd, exit: Mutex::default(), ended: Condvar::new() });
        let watcher = Arc::clone(&process);
        std::thread::Builder::new().name(format!("watch-{pid}")).spawn(move || watcher.watch_to_end())?;
        Ok(process)
    }

    fn watch_to_end(&self) {
        let exit = loop {
            let mut wanted = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut wanted, None) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break self.reap(),
                Err(error) => break format!("unknown ({error})"),
            }
        };
        tracing::info!(pid = self.pid, exit, "the VM's process has ended");
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
        self.ended.notify_all();
    }

    fn reap(&self) -> String {
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => describe(&status),
            // An adopted process is not a child: its end was somebody else's to collect.
            _ => "unknown".into(),
        }
    }

    /// How it ended, once it has.
    pub fn exit(&self) -> Option<String> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it: SIGTERM, after two seconds SIGKILL. Returns once it is gone.
    pub fn end(&self) -> io::Result<()> {
        for (signal, limit) in [(Signal::TERM, GRACE), (Signal::KILL, KILL)] {
            if self.await_end(Duration::ZERO) {
                return Ok(());
            }
            match pidfd_send_signal(&self.pidfd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
            if self.await_end(limit) {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} outlives SIGKILL", self.pid)))
    }

    fn await_end(&self, limit: Duration) -> bool {
        let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(exit, limit, |exit| exit.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A pidfd is readable once all of its process's threads have ended.
fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now))? > 0)
}

fn describe(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn an_end_is_told() {
        for (script, exit) in [("exit 3", "exit code 3"), ("kill -9 $$", "signal 9"), ("true", "exit code 0")]
        {
            let process = Process::watch(shell(script)).unwrap();
            assert!(process.await_end(Duration::from_secs(60)));
            assert_eq!(process.exit().as_deref(), Some(exit));
            assert!(process.end().is_ok(), "a second end is none");
        }
    }

    #[test]
    fn it_is_ended_politely_then_firmly() {
        let process = Process::watch(shell("exec sleep 1000")).unwrap();
        assert_eq!(process.exit(), None);
        process.end().unwrap();
        assert_eq!(process.exit().as_deref(), Some("signal 15"));

        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; echo; exec sleep 1000"]).stdout(writer);
        let process = Process::watch(command.spawn().unwrap()).unwrap();
        // Its trap is set once it speaks; what is ignored stays so across exec.
        io::Read::read_exact(&mut reader, &mut [0]).unwrap();
        process.end().unwrap();
        assert_eq!(process.exit().as_deref(), Some("signal 9"));
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "a child that is adopted is collected by its watcher")]
    fn only_the_same_process_is_adopted() {
        let child = shell("exec sleep 1000");
        let time = crate::record::start_time(child.id()).unwrap();
        assert!(Process::adopt(child.id(), time + 1).unwrap().is_none());
        let process = Process::adopt(child.id(), time).unwrap().unwrap();
        assert_eq!(process.exit(), None);
        process.end().unwrap();
        assert!(Process::adopt(child.id(), time).unwrap().is_none());

        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut ended = Command::new("/bin/true").stdout(writer).spawn().unwrap();
        io::Read::read_to_end(&mut reader, &mut Vec::new()).unwrap();
        let time = crate::record::start_time(ended.id()).unwrap();
        let pidfd = open(ended.id()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert!(Process::adopt(ended.id(), time).unwrap().is_none(), "ended, though nobody has waited");
        ended.wait().unwrap();
    }
}
