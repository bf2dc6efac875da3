//! The agent: runs commands for the host, over one byte stream.
//!
//! One thread and one poll(2): a process without threads may fork as it likes, and with every buffer
//! bounded and nothing that blocks, one slow command never holds up another.

mod command;
mod figures;
mod identity;
mod link;
mod power;
mod session;
mod stream;
mod transport;
mod vsock;

use crate::{boot::Report, ioctl, main_process::MainFile, spawn, uevent};
use command::Command;
use link::{Incoming, Link};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::{SfdFlags, SignalFd},
    unistd::{Pid, setsid},
};
use power::{Guest, Power, Process};
use session::Session;
use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};
use transport::{Port, Transport};
use vsock::Vsock;

use banger_guest::wire::{ExitStatus, GuestInfo, Identity, Kind, MOST_PAYLOAD, StreamId};

/// How long the host's port may take to appear.
const PORT_PATIENCE: Duration = Duration::from_secs(30);

/// As many commands as may run need so many descriptors, and more.
const MOST_DESCRIPTORS: u64 = 8192;

/// Serves the host on its virtio-serial port, as long as the guest runs.
pub fn run() -> io::Result<()> {
    // What is sent to the group or the terminal of whoever started the agent is not meant for it.
    let _ = setsid();
    // Without the agent a guest is lost to its host: the kernel is to end it last.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let mut report = Report::load();
    // A VM has one of the two.
    let way = uevent::wait(PORT_PATIENCE, || {
        let port = Port::find().ok().map(|port| Box::new(port) as Box<dyn Transport>);
        port.or_else(|| vsock::has_device().then(|| Vsock::listen().ok())?.map(|vsock| Box::new(vsock) as _))
    })?;
    let way = way.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no port for the agent"))?;
    report.phase("agent");
    Agent::new(way, report.into_info(), Box::new(Guest), MainFile::of_guest(), identity::become_another)?
        .serve()
}

/// Serves one host on the socket that is standard input, as an ordinary process: a shutdown ends the process. What is
/// known of a main process is in the file `main`.
pub fn run_on_stdin(main: Option<&str>) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let main = MainFile::at(main.unwrap_or("/nonexistent"));
    Agent::new(socket, Report::default().into_info(), Box::new(Process), main, |_| {
        vec!["this is no guest".into()]
    })?
    .serve()
}

struct Agent<T> {
    link: Link<T>,
    session: Session,
    signals: SignalFd,
    power: Box<dyn Power>,
    scratch: Box<[u8; MOST_PAYLOAD]>,
    /// Which command was served first in the last round; the next one has its turn.
    turn: StreamId,
    /// Whether the host has gone for good.
    gone: bool,
}

/// What has become ready.
#[derive(Clone, Copy)]
enum Ready {
    Link,
    Child,
    Start(StreamId),
    Input(StreamId),
    Output(StreamId),
}

impl<T: Transport> Agent<T> {
    fn new(
        transport: T,
        info: GuestInfo,
        power: Box<dyn Power>,
        main: MainFile,
        identify: fn(&Identity) -> Vec<String>,
    ) -> io::Result<Self> {
        // SIGTERM is what an init sends to everybody at shutdown. The agent stays to the end.
        let blocked =
            [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE];
        ioctl::signal_set(&blocked).thread_block()?;
        spawn::allow_descriptors(MOST_DESCRIPTORS);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let mut link = Link::new(transport)?;
        // Should a host be there already, then what it talked to was an agent before this one.
        link.outbox.push(Kind::Lost, StreamId(0), &[]);
        Ok(Self {
            link,
            session: Session::new(info, main, identify),
            signals: SignalFd::with_flags(&ioctl::signal_set(&[libc::SIGCHLD]), flags)?,
            power,
            scratch: Box::new([0; MOST_PAYLOAD]),
            turn: StreamId(0),
            gone: false,
        })
    }

