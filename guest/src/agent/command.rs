//! A command that the host runs in the guest.

use super::{
    link::Outbox,
    stream::{Input, Output},
};
use crate::{
    ioctl,
    spawn::{Program, Starting, Stdio},
    users,
};
use banger_guest::wire::{
    ExecFailure, ExecSpec, ExitStatus, Kind, MOST_PAYLOAD, Step, StreamId, WindowSize, pack,
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::termios::{self, InputFlags, SetArg},
    unistd::{self, Gid, Pid, Uid, pipe2},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    time::{Duration, Instant},
};

/// How long after SIGHUP a command gets SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command that the host runs in the guest.
pub struct Command {
    stream: StreamId,
    pid: Pid,
    /// While it is not decided whether the program starts.
    starting: Option<Starting>,
    /// Both ends of the terminal. As long as the agent has one of the command's, nothing that the command does
    /// with its own looks like the terminal's end.
    terminal: Option<(File, OwnedFd)>,
    /// The terminal's session, which must last until everything was read.
    session: Option<OwnedFd>,
    pub input: Input,
    pub stdout: Output,
    pub stderr: Output,
    exit: Option<ExitStatus>,
    /// When it is killed.
    deadline: Option<Instant>,
}

/// A command's own ends of its descriptors, and the agent's.
struct Ends {
    theirs: Stdio,
    terminal: Option<(File, OwnedFd)>,
    input: Input,
    stdout: Output,
    stderr: Output,
}

impl Command {
    /// Starts what the host asks for.
    pub fn start(stream: StreamId, spec: &ExecSpec) -> Result<Self, ExecFailure> {
        let user = users::find(spec.user.as_deref())?;
        let program = Program::new(spec, user)?;
        let (uid, gid) = (program.user().uid, program.user().gid);
        let failed = |step| move |e: io::Error| ExecFailure::System(step, e.raw_os_error().unwrap_or(0));
        let ends = match spec.tty {
            Some(size) => terminal(size, spec.stdin, uid).map_err(failed(Step::Terminal))?,
            None => pipes(spec.stdin, uid, gid).map_err(failed(Step::Pipe))?,
        };
        let mut starting = program.start(ends.theirs)?;
        Ok(Self {
            stream,
            pid: starting.pid,
            session: starting.session.take(),
            starting: Some(starting),
            terminal: ends.terminal,
            input: ends.input,
            stdout: ends.stdout,
            stderr: ends.stderr,
            exit: None,
            deadline: None,
        })
    }

