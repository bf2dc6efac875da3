//! Shutting the guest down: its init is asked, and the agent sees to it that it happens.

use crate::{ioctl, power};
use nix::unistd::sync;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How often an init is asked. One that has just started does not listen yet.
const AGAIN: Duration = Duration::from_secs(1);

/// Over the power of a machine.
pub trait Power {
    /// Asks whoever is PID 1 to shut down.
    fn ask(&mut self);

    /// Powers off without asking.
    fn force(&mut self);
}

/// A shutdown that is under way.
pub struct Halting {
    by: Instant,
    again: Instant,
}

impl Halting {
    /// Syncs. The first step then asks, once the host has been told that it comes.
    pub fn begin(by: Instant) -> Self {
        sync();
        Self { by, again: Instant::now() }
    }

    /// It shall be through earlier.
    pub fn hurry(&mut self, by: Instant) {
        self.by = self.by.min(by);
    }

    /// When there is something to do.
    pub fn next(&self) -> Instant {
        self.by.min(self.again)
    }

    /// Does what is due.
    pub fn step(&mut self, now: Instant, power: &mut dyn Power) {
        if now >= self.by {
            power.force();
        } else if now >= self.again {
            power.ask();
            self.again = now + AGAIN;
        }
    }
}

/// The power of the guest.
pub struct Guest;

impl Power for Guest {
    fn ask(&mut self) {
        // systemd(1), and our own: SIGRTMIN+4 is "power off".
        let systemd = libc::SIGRTMIN() + 4;
        if listens_to(systemd) {
            let _ = ioctl::kill(1, systemd);
            return;
        }
        // busybox init: SIGUSR2 is "power off".
        if fs::read_link("/proc/1/exe").is_ok_and(|exe| exe.ends_with("busybox")) && listens_to(libc::SIGUSR2)
        {
            let _ = ioctl::kill(1, libc::SIGUSR2);
            return;
        }
        // Everybody else brings a program. It is one of our children, which the agent reaps.
        let programs = ["/sbin/poweroff", "/usr/sbin/poweroff", "/bin/poweroff", "/usr/bin/poweroff"];
        if let Some(program) = programs.into_iter().find(|p| Path::new(p).exists()) {
            let mut command = Command::new(program);
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // One that does not start is asked again, until the guest is powered off regardless.
            let _ = command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").spawn();
        }
    }

    fn force(&mut self) {
        power::off();
    }
}

/// Whether PID 1 waits for a signal: catches it, or has it blocked to read it from a descriptor. A signal
/// that PID 1 does not wait for is lost.
fn listens_to(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/1/status").unwrap_or_default();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigCgt:") | mask("SigBlk:")) >> (signal - 1) & 1 == 1
}

/// No power at all: an agent outside a guest.
pub struct Process;

impl Power for Process {
    fn ask(&mut self) {}

    fn force(&mut self) {
        std::process::exit(0);
    }
}
