//! What init does all day: start programs, reap, restart what should run, end everything in the end.

use crate::{
    error::{Doing, HarnessError, Result},
    signals::{Signals, ended_children},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A service is given up after it ended this often within [`RESTART_WINDOW`]: oftener than a test kills it, and
/// less often than one that cannot start does by itself.
const RESTARTS: usize = 100;
/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(10);
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Makes the command that starts a service.
type Start = Box<dyn Fn() -> Result<Command>>;

/// Init's view of its children.
pub struct Supervisor {
    signals: Signals,
    logs: PathBuf,
    running: HashMap<Pid, &'static str>,
    restarted: HashMap<&'static str, Restarted>,
}

struct Restarted {
    start: Start,
    recent: VecDeque<Instant>,
}

impl Supervisor {
    /// A supervisor whose services log into the folder `logs`.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when signals cannot be caught.
    pub fn new(logs: PathBuf) -> Result<Self> {
        Ok(Self { signals: Signals::catch()?, logs, running: HashMap::new(), restarted: HashMap::new() })
    }

    /// The log of a service.
    pub fn log(&self, service: &str) -> PathBuf {
        self.logs.join(format!("{service}.log"))
    }

    /// The end of a service's log, for an error message.
    pub fn log_tail(&self, service: &str) -> String {
        tail(&self.log(service), 30)
    }

    /// Starts a service whose output goes to its log; standard output stays as `command` has it when `keep_stdout`.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when it cannot be started.
    pub fn start(
        &mut self,
        name: &'static str,
        mut command: Command,
        keep_stdout: bool,
    ) -> Result<std::process::Child> {
        let path = self.log(name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.doing(format!("open {}", path.display()))?;
        if !keep_stdout {
            command.stdout(log.try_clone().doing("share a log")?);
        }
        let child = command.stderr(log).spawn().doing(format!("start {name}"))?;
        self.running.insert(Pid::from_raw(child.id().cast_signed()), name);
        Ok(child)
    }

    /// Starts a service that is started again whenever it ends.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when it cannot be started the first time.
    pub fn keep(&mut self, name: &'static str, start: Start) -> Result<()> {
        let command = start()?;
        self.restarted.insert(name, Restarted { start, recent: VecDeque::new() });
        self.start(name, command, false).map(drop)
    }

    /// Runs `command` to its end, reaping and restarting meanwhile. SIGTERM and SIGHUP are passed on to it.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when it cannot be started.
    pub fn run(&mut self, mut command: Command) -> Result<i32> {
        let program = command.get_args().nth(2).unwrap_or_default().to_string_lossy().into_owned();
        let main = Pid::from_raw(command.spawn().doing(format!("start {program}"))?.id().cast_signed());
        loop {
            for (pid, code) in ended_children() {
                if pid == main {
                    return Ok(code);
                }
                self.ended(pid, code);
            }
            if let Some(signal @ (Signal::SIGTERM | Signal::SIGHUP)) = self.signals.next(None)? {
                // It may have ended in between, then there is nothing to pass on.
                let _ = kill(main, signal);
            }
        }
    }

    /// Ends these processes: SIGTERM, and SIGKILL for those that are still there after ten seconds.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when waiting fails.
    pub fn end(&mut self, pids: &[Pid]) -> Result<()> {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let until = Instant::now() + GRACE;
            for pid in pids {
                // Those that have ended meanwhile need no signal.
                let _ = kill(*pid, signal);
            }
            // What is not our child is reaped by its parent or, without one, by us: ask whether it is there.
            while pids.iter().any(|pid| kill(*pid, None).is_ok()) {
                let next = (Instant::now() + Duration::from_millis(20)).min(until);
                self.signals.next(Some(next))?;
                for (pid, _) in ended_children() {
                    self.running.remove(&pid);
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Ends the services of this name and starts them no more.
    ///
    /// # Errors
    /// [`HarnessError::Io`] when waiting fails.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        self.restarted.remove(name);
        let pids: Vec<Pid> = self.running.iter().filter(|(_, n)| **n == name).map(|(pid, _)| *pid).collect();
        self.end(&pids)
    }

    fn ended(&mut self, pid: Pid, code: i32) {
        let Some(name) = self.running.remove(&pid) else { return };
        let Some(service) = self.restarted.get_mut(name) else {
            eprintln!("{name} ended with code {code}; its log is {}", self.log(name).display());
            return;
        };
        let now = Instant::now();
        service.recent.retain(|time| now.duration_since(*time) < RESTART_WINDOW);
        service.recent.push_back(now);
        if service.recent.len() > RESTARTS {
            eprintln!(
                "{name} ended {} times in 10 seconds, the last time with code {code}:",
                service.recent.len()
            );
            eprintln!("{}", self.log_tail(name));
            self.restarted.remove(name);
            return;
        }
        let started = (service.start)().and_then(|command| self.start(name, command, false));
        if let Err(error) = started {
            eprintln!("{name} is not running: {error}");
        }
    }
}

/// The last lines of a text file; nothing when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// [`HarnessError::Program`] with the end of its standard error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let program = format!("{command:?}").replace('"', "");
    let output = command.output().doing(format!("run {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(HarnessError::Program { program, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
