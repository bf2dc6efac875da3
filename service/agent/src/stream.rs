//! The host's side of one command: what it may receive, and what it has to send. No I/O happens here.

use crate::Violation;
use banger_guest::wire::{
    ExecFailure, ExitStatus, Frame, INPUT_WINDOW, Kind, MOST_PAYLOAD, OUTPUT_WINDOW, StreamId, WindowSize,
    pack, unpack,
};
use std::{collections::VecDeque, task::Waker};
use tokio::sync::oneshot;

/// Most bytes of input that wait here for the guest to have room.
const INPUT_QUEUE: usize = 64 << 10;

/// Most signals on their way.
const MOST_SIGNALS: usize = 64;

/// A frame's kind and payload, to be sent on a stream.
pub type Outgoing = (Kind, Vec<u8>);

/// One command.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    phase: Phase,
    has_terminal: bool,
    /// The rest of the request.
    request: VecDeque<u8>,
    signals: VecDeque<i32>,
    size: Option<WindowSize>,
    pub input: Input,
    pub stdout: Output,
    pub stderr: Output,
    hangup: Owed,
    /// Whether the writer knows that there is something to send.
    pub queued: bool,
}

#[derive(Debug)]
enum Phase {
    /// The guest was asked to start it; whoever asked waits here.
    Asked(Option<oneshot::Sender<Result<(), ExecFailure>>>),
    Running,
    Over,
}

/// What a frame did to a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// It goes on.
    None,
    /// It was the last frame of a command that did not start.
    Refused,
    /// It was the last frame.
    Exited(ExitStatus),
}

/// Something to be sent once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    No,
    Yes,
    Sent,
}

/// Standard input on its way to the guest.
#[derive(Debug)]
pub struct Input {
    waiting: VecDeque<u8>,
    /// Bytes that the guest has room for.
    credit: u32,
    end: Owed,
    /// Nothing reads it (any more).
    closed: bool,
    waker: Option<Waker>,
}

/// An output on its way from the guest.
#[derive(Debug)]
pub struct Output {
    waiting: VecDeque<u8>,
    /// Bytes that the guest may still send.
    window: u32,
    /// Bytes that were read here since the guest was last told.
    owed: u32,
    ended: bool,
    /// Nobody reads it: what comes is discarded.
    dropped: bool,
    waker: Option<Waker>,
}

impl Stream {
    pub fn new(
        id: StreamId,
        request: Vec<u8>,
        has_terminal: bool,
        has_input: bool,
        asker: oneshot::Sender<Result<(), ExecFailure>>,
    ) -> Self {
        let output = |ended| Output {
            waiting: VecDeque::new(),
            window: OUTPUT_WINDOW,
            owed: 0,
            ended,
            dropped: false,
            waker: None,
        };
        Self {
            id,
            phase: Phase::Asked(Some(asker)),
            has_terminal,
            request: request.into(),
            signals: VecDeque::new(),
            size: None,
            input: Input {
                waiting: VecDeque::new(),
                credit: INPUT_WINDOW,
                end: Owed::No,
                closed: !has_input,
                waker: None,
            },
            stdout: output(false),
            stderr: output(has_terminal),
            hangup: Owed::No,
            queued: false,
        }
    }

    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Takes a frame of the guest's.
    pub fn take(&mut self, frame: &Frame) -> Result<Change, Violation> {
        let unexpected = || Violation::Unexpected { kind: frame.kind, stream: frame.stream };
        match (&mut self.phase, frame.kind) {
            (Phase::Asked(asker), Kind::Started | Kind::Failed) if self.request.is_empty() => {
                let asker = asker.take();
                let (outcome, phase, change) = match frame.kind {
                    Kind::Started if frame.payload.is_empty() => (Ok(()), Phase::Running, Change::None),
                    Kind::Started => return Err(unexpected()),
                    _ => (Err(unpack(&frame.payload)?), Phase::Over, Change::Refused),
                };
                self.phase = phase;
                // Whoever asked may have lost interest.
                let _ = asker.map(|asker| asker.send(outcome));
                Ok(change)
            }
            (Phase::Running, Kind::Exited) => {
                let status = unpack(&frame.payload)?;
                if !matches!(status, ExitStatus::Code(0..=255) | ExitStatus::Signal(1..=64)) {
                    return Err(Violation::Range("an exit status"));
                }
                self.over();
                Ok(Change::Exited(status))
            }
            (Phase::Running, kind) => {
                let id = self.id;
                let bare = frame.payload.is_empty();
                match kind {
                    Kind::Stdout => self.stdout.take(id, &frame.payload)?,
                    Kind::Stderr if !self.has_terminal => self.stderr.take(id, &frame.payload)?,
                    Kind::StdoutEnd if bare && !self.stdout.ended => self.stdout.end(),
                    Kind::StderrEnd if bare && !self.stderr.ended => self.stderr.end(),
                    Kind::StdinClosed if bare => self.input.close(),
                    Kind::StdinCredit => self.input.grant(id, &frame.payload)?,
                    _ => return Err(unexpected()),
                }
                Ok(Change::None)
            }
            _ => Err(unexpected()),
        }
    }