    /// The main process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// When it is to be killed, if it is.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.exit.is_none())
    }

    /// The descriptor that tells whether the program started, while that is open.
    pub fn watch_start(&self) -> Option<BorrowedFd<'_>> {
        self.starting.as_ref().map(Starting::report)
    }

    /// Looks whether the program started, and tells the host. Gives false when it did not.
    pub fn pump_start(&mut self, outbox: &mut Outbox) -> bool {
        match self.starting.as_mut().and_then(Starting::outcome) {
            Some(Ok(())) => {
                self.starting = None;
                outbox.push(Kind::Started, self.stream, &[]);
                true
            }
            Some(Err(failure)) => {
                refuse(self.stream, failure, outbox);
                false
            }
            None => true,
        }
    }

    /// Its main process has ended.
    pub fn ended(&mut self, status: ExitStatus) {
        self.exit = Some(status);
        self.stdout.last_call(self.terminal.is_some());
        self.stderr.last_call(self.terminal.is_some());
    }

    /// Passes on what there is of its output, and its end when that is all. Gives false after the end.
    pub fn pump(&mut self, outbox: &mut Outbox, scratch: &mut [u8; MOST_PAYLOAD]) -> bool {
        if self.starting.is_some() {
            return true;
        }
        self.stdout.pump(self.stream, outbox, scratch);
        self.stderr.pump(self.stream, outbox, scratch);
        match self.exit {
            Some(status) if self.stdout.is_done() && self.stderr.is_done() => {
                outbox.push(Kind::Exited, self.stream, &pack(&status).unwrap_or_default());
                false
            }
            _ => true,
        }
    }

    /// Whether its end waits only for the host to take output.
    pub fn is_ending(&self) -> bool {
        self.exit.is_some()
    }

    /// Whether there is something to do for its end without waiting for anything.
    pub fn is_due(&self) -> bool {
        self.is_ending() && (self.stdout.is_due() || self.stderr.is_due())
    }

    /// Gives its terminal another size.
    pub fn resize(&self, size: WindowSize) {
        if let Some((terminal, _)) = &self.terminal {
            // A terminal whose program has just gone has no size to set.
            let _ = ioctl::set_window_size(terminal, size);
        }
    }

    /// Sends a signal to its process group. After its end the number may be another's: nothing is sent.
    pub fn signal(&self, signal: i32) {
        if self.exit.is_none() {
            // Before its first own step the process leads no group yet.
            let group = ioctl::kill(-self.pid.as_raw(), signal);
            if group.is_err_and(|e| e.raw_os_error() == Some(libc::ESRCH)) {
                let _ = ioctl::kill(self.pid.as_raw(), signal);
            }
        }
    }

    /// Nobody is interested any more: closes everything and ends the command, kindly first.
    pub fn hang_up(&mut self) {
        self.input = Input::default();
        self.stdout.drop_file();
        self.stderr.drop_file();
        self.terminal = None;
        self.session = None;
        self.signal(libc::SIGHUP);
        self.signal(libc::SIGCONT);
        self.end_by(Instant::now() + PATIENCE);
    }

    /// The guest shuts down: shells that ignore SIGTERM must not hold it up.
    pub fn terminate(&mut self) {
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGCONT] {
            self.signal(signal);
        }
        self.end_by(Instant::now() + PATIENCE);
    }

    fn end_by(&mut self, deadline: Instant) {
        self.deadline = Some(self.deadline.map_or(deadline, |d| d.min(deadline)));
    }

    /// Kills it when its time is over.
    pub fn kill_if_due(&mut self, now: Instant) {
        if self.deadline().is_some_and(|d| d <= now) {
            self.signal(libc::SIGKILL);
            self.deadline = None;
        }
    }
}

/// Tells the host that a command does not start.
pub fn refuse(stream: StreamId, failure: ExecFailure, outbox: &mut Outbox) {
    outbox.push(Kind::Failed, stream, &pack(&failure).unwrap_or_default());
}

/// Three pipes, owned by the user so that `/dev/stdout` can be opened.
fn pipes(stdin: bool, uid: u32, gid: u32) -> io::Result<Ends> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Only root may give things away; anybody else runs commands as themselves.
        match unistd::fchown(&reader, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            Ok(()) | Err(Errno::EPERM) => Ok((reader, writer)),
            Err(e) => Err(e.into()),
        }
    };
    let ours = |fd: OwnedFd| -> io::Result<File> {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(File::from(fd))
    };
    let (input, writer) = match stdin {
        true => {
            let (reader, writer) = pipe()?;
            (reader, Some(ours(writer)?))
        }
        false => (File::open("/dev/null")?.into(), None),
    };
    let (stdout, output) = pipe()?;
    let (stderr, errors) = pipe()?;
    Ok(Ends {
        theirs: Stdio::Files([input, output, errors]),
        terminal: None,
        input: Input::new(writer, false),
        stdout: Output::stdout(Some(ours(stdout)?)),
        stderr: Output::stderr(Some(ours(stderr)?)),
    })
}

/// A terminal, owned by the user (pty(7)).
fn terminal(size: WindowSize, stdin: bool, uid: u32) -> io::Result<Ends> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let master = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/ptmx")?;
    let peer = ioctl::open_peer(&master)?;
    match unistd::fchown(&peer, Some(Uid::from_raw(uid)), None) {
        Ok(()) | Err(Errno::EPERM) => {}
        Err(e) => return Err(e.into()),
    }
    ioctl::set_window_size(&master, size)?;
    let mut settings = termios::tcgetattr(peer.as_fd())?;
    settings.input_flags |= InputFlags::IUTF8;
    termios::tcsetattr(peer.as_fd(), SetArg::TCSANOW, &settings)?;
    Ok(Ends {
        theirs: Stdio::Terminal(peer.try_clone()?),
        input: Input::new(if stdin { Some(master.try_clone()?) } else { None }, true),
        stdout: Output::stdout(Some(master.try_clone()?)),
        stderr: Output::stderr(None),
        terminal: Some((master, peer)),
    })
}
