//! What the host says, and what becomes of it.

use super::{
    command::{Command, refuse},
    figures,
    link::Outbox,
    power::Halting,
    stream::Broken,
};
use crate::{ioctl, main_process::MainFile};
use banger_guest::wire::{
    Decoder, ExecFailure, ExecSpec, ExitStatus, Frame, GuestInfo, Hello, Identity, Kind, MOST_EXECS,
    MOST_PAYLOAD, MOST_REQUEST, StreamId, VERSION, Welcome, pack, unpack,
};
use nix::unistd::{Pid, getppid};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// The state between this guest and its host.
pub struct Session {
    info: GuestInfo,
    decoder: Decoder,
    /// Whether a host has said hello.
    greeted: bool,
    /// What it said with it.
    nonce: [u8; 16],
    /// Every command that the host knows of.
    pub commands: BTreeMap<StreamId, Command>,
    readable: BTreeSet<StreamId>,
    /// Commands whose host is gone, until they are too.
    orphans: Vec<Command>,
    /// The request that is coming in, piece by piece.
    request: Option<(StreamId, Vec<u8>)>,
    newest: StreamId,
    /// Set once the guest is to shut down.
    pub halting: Option<Halting>,
    main: MainFile,
    /// Makes the guest another one; what went wrong, as sentences.
    identify: fn(&Identity) -> Vec<String>,
    /// How far the host is with the end of the main process.
    end: End,
}

/// What a host knows of the main process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unknown,
    Queued,
    Told,
}

impl Session {
    pub fn new(info: GuestInfo, main: MainFile, identify: fn(&Identity) -> Vec<String>) -> Self {
        Self {
            info,
            decoder: Decoder::hunting(Kind::Hello),
            greeted: false,
            nonce: [0; 16],
            commands: BTreeMap::new(),
            readable: BTreeSet::new(),
            orphans: Vec::new(),
            request: None,
            newest: StreamId(0),
            identify,
            halting: None,
            main,
            end: End::Unknown,
        }
    }

