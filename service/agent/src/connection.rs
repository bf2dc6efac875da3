//! What the tasks of a connection and the handles on its commands share.

use crate::{
    AgentError, Violation,
    stream::{Change, Stream},
};
use banger_guest::wire::{
    ExecFailure, ExitStatus, Figures, Frame, Kind, MOST_EXECS, StreamId, Welcome, unpack,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot, watch};

/// Most requests of one kind that wait for the guest's word.
const MOST_WAITERS: usize = 64;

/// One connection to a guest.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    /// Tells the writer that there is something to send.
    pub wake: Notify,
    ended: watch::Sender<Option<AgentError>>,
    /// How the guest's main process ended.
    pub main: watch::Sender<Option<ExitStatus>>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<StreamId, Arc<Line>>,
    newest: u32,
    /// Streams with something to send, each once, in the order of their turns.
    ready: VecDeque<Arc<Line>>,
    /// Frames of the connection itself.
    own: VecDeque<(Kind, Vec<u8>)>,
    /// Who waits for the newest ping, and its number.
    pinger: Option<oneshot::Sender<()>>,
    pinged: u64,
    shutdowns: VecDeque<oneshot::Sender<()>>,
    signals: VecDeque<oneshot::Sender<u32>>,
    figures: VecDeque<oneshot::Sender<Figures>>,
    identities: VecDeque<oneshot::Sender<Vec<String>>>,
}

/// A command's stream, with its end.
#[derive(Debug)]
pub struct Line {
    stream: Mutex<Stream>,
    end: watch::Sender<Option<Result<ExitStatus, AgentError>>>,
}

/// A panic elsewhere leaves these values whole: every change is made in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    pub fn stream(&self) -> MutexGuard<'_, Stream> {
        lock(&self.stream)
    }

    pub fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Whether it ended because the connection did.
    pub fn is_cut_off(&self) -> bool {
        matches!(*self.end.borrow(), Some(Err(_)))
    }

    /// Waits for the end.
    pub async fn end(&self) -> Result<ExitStatus, AgentError> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(AgentError::Closed)),
            Err(_) => Err(AgentError::Closed),
        }
    }

    fn finish(&self, outcome: Result<ExitStatus, AgentError>) {
        // First how it ended, then that: a reader who meets the end finds out whether it was cut off.
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(outcome);
            first
        });
        self.stream().over();
    }
}

