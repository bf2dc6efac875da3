//! PID 1 of a guest whose image brings no init: keeps the agent running, runs the image's main process,
//! reaps what is left behind, and powers off.

use crate::{
    SELF, SETTINGS, ioctl,
    main_process::{MainFile, MainProcess},
    power,
    spawn::{Program, Stdio},
    users,
};
use banger_guest::{
    Settings,
    wire::{ExecFailure, ExecSpec, ExitStatus},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        reboot::set_cad_enabled,
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::Command,
    time::{Duration, Instant},
};

/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is looked whether all of them have ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long the host may take to learn how the main process ended, before the guest powers off.
const TELLING: Duration = Duration::from_secs(2);

struct Init {
    signals: SignalFd,
    agent: Option<Pid>,
    main: Option<Pid>,
    file: MainFile,
    /// Whether the guest lasts only as long as its main process.
    ends_with_main: bool,
    /// Whether that has ended.
    over: bool,
}

/// Runs until the guest is powered off. `agent` is the number of the agent's process, which already runs.
pub fn run(agent: &str) -> io::Result<()> {
    let off = [libc::SIGRTMIN() + 4, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPWR];
    let mut watched = off.to_vec();
    watched.push(libc::SIGCHLD);
    let set = ioctl::signal_set(&watched);
    set.thread_block()?;
    // Ctrl-Alt-Del shall be SIGINT rather than a reset.
    let _ = set_cad_enabled(false);
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut init = Init {
        signals,
        agent: agent.parse().ok().map(Pid::from_raw),
        main: None,
        file: MainFile::of_guest(),
        ends_with_main: false,
        over: false,
    };
    init.start_main();
    while !(init.over && init.ends_with_main) {
        match init.next_signal(None)? {
            Some(signal) if off.contains(&signal) => break,
            _ => init.reap(true),
        }
    }
    init.tell_the_host();
    init.end_everybody();
    power::off()
}

/// Starts the agent. It makes a session of its own for itself.
pub fn start_agent() -> io::Result<Pid> {
    let mut agent = Command::new(SELF);
    agent.arg0("@banger-guest").arg("agent").stdin(std::process::Stdio::null());
    Ok(Pid::from_raw(agent.spawn()?.id() as i32))
}

impl Init {
    fn start_main(&mut self) {
        let settings = fs::read(SETTINGS).ok().and_then(|text| Settings::from_json(&text).ok());
        let Some(settings) = settings else { return };
        self.ends_with_main = settings.ends_with_main;
        let Some(main) = settings.main else { return };
        let program = main.argv.first().cloned().unwrap_or_default();
        let spec = ExecSpec {
            argv: main.argv,
            env: main.env,
            cwd: main.cwd,
            user: main.user,
            tty: None,
            stdin: false,
        };
        match start(&spec) {
            Ok(pid) => {
                self.main = Some(pid);
                self.note(&MainProcess { pid: Some(pid.as_raw()), ended: None });
            }
            Err(failure) => {
                eprintln!("banger-guest: main process {program:?} does not start: {failure:?}");
                // What a shell and podman say of it.
                let code = match failure {
                    ExecFailure::NotFound => 127,
                    ExecFailure::NotExecutable(_) => 126,
                    _ => 125,
                };
                self.main_ended(ExitStatus::Code(code));
            }
        }
    }

    fn main_ended(&mut self, status: ExitStatus) {
        self.main = None;
        self.over = true;
        self.note(&MainProcess { pid: None, ended: Some(status) });
    }

    /// Writes it down for the agent, and wakes that up.
    fn note(&self, main: &MainProcess) {
        if let Err(error) = self.file.write(main) {
            eprintln!("banger-guest: how the main process is cannot be written down: {error}");
        }
        if let Some(agent) = self.agent {
            let _ = ioctl::kill(agent.as_raw(), libc::SIGCHLD);
        }
    }

    /// Waits until the host knows how the main process ended, where that ends the guest.
    fn tell_the_host(&mut self) {
        let deadline = Instant::now() + TELLING;
        while self.over && self.ends_with_main && !self.file.is_told() && Instant::now() < deadline {
            let _ = self.next_signal(Some(LOOK));
            self.reap(true);
        }
    }

    /// The next signal, or `None` when `patience` is over or the wait was interrupted.
    fn next_signal(&mut self, patience: Option<Duration>) -> io::Result<Option<i32>> {
        if let Some(info) = self.signals.read_signal()? {
            return Ok(Some(info.ssi_signo as i32));
        }
        let timeout =
            patience.map_or(PollTimeout::NONE, |p| PollTimeout::try_from(p).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(self.signals.read_signal()?.map(|info| info.ssi_signo as i32))
    }

    fn reap(&mut self, keep_agent: bool) {
        while let Ok(Some((pid, status))) = ioctl::reap() {
            if Some(pid) == self.main {
                self.main_ended(status);
                match status {
                    ExitStatus::Code(code) => eprintln!("banger-guest: main process exited with code {code}"),
                    ExitStatus::Signal(number) => {
                        eprintln!("banger-guest: main process was ended by signal {number}");
                    }
                }
            } else if Some(pid) == self.agent {
                self.agent = None;
                if keep_agent {
                    eprintln!("banger-guest: the agent has ended ({status:?}): starting it again");
                    match start_agent() {
                        Ok(pid) => self.agent = Some(pid),
                        Err(error) => eprintln!("banger-guest: the agent does not start: {error}"),
                    }
                }
            }
        }
    }

    /// Ends every process but the agent, which keeps the host informed to the end.
    fn end_everybody(&mut self) {
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGCONT] {
            let _ = ioctl::kill(-1, signal);
        }
        let deadline = Instant::now() + GRACE;
        while self.others_run() && Instant::now() < deadline {
            let _ = self.next_signal(Some(LOOK));
            self.reap(false);
        }
        let _ = ioctl::kill(-1, libc::SIGKILL);
        self.reap(false);
    }

    fn others_run(&self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else { return false };
        let pids = processes.flatten().filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != 1 && self.agent.is_none_or(|agent| agent.as_raw() != *pid)).any(|pid| {
            // Kernel threads and the dead have no command line.
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        })
    }
}

/// Starts the main process, with its output on the console.
fn start(spec: &ExecSpec) -> Result<Pid, ExecFailure> {
    let program = Program::new(spec, users::find(spec.user.as_deref())?)?;
    let failed =
        |e: io::Error| ExecFailure::System(banger_guest::wire::Step::Setup, e.raw_os_error().unwrap_or(0));
    let console = OpenOptions::new().write(true).open("/dev/console").map_err(failed)?;
    let errors = console.try_clone().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    let mut starting = program.start(Stdio::Files([null.into(), console.into(), errors.into()]))?;
    let report = &mut [PollFd::new(starting.report(), PollFlags::POLLIN)];
    while poll(report, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    match starting.outcome() {
        Some(Err(failure)) => Err(failure),
        _ => Ok(starting.pid),
    }
}