    /// There will be no further frame, for whatever reason.
    pub fn over(&mut self) {
        self.phase = Phase::Over;
        self.request.clear();
        self.input.close();
        self.stdout.end();
        self.stderr.end();
    }

    /// The next frame to send, most urgent first.
    pub fn next(&mut self) -> Option<Outgoing> {
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        if !self.request.is_empty() {
            let part: Vec<u8> = self.request.drain(..self.request.len().min(MOST_PAYLOAD)).collect();
            let kind = if self.request.is_empty() { Kind::Exec } else { Kind::ExecPart };
            return Some((kind, part));
        }
        if let Some(signal) = self.signals.pop_front() {
            return Some((Kind::Signal, signal.to_le_bytes().to_vec()));
        }
        if let Some(payload) = self.size.take().and_then(|size| pack(&size).ok()) {
            return Some((Kind::Resize, payload));
        }
        for (output, kind) in [(&mut self.stdout, Kind::StdoutCredit), (&mut self.stderr, Kind::StderrCredit)]
        {
            if let Some(credit) = output.pay() {
                return Some((kind, credit.to_le_bytes().to_vec()));
            }
        }
        if let Some(frame) = self.input.next() {
            return Some(frame);
        }
        if self.hangup == Owed::Yes {
            self.hangup = Owed::Sent;
            return Some((Kind::Hangup, Vec::new()));
        }
        None
    }

    /// Queues a signal. Gives false when too many are queued.
    pub fn signal(&mut self, number: i32) -> bool {
        if self.signals.len() >= MOST_SIGNALS {
            return false;
        }
        self.signals.push_back(number);
        true
    }

    /// Queues a new size of the terminal; only the last one counts.
    pub fn resize(&mut self, size: WindowSize) {
        self.size = self.has_terminal.then_some(size);
    }

    /// Queues the hangup.
    pub fn hang_up(&mut self) {
        if self.hangup == Owed::No {
            self.hangup = Owed::Yes;
        }
        self.input.close();
    }
}

impl Input {
    /// Takes bytes to send: how many, or `None` when there is no room.
    pub fn write(&mut self, bytes: &[u8], waker: &Waker) -> Option<usize> {
        let taken = INPUT_QUEUE.saturating_sub(self.waiting.len()).min(bytes.len());
        if taken == 0 && !bytes.is_empty() {
            self.waker = Some(waker.clone());
            return None;
        }
        self.waiting.extend(&bytes[..taken]);
        Some(taken)
    }

    /// Whether it takes no more.
    pub fn is_closed(&self) -> bool {
        self.closed || self.end != Owed::No
    }