impl Connection {
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            ended: watch::Sender::new(None),
            main: watch::Sender::new(None),
        }
    }

    /// Opens a stream for a command, and queues its request.
    pub fn open(
        &self,
        request: Vec<u8>,
        has_terminal: bool,
        has_input: bool,
        asker: oneshot::Sender<Result<(), ExecFailure>>,
    ) -> Result<Arc<Line>, AgentError> {
        let mut state = lock(&self.state);
        if let Some(error) = self.ended.borrow().clone() {
            return Err(error);
        }
        if state.streams.len() >= MOST_EXECS {
            return Err(AgentError::TooMany(MOST_EXECS));
        }
        state.newest = state.newest.checked_add(1).ok_or(AgentError::TooMany(u32::MAX as usize))?;
        let id = StreamId(state.newest);
        let mut stream = Stream::new(id, request, has_terminal, has_input, asker);
        stream.queued = true;
        let line = Arc::new(Line { stream: Mutex::new(stream), end: watch::Sender::new(None) });
        state.streams.insert(id, line.clone());
        // In the order of their numbers: the guest takes a lower one after a higher one for a mistake.
        state.ready.push_back(line.clone());
        drop(state);
        self.wake.notify_one();
        Ok(line)
    }

    /// Changes a stream, and has sent whatever follows from that.
    pub fn with<T>(&self, line: &Arc<Line>, change: impl FnOnce(&mut Stream) -> T) -> T {
        let mut stream = line.stream();
        let result = change(&mut stream);
        let queue = !std::mem::replace(&mut stream.queued, true);
        drop(stream);
        if queue {
            lock(&self.state).ready.push_back(line.clone());
            self.wake.notify_one();
        }
        result
    }

    /// The next frame to send. Streams take turns, so that no one of them keeps the others waiting.
    pub fn next(&self) -> Option<(Kind, StreamId, Vec<u8>)> {
        loop {
            let line = {
                let mut state = lock(&self.state);
                if let Some((kind, payload)) = state.own.pop_front() {
                    return Some((kind, StreamId(0), payload));
                }
                state.ready.pop_front()?
            };
            let mut stream = line.stream();
            let Some((kind, payload)) = stream.next() else {
                stream.queued = false;
                continue;
            };
            let id = stream.id();
            drop(stream);
            let mut state = lock(&self.state);
            // The pieces of a request stay together.
            match kind {
                Kind::ExecPart => state.ready.push_front(line),
                _ => state.ready.push_back(line),
            }
            return Some((kind, id, payload));
        }
    }

    /// Queues a ping; the receiver hears of the pong. A newer ping takes the place of an older one, for which
    /// nobody waits any more.
    pub fn ping(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        state.pinged += 1;
        state.pinger = Some(sender);
        let number = state.pinged.to_le_bytes().to_vec();
        state.own.retain(|(kind, _)| *kind != Kind::Ping);
        state.own.push_back((Kind::Ping, number));
        drop(state);
        self.wake.notify_one();
        receiver
    }

    /// Queues a shutdown; the receiver hears when the guest has begun.
    pub fn shutdown(&self, grace: u32) -> Result<oneshot::Receiver<()>, AgentError> {
        self.request(|state| &mut state.shutdowns, Kind::Shutdown, grace.to_le_bytes().to_vec())
    }

    /// Queues a signal for the main process; the receiver hears what came of it.
    pub fn signal_main(&self, signal: i32) -> Result<oneshot::Receiver<u32>, AgentError> {
        self.request(|state| &mut state.signals, Kind::SignalMain, signal.to_le_bytes().to_vec())
    }

    /// Queues a measurement; the receiver gets it.
    pub fn measure(&self) -> Result<oneshot::Receiver<Figures>, AgentError> {
        self.request(|state| &mut state.figures, Kind::Measure, Vec::new())
    }

    /// Queues what the guest is from now on; the receiver gets what went wrong with that.
    pub fn identify(&self, identity: Vec<u8>) -> Result<oneshot::Receiver<Vec<String>>, AgentError> {
        self.request(|state| &mut state.identities, Kind::Identify, identity)
    }

    /// Queues a request that the guest answers in the order of asking. Who gives up keeps their place in the row: the
    /// guest's answer is still to come.
    fn request<T>(
        &self,
        row: fn(&mut State) -> &mut VecDeque<oneshot::Sender<T>>,
        kind: Kind,
        payload: Vec<u8>,
    ) -> Result<oneshot::Receiver<T>, AgentError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if row(&mut state).len() >= MOST_WAITERS {
            return Err(AgentError::Invalid("the guest owes too many answers"));
        }
        row(&mut state).push_back(sender);
        state.own.push_back((kind, payload));
        drop(state);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Takes a frame of the guest's.
    pub fn take(&self, frame: &Frame) -> Result<(), Violation> {
        let unexpected = || Violation::Unexpected { kind: frame.kind, stream: frame.stream };
        if frame.kind == Kind::Lost {
            return Err(Violation::Lost);
        }
        if frame.stream == StreamId(0) {
            return self.take_own(frame).ok_or_else(unexpected);
        }
        let line = lock(&self.state).streams.get(&frame.stream).cloned().ok_or_else(unexpected)?;
        match self.with(&line, |stream| stream.take(frame))? {
            Change::None => {}
            Change::Refused => {
                lock(&self.state).streams.remove(&frame.stream);
                line.finish(Err(AgentError::Closed));
            }
            Change::Exited(status) => {
                lock(&self.state).streams.remove(&frame.stream);
                line.finish(Ok(status));
            }
        }
        Ok(())
    }

    /// Takes a frame of the connection's own. `None` when it has no place.
    fn take_own(&self, frame: &Frame) -> Option<()> {
        let mut state = lock(&self.state);
        let waiter = match frame.kind {
            Kind::Pong => {
                let number = u64::from_le_bytes(frame.payload.as_slice().try_into().ok()?);
                match number == state.pinged {
                    true => state.pinger.take()?,
                    // Late, for somebody who did not wait.
                    false => return (1..state.pinged).contains(&number).then_some(()),
                }
            }
            Kind::ShuttingDown if frame.payload.is_empty() => state.shutdowns.pop_front()?,
            Kind::MainSignalled => {
                let errno = u32::from_le_bytes(frame.payload.as_slice().try_into().ok()?);
                let _ = state.signals.pop_front()?.send(errno);
                return Some(());
            }
            Kind::Figures => {
                let figures: Figures = unpack(&frame.payload).ok().filter(Figures::is_bounded)?;
                let _ = state.figures.pop_front()?.send(figures);
                return Some(());
            }
            Kind::Identified => {
                let failures: Vec<String> = unpack(&frame.payload).ok()?;
                let bounded = |text: &String| text.len() <= 4 * 256 && !text.chars().any(char::is_control);
                let sound = failures.len() <= 64 && failures.iter().all(bounded);
                let _ = state.identities.pop_front().filter(|_| sound)?.send(failures);
                return Some(());
            }
            Kind::MainEnded => {
                let status: ExitStatus = unpack(&frame.payload).ok().filter(ExitStatus::is_possible)?;
                self.main.send_if_modified(|main| main.replace(status).is_none());
                return Some(());
            }
            // The answer to a hello that was said twice.
            Kind::Welcome => return unpack::<Welcome>(&frame.payload).ok().map(drop),
            _ => return None,
        };
        // Whoever asked may have lost interest.
        let _ = waiter.send(());
        Some(())
    }

    /// The connection is over, for the first reason that is given.
    pub fn end(&self, error: AgentError) {
        let streams = {
            let mut state = lock(&self.state);
            self.ended.send_if_modified(|ended| {
                let first = ended.is_none();
                ended.get_or_insert(error);
                first
            });
            std::mem::take(&mut *state).streams
        };
        let error = self.ended.borrow().clone().unwrap_or(AgentError::Closed);
        for line in streams.into_values() {
            line.finish(Err(error.clone()));
        }
        self.wake.notify_one();
    }

    /// What ended the connection, if it has.
    pub fn error(&self) -> Option<AgentError> {
        self.ended.borrow().clone()
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) -> AgentError {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(AgentError::Closed),
            Err(_) => AgentError::Closed,
        }
    }
}
