//! Frames: how messages are cut out of a byte stream, and found again after it broke.

use std::fmt;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = [0xba, 0x6e, 0xf7, 0xa5];

/// Length of a frame's header: magic (4), kind (1), zero (1), payload length (2), stream (4), CRC-32 (4) of
/// the twelve bytes before it and the payload. Numbers are little-endian.
pub const HEADER: usize = 16;

/// Most bytes of payload in one frame.
pub const MOST_PAYLOAD: usize = 32 << 10;

/// Which command a frame belongs to; 0 is the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// A frame: one message, or a piece of a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Where it belongs.
    pub stream: StreamId,
    /// What it says.
    pub payload: Vec<u8>,
}

/// What came is not the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame does not begin as frames do.
    #[error("a frame without its magic number")]
    Magic,
    /// A frame of a kind that does not exist.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A frame announces more than a frame may hold.
    #[error("a frame of {0} bytes")]
    Length(u16),
    /// A frame was damaged.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// A frame's payload is not what its kind says.
    #[error("a frame whose payload cannot be read")]
    Payload,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl TryFrom<u8> for Kind {
            type Error = WireError;

            fn try_from(number: u8) -> Result<Self, WireError> {
                match number {
                    $($number => Ok(Kind::$name),)*
                    other => Err(WireError::Kind(other)),
                }
            }
        }

        #[cfg(test)]
        const KINDS: &[Kind] = &[$(Kind::$name),*];
    };
}

kinds! {
    /// Host, connection: [`super::Hello`].
    Hello = 1,
    /// Guest, connection: [`super::Welcome`].
    Welcome = 2,
    /// Host, connection: a `u64` that comes back.
    Ping = 3,
    /// Guest, connection: the ping's `u64`.
    Pong = 4,
    /// Host, connection: shut down; `u32`, milliseconds until the guest powers off regardless.
    Shutdown = 5,
    /// Guest, connection: the shutdown has begun; filesystems were synced once. Empty.
    ShuttingDown = 6,
    /// Guest, connection: what came was not the protocol, or another agent was there before; everything was
    /// dropped, and a hello must come. Empty.
    Lost = 7,
    /// Guest, connection: the guest's main process ended, [`super::ExitStatus`].
    MainEnded = 8,
    /// Host, connection: a signal for the guest's main process, `i32`; its init, where that is the image's own.
    SignalMain = 9,
    /// Guest, connection: the signal was sent, 0, or why not (errno), `u32`.
    MainSignalled = 10,
    /// Host, connection: measure. Empty.
    Measure = 11,
    /// Guest, connection: [`super::Figures`].
    Figures = 12,
    /// Host, connection: the guest goes on after a snapshot, [`super::Identity`] as JSON.
    Identify = 13,
    /// Guest, connection: what went wrong with that, `Vec<String>`; empty when nothing did.
    Identified = 14,
    /// Host, command: a piece of a request that goes on in the next frame of this stream.
    ExecPart = 16,
    /// Host, command: the last piece of a request, [`super::ExecSpec`].
    Exec = 17,
    /// Guest, command: it runs. Empty.
    Started = 18,
    /// Guest, command: it does not run, [`super::ExecFailure`]. The stream's last frame.
    Failed = 19,
    /// Guest, command: it ended, [`super::ExitStatus`]. The stream's last frame.
    Exited = 20,
    /// Host, command: bytes of standard input.
    Stdin = 24,
    /// Host, command: end of standard input. Empty.
    StdinEnd = 25,
    /// Guest, command: nothing reads standard input any more. Empty.
    StdinClosed = 26,
    /// Guest, command: room for so many more bytes of standard input, `u32`.
    StdinCredit = 27,
    /// Guest, command: bytes of standard output, or of the terminal.
    Stdout = 28,
    /// Guest, command: end of standard output. Empty.
    StdoutEnd = 29,
    /// Host, command: room for so many more bytes of standard output, `u32`.
    StdoutCredit = 30,
    /// Guest, command: bytes of standard error.
    Stderr = 31,
    /// Guest, command: end of standard error. Empty.
    StderrEnd = 32,
    /// Host, command: room for so many more bytes of standard error, `u32`.
    StderrCredit = 33,
    /// Host, command: the terminal's new [`super::WindowSize`].
    Resize = 40,
    /// Host, command: a signal for its process group, `i32`.
    Signal = 41,
    /// Host, command: nobody is interested any more; it gets SIGHUP and, later, SIGKILL. Empty.
    Hangup = 42,
}

/// Appends a frame to `out`.
///
/// # Errors
/// [`WireError::Length`] when the payload is longer than [`MOST_PAYLOAD`].
pub fn encode(kind: Kind, stream: StreamId, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    if usize::from(length) > MOST_PAYLOAD || usize::from(length) != payload.len() {
        return Err(WireError::Length(length));
    }
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&stream.0.to_le_bytes());
    let sum = checksum(&out[start..], payload);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