    /// Queues the end.
    pub fn end(&mut self) {
        if self.end == Owed::No {
            self.end = Owed::Yes;
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.waiting = VecDeque::new();
        self.wake();
    }

    fn grant(&mut self, id: StreamId, payload: &[u8]) -> Result<(), Violation> {
        let credit = payload.try_into().map(u32::from_le_bytes).map_err(|_| Violation::Range("a credit"))?;
        let total = self.credit.checked_add(credit).filter(|total| *total <= INPUT_WINDOW);
        self.credit = total.ok_or(Violation::Window(id))?;
        Ok(())
    }

    fn next(&mut self) -> Option<Outgoing> {
        let length = self.waiting.len().min(self.credit as usize).min(MOST_PAYLOAD);
        if length > 0 {
            let bytes: Vec<u8> = self.waiting.drain(..length).collect();
            self.credit -= length as u32;
            self.wake();
            return Some((Kind::Stdin, bytes));
        }
        if self.waiting.is_empty() && self.end == Owed::Yes && !self.closed {
            self.end = Owed::Sent;
            return Some((Kind::StdinEnd, Vec::new()));
        }
        None
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Output {
    fn take(&mut self, id: StreamId, bytes: &[u8]) -> Result<(), Violation> {
        let length = u32::try_from(bytes.len()).map_err(|_| Violation::Window(id))?;
        let left = self.window.checked_sub(length).filter(|_| !self.ended && length > 0);
        self.window = left.ok_or(Violation::Window(id))?;
        if self.dropped {
            self.owed += length;
        } else {
            self.waiting.extend(bytes);
            self.wake();
        }
        Ok(())
    }

    /// Takes bytes that have come: how many, or `None` when there are none yet. 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8], waker: &Waker) -> Option<usize> {
        let chunk = self.waiting.as_slices().0;
        let length = chunk.len().min(buffer.len());
        if length == 0 && !buffer.is_empty() && !self.ended {
            self.waker = Some(waker.clone());
            return None;
        }
        buffer[..length].copy_from_slice(&chunk[..length]);
        self.waiting.drain(..length);
        self.owed += length as u32;
        Some(length)
    }

    /// Nobody reads it any more.
    pub fn discard(&mut self) {
        self.dropped = true;
        self.owed += self.waiting.len() as u32;
        self.waiting = VecDeque::new();
    }

    /// What the guest is to be told of room, in pieces that are worth a frame.
    fn pay(&mut self) -> Option<u32> {
        let worth = self.owed >= OUTPUT_WINDOW / 4 || (self.owed > 0 && self.waiting.is_empty());
        if self.ended || !worth {
            return None;
        }
        self.window += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: StreamId = StreamId(7);

    fn asked(terminal: bool) -> (Stream, oneshot::Receiver<Result<(), ExecFailure>>) {
        let (asker, answer) = oneshot::channel();
        let mut stream = Stream::new(ID, vec![1; MOST_PAYLOAD + 1], terminal, true, asker);
        assert_eq!(stream.next().unwrap().0, Kind::ExecPart);
        assert_eq!(stream.next().unwrap().0, Kind::Exec);
        assert_eq!(stream.next(), None);
        (stream, answer)
    }

    fn running(terminal: bool) -> Stream {
        let (mut stream, mut answer) = asked(terminal);
        stream.take(&frame(Kind::Started, &[])).unwrap();
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        stream
    }

    fn frame(kind: Kind, payload: &[u8]) -> Frame {
        Frame { kind, stream: ID, payload: payload.to_vec() }
    }

    fn exited(status: ExitStatus) -> Frame {
        frame(Kind::Exited, &pack(&status).unwrap())
    }

    fn read(output: &mut Output, length: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; length];
        output.read(&mut buffer, Waker::noop()).map(|n| buffer[..n].to_vec())
    }

    #[test]
    fn an_answer_comes_after_the_whole_question() {
        let (asker, _answer) = oneshot::channel();
        let mut stream = Stream::new(ID, vec![1], false, true, asker);
        assert!(matches!(stream.take(&frame(Kind::Started, &[])), Err(Violation::Unexpected { .. })));
    }

    #[test]
    fn a_refusal_reaches_whoever_asked() {
        let (mut stream, mut answer) = asked(false);
        let change = stream.take(&frame(Kind::Failed, &pack(&ExecFailure::NotFound).unwrap()));
        assert_eq!(change, Ok(Change::Refused));
        assert_eq!(answer.try_recv(), Ok(Err(ExecFailure::NotFound)));
        assert!(stream.take(&frame(Kind::Started, &[])).is_err());
    }

    #[test]
    fn what_a_state_does_not_expect_is_refused() {
        let (mut stream, _answer) = asked(false);
        for kind in [Kind::Stdout, Kind::StdoutEnd, Kind::StdinCredit, Kind::Exited, Kind::Pong, Kind::Stdin]
        {
            assert!(stream.take(&frame(kind, &[])).is_err(), "{kind:?} before the start");
        }
        for kind in [Kind::Started, Kind::Failed, Kind::Hello, Kind::Stdin, Kind::Exec, Kind::Resize] {
            assert!(running(false).take(&frame(kind, &[])).is_err(), "{kind:?} afterwards");
        }
        assert!(
            running(true).take(&frame(Kind::Stderr, b"x")).is_err(),
            "a terminal has no errors of its own"
        );
        let mut stream = running(false);
        stream.take(&frame(Kind::StdoutEnd, &[])).unwrap();
        assert!(stream.take(&frame(Kind::StdoutEnd, &[])).is_err(), "the end twice");
        assert!(stream.take(&frame(Kind::Stdout, b"x")).is_err(), "output after its end");
        stream.take(&exited(ExitStatus::Code(0))).unwrap();
        assert!(stream.take(&exited(ExitStatus::Code(0))).is_err(), "exited twice");
    }

    #[test]
    fn an_exit_status_is_in_its_range() {
        for status in
            [ExitStatus::Code(-1), ExitStatus::Code(256), ExitStatus::Signal(0), ExitStatus::Signal(65)]
        {
            assert!(running(false).take(&exited(status)).is_err(), "{status:?}");
        }
        for status in [ExitStatus::Code(0), ExitStatus::Code(255), ExitStatus::Signal(64)] {
            assert_eq!(running(false).take(&exited(status)), Ok(Change::Exited(status)));
        }
    }

    #[test]
    fn a_guest_cannot_send_more_than_the_window() {
        let mut stream = running(false);
        for _ in 0..OUTPUT_WINDOW as usize / MOST_PAYLOAD {
            stream.take(&frame(Kind::Stdout, &[0; MOST_PAYLOAD])).unwrap();
        }
        assert_eq!(stream.take(&frame(Kind::Stdout, b"x")), Err(Violation::Window(ID)));
        assert_eq!(stream.next(), None, "nothing was read, so there is no more room");
        stream.take(&frame(Kind::Stderr, b"x")).unwrap();
    }

    #[test]
    fn a_guest_cannot_grant_more_than_the_window() {
        let mut stream = running(false);
        assert_eq!(stream.take(&frame(Kind::StdinCredit, &1u32.to_le_bytes())), Err(Violation::Window(ID)));
        assert!(stream.take(&frame(Kind::StdinCredit, &[1])).is_err());
    }

    #[test]
    fn reading_opens_the_window_again() {
        let mut stream = running(false);
        stream.take(&frame(Kind::Stdout, b"hello")).unwrap();
        assert_eq!(read(&mut stream.stdout, 3), Some(b"hel".to_vec()));
        assert_eq!(stream.next(), None, "two bytes still wait");
        assert_eq!(read(&mut stream.stdout, 9), Some(b"lo".to_vec()));
        assert_eq!(stream.next(), Some((Kind::StdoutCredit, 5u32.to_le_bytes().to_vec())));
        assert_eq!(read(&mut stream.stdout, 9), None);
        stream.stdout.discard();
        stream.take(&frame(Kind::Stdout, b"more")).unwrap();
        assert_eq!(stream.next(), Some((Kind::StdoutCredit, 4u32.to_le_bytes().to_vec())));
    }

    #[test]
    fn output_is_read_to_its_end_after_the_exit() {
        let mut stream = running(false);
        stream.take(&frame(Kind::Stdout, b"bye")).unwrap();
        stream.take(&exited(ExitStatus::Signal(9))).unwrap();
        assert_eq!(read(&mut stream.stdout, 9), Some(b"bye".to_vec()));
        assert_eq!(read(&mut stream.stdout, 9), Some(vec![]));
        assert_eq!(read(&mut stream.stderr, 9), Some(vec![]));
        assert_eq!(stream.next(), None, "nothing is sent after the end");
    }

    #[test]
    fn the_end_of_input_comes_after_the_input() {
        let mut stream = running(false);
        let bytes = vec![5; INPUT_QUEUE];
        let mut sent = 0;
        assert_eq!(stream.input.write(&bytes, Waker::noop()), Some(INPUT_QUEUE));
        assert_eq!(stream.input.write(b"x", Waker::noop()), None, "the queue is bounded");
        while let Some((kind, payload)) = stream.next() {
            assert_eq!(kind, Kind::Stdin);
            sent += payload.len();
            let _ = stream.input.write(&bytes, Waker::noop());
        }
        assert_eq!(sent, INPUT_WINDOW as usize, "and so is what is on its way");
        stream.input.end();
        assert_eq!(stream.next(), None);
        stream.take(&frame(Kind::StdinCredit, &INPUT_WINDOW.to_le_bytes())).unwrap();
        assert_eq!(stream.next().unwrap().0, Kind::Stdin);
        assert_eq!(stream.next().unwrap().0, Kind::Stdin);
        assert_eq!(stream.next().unwrap().0, Kind::StdinEnd);
        assert_eq!(stream.next(), None);
    }

    #[test]
    fn signals_are_bounded_and_hangup_is_said_once() {
        let mut stream = running(false);
        let accepted = (0..1000).filter(|_| stream.signal(15)).count();
        assert_eq!(accepted, MOST_SIGNALS);
        while let Some((Kind::Signal, _)) = stream.next() {}
        stream.hang_up();
        stream.hang_up();
        assert_eq!(stream.next(), Some((Kind::Hangup, vec![])));
        assert_eq!(stream.next(), None);
    }

    proptest! {
        #[test]
        fn any_frames_keep_the_buffers_bounded(
            frames in prop::collection::vec((0u8..50, prop::collection::vec(any::<u8>(), 0..3), 0usize..40_000), 0..60)
        ) {
            let mut stream = running(false);
            for (kind, head, length) in frames {
                let Ok(kind) = Kind::try_from(kind) else { continue };
                let mut payload = head;
                payload.resize(length.min(MOST_PAYLOAD), 0);
                let _ = stream.take(&frame(kind, &payload));
                prop_assert!(stream.stdout.waiting.len() <= OUTPUT_WINDOW as usize);
                prop_assert!(stream.stderr.waiting.len() <= OUTPUT_WINDOW as usize);
                prop_assert!(stream.input.credit <= INPUT_WINDOW);
            }
        }
    }
}
