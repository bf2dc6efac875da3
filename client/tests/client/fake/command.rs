//! A "guest's" command: a process here, on pipes or on a terminal.

use super::State;
use crate::{
    bus::code,
    pty::{Pty, resize},
};
use banger_dbus::{Dict, Error, ExecResult, Options};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    process::{Child, Command as Process},
    sync::Arc,
    thread,
};
use tokio::sync::watch;

/// What was asked for.
pub struct Asked {
    pub argv: Vec<String>,
    pub environment: Vec<String>,
    pub working_directory: Option<String>,
    pub tty: bool,
    pub size: (u16, u16),
}

impl Asked {
    pub fn read(argv: Vec<String>, options: Dict) -> Result<Self, Error> {
        let mut options = Options::new(options);
        let asked = Self {
            argv: if argv.is_empty() { vec!["echo".into(), "the image's own".into()] } else { argv },
            environment: options.take_or_default("environment")?,
            working_directory: options.take("working-directory")?,
            tty: options.take_or_default("tty")?,
            size: (options.take("rows")?.unwrap_or(24), options.take("columns")?.unwrap_or(80)),
        };
        let _: Option<String> = options.take("user")?;
        let _: Option<bool> = options.take("entrypoint")?;
        let _: Option<bool> = options.take("stdin")?;
        options.finish()?;
        Ok(asked)
    }
}

/// The client's ends.
pub struct Streams(pub OwnedFd, pub OwnedFd, pub OwnedFd);

pub struct Command {
    pid: rustix::process::Pid,
    pub end: watch::Sender<Option<ExecResult>>,
    terminal: Option<OwnedFd>,
    pub state: Arc<State>,
}

impl Command {
    pub fn start(state: Arc<State>, asked: Asked) -> Result<(Arc<Self>, Streams), Error> {
        let mut process = Process::new(&asked.argv[0]);
        process.args(&asked.argv[1..]).env_clear().env("PATH", "/usr/bin:/bin");
        process.envs(asked.environment.iter().filter_map(|entry| entry.split_once('=')));
        if let Some(folder) = asked.working_directory {
            process.current_dir(folder);
        }
        let pipe = || io::pipe().expect("a pipe");
        let ((stdin_read, stdin), (stdout, stdout_write), (stderr, stderr_write)) = (pipe(), pipe(), pipe());
        let (child, terminal) = if asked.tty {
            let pty = Pty::new(asked.size.0, asked.size.1);
            let child = pty.start(&process);
            let end = || File::from(pty.master.try_clone().expect("a descriptor"));
            let (mut typed, mut seen) = (end(), end());
            let (mut stdin_read, mut stdout_write) = (stdin_read, stdout_write);
            thread::spawn(move || io::copy(&mut stdin_read, &mut typed));
            // Its end reads as an error.
            thread::spawn(move || io::copy(&mut seen, &mut stdout_write));
            // Who keeps the other end would never see the end.
            (child, Some(pty.master))
        } else {
            let child = process.stdin(stdin_read).stdout(stdout_write).stderr(stderr_write).spawn();
            // This keeps the child's ends otherwise.
            drop(process);
            (child.map_err(|error| failed(&asked.argv[0], &error))?, None)
        };
        let command = Arc::new(Self {
            pid: rustix::process::Pid::from_child(&child),
            end: watch::Sender::new(None),
            terminal,
            state,
        });
        let waiting = command.clone();
        thread::spawn(move || waiting.wait(child));
        Ok((command, Streams(stdin.into(), stdout.into(), stderr.into())))
    }

    fn wait(&self, mut child: Child) {
        let end = match code(child.wait().expect("waited")) {
            signal if signal < 0 => ExecResult::Signal(-signal),
            code => ExecResult::Code(code),
        };
        self.end.send_replace(Some(end));
    }

    pub fn signal(&self, number: i32) {
        use rustix::process::{Signal, kill_process};
        if self.end.borrow().is_none() {
            let _ = kill_process(self.pid, Signal::from_named_raw(number).expect("a signal"));
        }
    }

    pub fn kill(&self) {
        self.signal(9);
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            resize(terminal, rows, columns);
        }
    }
}

fn failed(program: &str, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::CommandNotFound(format!("the guest has no program {program:?}")),
        ErrorKind::PermissionDenied => Error::CommandNotExecutable(format!("{program:?} cannot be executed")),
        _ => Error::Failed(error.to_string()),
    }
}