struct Header {
    kind: Kind,
    length: usize,
    stream: StreamId,
    sum: u32,
}

impl Header {
    fn read(bytes: &[u8; HEADER]) -> Result<Self, WireError> {
        let [m0, m1, m2, m3, kind, zero, l0, l1, s0, s1, s2, s3, c0, c1, c2, c3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC || zero != 0 {
            return Err(WireError::Magic);
        }
        let length = u16::from_le_bytes([l0, l1]);
        if usize::from(length) > MOST_PAYLOAD {
            return Err(WireError::Length(length));
        }
        Ok(Self {
            kind: Kind::try_from(kind)?,
            length: usize::from(length),
            stream: StreamId(u32::from_le_bytes([s0, s1, s2, s3])),
            sum: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// The frame of this header, read from `bytes`, and payload.
    fn frame(&self, bytes: &[u8; HEADER], payload: &[u8]) -> Result<Frame, WireError> {
        if checksum(&bytes[..HEADER - 4], payload) != self.sum {
            return Err(WireError::Checksum);
        }
        Ok(Frame { kind: self.kind, stream: self.stream, payload: payload.to_vec() })
    }
}

/// Cuts a byte stream into frames. It holds one incomplete frame and what was pushed last.
///
/// A decoder starts in step, or [hunting](Decoder::hunting) for a first frame of one kind. After an error
/// it must hunt: where the next frame begins is not known any more.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
    hunted: Option<Kind>,
}

impl Decoder {
    /// Longest payload of a frame that can be hunted for.
    pub const MOST_HUNTED: usize = 4 << 10;

    /// A decoder that expects a frame right away.
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that discards everything up to the first undamaged frame of this kind.
    pub fn hunting(kind: Kind) -> Self {
        Self { hunted: Some(kind), ..Self::default() }
    }

    /// Discards everything up to the next undamaged frame of this kind.
    pub fn hunt(&mut self, kind: Kind) {
        self.hunted = Some(kind);
    }

    /// Takes bytes that came in. All frames of those before must have been [taken out](Self::pop) first, so
    /// that no more than a frame and one push is ever held.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` when the bytes so far hold no further complete one.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no frame. The decoder must hunt from there on.
    pub fn pop(&mut self) -> Result<Option<Frame>, WireError> {
        match self.hunted {
            Some(kind) => Ok(self.seek(kind)),
            None => self.step(),
        }
    }

    fn step(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some(bytes) = rest.first_chunk() else { return Ok(None) };
        let header = Header::read(bytes)?;
        let Some(payload) = rest[HEADER..].get(..header.length) else { return Ok(None) };
        let frame = header.frame(bytes, payload)?;
        self.start += HEADER + header.length;
        Ok(Some(frame))
    }

    /// Looks at every place in the stream: a header that belongs to a frame cut short promises bytes that
    /// will never come, and must not hide the frame behind it.
    fn seek(&mut self, kind: Kind) -> Option<Frame> {
        let mut incomplete = None;
        let mut at = self.start;
        while let Some(bytes) = self.buffer[at..].first_chunk() {
            let wanted = |h: &Header| h.kind == kind && h.length <= Self::MOST_HUNTED;
            if let Some(header) = Header::read(bytes).ok().filter(wanted) {
                match self.buffer[at + HEADER..].get(..header.length) {
                    Some(payload) => {
                        if let Ok(frame) = header.frame(bytes, payload) {
                            self.start = at + HEADER + header.length;
                            self.hunted = None;
                            return Some(frame);
                        }
                    }
                    None => incomplete = incomplete.or(Some(at)),
                }
            }
            at += 1;
        }
        self.start = incomplete.unwrap_or(at);
        None
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            encode(frame.kind, frame.stream, &frame.payload, &mut bytes).unwrap();
        }
        bytes
    }

    /// Decodes these bytes, pushed in pieces of these lengths over and over, to their end or first error.
    fn decode(decoder: &mut Decoder, mut bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, WireError> {
        let mut frames = Vec::new();
        let mut lengths = pieces.iter().cycle();
        while !bytes.is_empty() {
            let length = lengths.next().map_or(bytes.len(), |l| (*l).clamp(1, bytes.len()));
            decoder.push(&bytes[..length]);
            bytes = &bytes[length..];
            while let Some(frame) = decoder.pop()? {
                frames.push(frame);
            }
            assert!(decoder.buffer.len() - decoder.start <= HEADER + MOST_PAYLOAD, "holds more than a frame");
        }
        Ok(frames)
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            (any::<u8>(), 0..=MOST_PAYLOAD).prop_map(|(byte, length)| vec![byte; length]),
            Just(MAGIC.repeat(9)),
        ];
        let frame = (prop::sample::select(KINDS), any::<u32>(), payload);
        let frame = frame.prop_map(|(kind, id, payload)| Frame { kind, stream: StreamId(id), payload });
        prop::collection::vec(frame, 0..8)
    }

    fn hello(payload: &[u8]) -> Frame {
        Frame { kind: Kind::Hello, stream: StreamId(0), payload: payload.to_vec() }
    }

    #[test]
    fn the_bytes_of_a_frame_are_these() {
        let bytes =
            bytes_of(&[Frame { kind: Kind::Stdin, stream: StreamId(0x0102), payload: b"hi".to_vec() }]);
        assert_eq!(bytes[..12], [0xba, 0x6e, 0xf7, 0xa5, 24, 0, 2, 0, 2, 1, 0, 0]);
        assert_eq!(bytes[12..16], crc32fast::hash(&[&bytes[..12], b"hi"].concat()).to_le_bytes());
        assert_eq!(bytes[16..], *b"hi");
    }

    #[test]
    fn a_payload_is_bounded() {
        let mut out = Vec::new();
        for length in [MOST_PAYLOAD + 1, 65535, 65536, 1 << 20] {
            assert!(encode(Kind::Stdin, StreamId(1), &vec![0; length], &mut out).is_err());
            assert!(out.is_empty());
        }
        encode(Kind::Stdin, StreamId(1), &[0; MOST_PAYLOAD], &mut out).unwrap();
        // The same with one byte more announced.
        out[6..8].copy_from_slice(&(MOST_PAYLOAD as u16 + 1).to_le_bytes());
        assert_eq!(decode(&mut Decoder::new(), &out, &[]), Err(WireError::Length(MOST_PAYLOAD as u16 + 1)));
    }

    #[test]
    fn a_header_that_is_none_is_refused_before_its_payload_comes() {
        let good = bytes_of(&[hello(b"")]);
        for (at, byte, error) in
            [(0, 0, WireError::Magic), (5, 1, WireError::Magic), (4, 250, WireError::Kind(250))]
        {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(decode(&mut Decoder::new(), &bad, &[]), Err(error));
        }
    }

    #[test]
    fn a_frame_that_was_cut_short_does_not_hide_the_one_behind_it() {
        let cut = &bytes_of(&[hello(&[7; Decoder::MOST_HUNTED])])[..100];
        let bytes = [cut, &bytes_of(&[hello(b"found")])].concat();
        let frames = decode(&mut Decoder::hunting(Kind::Hello), &bytes, &[1]).unwrap();
        assert_eq!(frames, [hello(b"found")]);
    }

    #[test]
    fn zeros_end_any_frame() {
        let unfinished =
            bytes_of(&[Frame { kind: Kind::Stdin, stream: StreamId(3), payload: vec![9; MOST_PAYLOAD] }]);
        for cut in [1, 10, HEADER, HEADER + 1, unfinished.len() - 1] {
            let bytes =
                [&unfinished[..cut], &vec![0; super::super::SYNC], &bytes_of(&[hello(b"again")])].concat();
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            assert!(decoder.pop().is_err(), "cut at {cut}");
            decoder.hunt(Kind::Hello);
            assert_eq!(decoder.pop(), Ok(Some(hello(b"again"))), "cut at {cut}");
            assert_eq!(decoder.pop(), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_splitting(frames in frames(), pieces in prop::collection::vec(1usize..50_000, 1..5)) {
            prop_assert_eq!(decode(&mut Decoder::new(), &bytes_of(&frames), &pieces), Ok(frames));
        }

        #[test]
        fn any_bytes_are_taken_without_panic(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(MAGIC.to_vec())], 0..400),
            pieces in prop::collection::vec(1usize..40, 1..5),
            hunting: bool,
        ) {
            let mut decoder = if hunting { Decoder::hunting(Kind::Welcome) } else { Decoder::new() };
            let _ = decode(&mut decoder, &bytes, &pieces);
        }

        #[test]
        fn a_changed_bit_is_noticed(frames in frames(), place: prop::sample::Index, bit in 0u32..8) {
            let mut bytes = bytes_of(&frames);
            prop_assume!(!bytes.is_empty());
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            // A longer length may also leave the last frame waiting for bytes that do not come.
            prop_assert_ne!(decode(&mut Decoder::new(), &bytes, &[]), Ok(frames));
        }

        #[test]
        fn a_hunt_finds_the_frame_behind_anything(
            garbage in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(MAGIC.to_vec())], 0..300),
            before in frames(),
            after in frames(),
            pieces in prop::collection::vec(1usize..5000, 1..5),
        ) {
            let before: Vec<Frame> = before.into_iter().filter(|f| f.kind != Kind::Hello).collect();
            let found = [&[hello(b"here")], after.as_slice()].concat();
            let bytes = [bytes_of(&before), garbage, bytes_of(&found)].concat();
            prop_assert_eq!(decode(&mut Decoder::hunting(Kind::Hello), &bytes, &pieces), Ok(found));
        }
    }
}