    /// Whether nothing of a host's is left.
    pub fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.orphans.is_empty()
    }

    /// Takes bytes from the host. When they are not the protocol, everything is reset and the host is told.
    pub fn take(&mut self, bytes: &[u8], outbox: &mut Outbox) {
        self.decoder.push(bytes);
        loop {
            let step = match self.decoder.pop() {
                Ok(Some(frame)) => self.frame(frame, outbox),
                Ok(None) => return,
                Err(_) => Err(Broken),
            };
            if step.is_err() {
                self.reset();
                self.decoder.hunt(Kind::Hello);
                outbox.push(Kind::Lost, StreamId(0), &[]);
            }
        }
    }

    /// The host is gone: its commands are ended, and a hello must come first.
    pub fn lose(&mut self, outbox: &mut Outbox) {
        self.reset();
        self.decoder.hunt(Kind::Hello);
        outbox.clear();
        // The next host may have come before this was noticed, and think that it is known.
        outbox.push(Kind::Lost, StreamId(0), &[]);
    }

    fn reset(&mut self) {
        self.greeted = false;
        self.end = End::Unknown;
        self.request = None;
        self.newest = StreamId(0);
        self.readable.clear();
        for (_, mut command) in std::mem::take(&mut self.commands) {
            if !command.is_ending() {
                command.hang_up();
                self.orphans.push(command);
            }
        }
    }

    fn frame(&mut self, frame: Frame, outbox: &mut Outbox) -> Result<(), Broken> {
        let Frame { kind, stream, payload } = frame;
        match kind {
            Kind::Hello => return self.hello(&payload, outbox),
            _ if !self.greeted => return Err(Broken),
            Kind::Ping | Kind::Shutdown | Kind::SignalMain | Kind::Measure | Kind::Identify
                if stream != StreamId(0) =>
            {
                return Err(Broken);
            }
            Kind::Ping => {
                let number: [u8; 8] = payload.try_into().map_err(|_| Broken)?;
                outbox.push(Kind::Pong, stream, &number);
                return Ok(());
            }
            Kind::Shutdown => {
                let grace = u32::from_le_bytes(payload.try_into().map_err(|_| Broken)?);
                self.shut_down(Duration::from_millis(grace.into()));
                outbox.push(Kind::ShuttingDown, stream, &[]);
                return Ok(());
            }
            Kind::SignalMain => {
                let signal = i32::from_le_bytes(payload.try_into().map_err(|_| Broken)?);
                let errno = self.signal_main(signal)?;
                outbox.push(Kind::MainSignalled, stream, &errno.to_le_bytes());
                return Ok(());
            }
            Kind::Measure => {
                outbox.push(Kind::Figures, stream, &pack(&figures::measure()).unwrap_or_default());
                return Ok(());
            }
            Kind::Identify => {
                let identity: Identity = serde_json::from_slice(&payload).map_err(|_| Broken)?;
                let warnings = match identity.is_sound() {
                    true => (self.identify)(&identity),
                    false => return Err(Broken),
                };
                outbox.push(Kind::Identified, stream, &pack(&warnings).map_err(|_| Broken)?);
                return Ok(());
            }
            Kind::ExecPart | Kind::Exec => return self.request(kind, stream, payload, outbox),
            _ => {}
        }
        use Kind::{Hangup, Resize, Signal, StderrCredit, Stdin, StdinEnd, StdoutCredit};
        let known = matches!(kind, Stdin | StdinEnd | StdoutCredit | StderrCredit | Resize | Signal | Hangup);
        if !known || stream == StreamId(0) || stream > self.newest {
            return Err(Broken);
        }
        // A frame may have crossed the command's end on the way.
        let Some(command) = self.commands.get_mut(&stream) else { return Ok(()) };
        match kind {
            Kind::Stdin => {
                command.input.take(&payload)?;
                command.input.pump(stream, outbox);
            }
            Kind::StdinEnd => {
                command.input.end();
                command.input.pump(stream, outbox);
            }
            Kind::StdoutCredit => command.stdout.grant(number(payload)?)?,
            Kind::StderrCredit => command.stderr.grant(number(payload)?)?,
            Kind::Resize => command.resize(message(&payload)?),
            Kind::Signal => match i32::from_le_bytes(payload.try_into().map_err(|_| Broken)?) {
                signal @ 1..=64 => command.signal(signal),
                _ => return Err(Broken),
            },
            Kind::Hangup => command.hang_up(),
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn hello(&mut self, payload: &[u8], outbox: &mut Outbox) -> Result<(), Broken> {
        let hello: Hello = message(payload)?;
        // A host says it again until it is answered.
        if !self.greeted || self.nonce != hello.nonce {
            self.reset();
            outbox.clear();
        }
        self.nonce = hello.nonce;
        self.greeted = (hello.oldest..=hello.newest).contains(&VERSION);
        let version = if self.greeted { VERSION } else { 0 };
        let mut welcome = Welcome { nonce: hello.nonce, version, info: self.info.clone() };
        let mut bytes = pack(&welcome).map_err(|_| Broken)?;
        if bytes.len() > Decoder::MOST_HUNTED {
            welcome.info.warnings.clear();
            welcome.info.phases.clear();
            bytes = pack(&welcome).map_err(|_| Broken)?;
        }
        outbox.push(Kind::Welcome, StreamId(0), &bytes);
        self.look_at_main(outbox);
        Ok(())
    }

    /// Takes a piece of a request; its last piece starts the command.
    fn request(
        &mut self,
        kind: Kind,
        stream: StreamId,
        payload: Vec<u8>,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        let mut bytes = match self.request.take() {
            Some((same, bytes)) if same == stream => bytes,
            None if stream > self.newest => Vec::new(),
            _ => return Err(Broken),
        };
        self.newest = stream;
        bytes.extend(payload);
        if bytes.len() > MOST_REQUEST {
            return Err(Broken);
        }
        if kind == Kind::ExecPart {
            self.request = Some((stream, bytes));
            return Ok(());
        }
        let spec: ExecSpec = message(&bytes)?;
        let started = match self.commands.len() + self.orphans.len() < MOST_EXECS {
            true => Command::start(stream, &spec),
            false => Err(ExecFailure::TooMany),
        };
        match started {
            Ok(command) => {
                self.commands.insert(stream, command);
            }
            Err(failure) => refuse(stream, failure, outbox),
        }
        Ok(())
    }

    /// Sends a signal to the main process, or to the image's own init where there is none of ours. Gives 0 or errno.
    fn signal_main(&self, signal: i32) -> Result<u32, Broken> {
        if !(1..=64).contains(&signal) {
            return Err(Broken);
        }
        let pid = match self.main.read() {
            Some(main) => main.pid,
            None if self.info.has_init => Some(1),
            None => None,
        };
        let sent = pid.map(|pid| ioctl::kill(pid, signal));
        let errno = match sent {
            Some(Ok(())) => 0,
            Some(Err(error)) => error.raw_os_error().unwrap_or(libc::EINVAL),
            None => libc::ESRCH,
        };
        Ok(errno.unsigned_abs())
    }

    /// Tells the host how the main process ended, once it has and the host does not know.
    pub fn look_at_main(&mut self, outbox: &mut Outbox) {
        if self.greeted
            && self.end == End::Unknown
            && let Some(ended) = self.main.read().and_then(|main| main.ended)
        {
            outbox.push(Kind::MainEnded, StreamId(0), &pack(&ended).unwrap_or_default());
            self.end = End::Queued;
        }
    }

    /// The host has been sent everything.
    pub fn all_told(&mut self) {
        if self.end == End::Queued {
            self.end = End::Told;
            self.main.set_told();
            // PID 1, which started the agent, may be waiting for this.
            let _ = ioctl::kill(getppid().as_raw(), libc::SIGCHLD);
        }
    }

    fn shut_down(&mut self, grace: Duration) {
        for command in self.commands.values_mut().chain(&mut self.orphans) {
            command.terminate();
        }
        let by = Instant::now() + grace;
        match &mut self.halting {
            // Asked again, it may only be meant to be quicker.
            Some(halting) => halting.hurry(by),
            None => self.halting = Some(Halting::begin(by)),
        }
    }

    /// Looks whether a program started.
    pub fn pump_start(&mut self, id: StreamId, outbox: &mut Outbox) {
        if let Some(command) = self.commands.get_mut(&id)
            && !command.pump_start(outbox)
            && let Some(command) = self.commands.remove(&id)
        {
            // Its process is about to end with nothing to tell.
            self.orphans.push(command);
        }
    }

    /// Remembers that a command has output.
    pub fn mark_readable(&mut self, id: StreamId) {
        self.readable.insert(id);
    }

    /// Moves a command's output along where there is any, and its end.
    pub fn pump(&mut self, id: StreamId, outbox: &mut Outbox, scratch: &mut [u8; MOST_PAYLOAD]) {
        let readable = self.readable.remove(&id);
        if let Some(command) = self.commands.get_mut(&id)
            && (readable || command.is_ending())
            && !command.pump(outbox, scratch)
        {
            self.commands.remove(&id);
        }
    }

    /// A child of the agent's has ended.
    pub fn child_ended(&mut self, pid: Pid, status: ExitStatus, outbox: &mut Outbox) {
        self.orphans.retain(|orphan| orphan.pid() != pid);
        let Some((id, command)) = self.commands.iter_mut().find(|(_, c)| c.pid() == pid) else { return };
        let id = *id;
        // The end may be noticed before the start.
        if !command.pump_start(outbox) {
            self.commands.remove(&id);
            return;
        }
        command.ended(status);
    }

    /// When the next command is to be killed.
    pub fn deadline(&self) -> Option<Instant> {
        self.commands.values().chain(&self.orphans).filter_map(Command::deadline).min()
    }

    /// Kills what has had its time.
    pub fn kill_due(&mut self, now: Instant) {
        for command in self.commands.values_mut().chain(&mut self.orphans) {
            command.kill_if_due(now);
        }
    }
}

fn message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Broken> {
    unpack(payload).map_err(|_| Broken)
}

fn number(payload: Vec<u8>) -> Result<u32, Broken> {
    Ok(u32::from_le_bytes(payload.try_into().map_err(|_| Broken)?))
}