    /// The rounds of the agent. It returns when its host is gone and no other can come, and so are its commands.
    fn serve(mut self) -> io::Result<()> {
        loop {
            for ready in self.wait()? {
                self.handle(ready)?;
            }
            self.receive()?;
            self.progress();
            self.link.write()?;
            if self.link.outbox.is_empty() {
                self.session.all_told();
            }
            // Last, for it may be the end: then the host has been told.
            if let Some(halting) = &mut self.session.halting {
                halting.step(Instant::now(), &mut *self.power);
            }
            if self.gone && self.session.is_idle() {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do, and says what.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut ready = vec![Ready::Link, Ready::Child];
        let mut fds = vec![
            PollFd::new(self.link.watch(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let room = self.link.outbox.has_room();
        for (id, command) in &self.session.commands {
            if let Some(fd) = command.watch_start() {
                ready.push(Ready::Start(*id));
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
                continue;
            }
            if let Some((fd, waiting)) = command.input.watch() {
                ready.push(Ready::Input(*id));
                let interest = if waiting { PollFlags::POLLOUT } else { PollFlags::empty() };
                fds.push(PollFd::new(fd, interest));
            }
            for fd in [command.stdout.watch(), command.stderr.watch()].into_iter().flatten().filter(|_| room)
            {
                ready.push(Ready::Output(*id));
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let happened = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(ready.into_iter().zip(&fds).filter(|(_, fd)| happened(fd)).map(|(ready, _)| ready).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let due = || self.session.commands.values().any(Command::is_due);
        if self.link.is_busy() || (self.link.outbox.has_room() && due()) {
            return PollTimeout::ZERO;
        }
        let due = [self.session.deadline(), self.power_deadline()].into_iter().flatten().min();
        match due.map(|d| d.saturating_duration_since(Instant::now())) {
            // Rounded up: waking too early would only mean waking again.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        }
    }

    fn power_deadline(&self) -> Option<Instant> {
        self.session.halting.as_ref().map(|h| h.next())
    }

    fn handle(&mut self, ready: Ready) -> io::Result<()> {
        let outbox = &mut self.link.outbox;
        match ready {
            Ready::Link => self.link.changed()?,
            Ready::Child => self.reap()?,
            Ready::Start(id) => self.session.pump_start(id, outbox),
            Ready::Input(id) => {
                if let Some(command) = self.session.commands.get_mut(&id) {
                    match command.input.watch() {
                        Some((_, true)) => command.input.pump(id, outbox),
                        // Not asked for: its reader has gone.
                        _ => command.input.close(id, outbox),
                    }
                }
            }
            // Outputs take turns, in progress().
            Ready::Output(id) => self.session.mark_readable(id),
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        // PID 1 sends the same signal when it has written something down.
        self.session.look_at_main(&mut self.link.outbox);
        loop {
            match ioctl::reap() {
                Ok(Some((pid, status))) => self.child_ended(pid, status),
                Ok(None) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    fn child_ended(&mut self, pid: Pid, status: ExitStatus) {
        self.session.child_ended(pid, status, &mut self.link.outbox);
    }

    /// Takes what the host sent.
    fn receive(&mut self) -> io::Result<()> {
        match self.link.read(&mut self.scratch[..])? {
            Incoming::Bytes(n) => {
                self.session.take(&self.scratch[..n], &mut self.link.outbox);
            }
            Incoming::Nothing => {}
            Incoming::Gone => {
                self.session.lose(&mut self.link.outbox);
                self.gone = !self.link.reconnects();
            }
        }
        Ok(())
    }

    /// Moves outputs along, fairly, and kills what is due.
    fn progress(&mut self) {
        let turn = self.turn;
        let mut order: Vec<StreamId> = self.session.commands.keys().copied().collect();
        let split = order.partition_point(|id| *id <= turn);
        order.rotate_left(split);
        if let Some(first) = order.first() {
            self.turn = *first;
        }
        for id in order {
            self.session.pump(id, &mut self.link.outbox, &mut self.scratch);
        }
        self.session.kill_due(Instant::now());
    }
}
