//! A guest that does not keep to the protocol.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use banger_agent::{Agent, AgentError, ExecRequest, GuestInfo, PhaseTime, Violation};
use banger_guest::wire::{
    Decoder, ExitStatus, Figures, Frame, Hello, Kind, Listener, MOST_LISTENERS, MOST_PAYLOAD, OUTPUT_WINDOW,
    StreamId, Welcome, encode, pack, unpack,
};
use proptest::prelude::*;
use std::net::IpAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The guest's end, played by the test.
struct Guest {
    socket: UnixStream,
    decoder: Decoder,
}

impl Guest {
    fn pair() -> (UnixStream, Self) {
        let (host, socket) = UnixStream::pair().unwrap();
        (host, Self { socket, decoder: Decoder::hunting(Kind::Hello) })
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.pop().unwrap() {
                return frame;
            }
            let mut bytes = [0; 4096];
            let length = self.socket.read(&mut bytes).await.unwrap();
            assert!(length > 0, "the host has gone");
            self.decoder.push(&bytes[..length]);
        }
    }

    async fn hello(&mut self) -> Hello {
        unpack(&self.frame().await.payload).unwrap()
    }

    async fn send(&mut self, bytes: &[u8]) {
        // A host that has had enough does not take everything.
        let _ = self.socket.write_all(bytes).await;
    }

    async fn welcome(&mut self) {
        let hello = self.hello().await;
        self.send(&welcome(hello.nonce, 1, GuestInfo::default())).await;
    }

    /// Reads what the host still says, up to its hanging up.
    async fn hung_up(&mut self) {
        let mut bytes = [0; 4096];
        while self.socket.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
    }
}

fn bytes(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(kind, StreamId(stream), payload, &mut bytes).unwrap();
    bytes
}

fn welcome(nonce: [u8; 16], version: u16, info: GuestInfo) -> Vec<u8> {
    bytes(Kind::Welcome, 0, &pack(&Welcome { nonce, version, info }).unwrap())
}

fn cat() -> ExecRequest {
    ExecRequest { argv: vec!["cat".into()], stdin: true, ..ExecRequest::default() }
}

#[tokio::test]
async fn the_welcome_is_found_behind_anything_that_was_left_over() {
    let (host, mut guest) = Guest::pair();
    let play = async {
        let hello = guest.hello().await;
        guest.send(b"the rest of some frame").await;
        guest.send(&bytes(Kind::Stdout, 7, &welcome([9; 16], 1, GuestInfo::default()))).await;
        guest.send(&welcome([8; 16], 1, GuestInfo::default())).await;
        guest.send(&bytes(Kind::Welcome, 0, b"no welcome")).await;
        guest.send(&bytes(Kind::Stdout, 7, &[0; MOST_PAYLOAD])[..5000]).await;
        let info = GuestInfo { kernel: "6.1".into(), ..GuestInfo::default() };
        guest.send(&welcome(hello.nonce, 1, info)).await;
    };
    let (agent, ()) = tokio::join!(Agent::connect(host), play);
    assert_eq!(agent.unwrap().guest().kernel, "6.1");
}

#[tokio::test]
async fn a_hello_that_was_missed_is_said_again_and_answered_twice_without_harm() {
    let (host, mut guest) = Guest::pair();
    let play = async {
        let missed = guest.hello().await;
        let hello = guest.hello().await;
        assert_eq!(missed.nonce, hello.nonce);
        for _ in 0..2 {
            guest.send(&welcome(hello.nonce, 1, GuestInfo::default())).await;
        }
        let ping = guest.frame().await;
        assert_eq!(ping.kind, Kind::Ping);
        guest.send(&bytes(Kind::Pong, 0, &ping.payload)).await;
    };
    let ask = async { Agent::connect(host).await.unwrap().ping().await };
    let (answered, ()) = tokio::join!(ask, play);
    answered.unwrap();
}

#[tokio::test]
async fn a_guest_that_babbles_is_given_up() {
    let (host, mut guest) = Guest::pair();
    let babble = async { while guest.socket.write_all(&[0xba; 5000]).await.is_ok() {} };
    let (agent, ()) = tokio::join!(Agent::connect(host), babble);
    assert!(matches!(agent, Err(AgentError::Protocol(Violation::NoWelcome(_)))), "{agent:?}");
}

#[tokio::test]
async fn a_guest_that_goes_at_once_is_gone() {
    let (host, guest) = Guest::pair();
    drop(guest);
    assert!(matches!(Agent::connect(host).await, Err(AgentError::Closed)));
}

#[tokio::test]
async fn what_a_guest_says_about_itself_is_bounded() {
    let phase = || PhaseTime { name: "x".into(), ms: 1 };
    for (version, info, expected) in [
        (0, GuestInfo::default(), Violation::Version),
        (2, GuestInfo::default(), Violation::Version),
        (1, GuestInfo { kernel: "x\u{1b}[2J".into(), ..GuestInfo::default() }, Violation::Range("")),
        (1, GuestInfo { boot_id: "x".repeat(513), ..GuestInfo::default() }, Violation::Range("")),
        (1, GuestInfo { warnings: vec!["a\nb".into()], ..GuestInfo::default() }, Violation::Range("")),
        (
            1,
            GuestInfo { phases: (0..65).map(|_| phase()).collect(), ..GuestInfo::default() },
            Violation::Range(""),
        ),
    ] {
        let (host, mut guest) = Guest::pair();
        let play = async {
            let hello = guest.hello().await;
            guest.send(&welcome(hello.nonce, version, info)).await;
        };
        match tokio::join!(Agent::connect(host), play).0 {
            Err(AgentError::Protocol(Violation::Range(_))) => assert_eq!(expected, Violation::Range("")),
            Err(AgentError::Protocol(violation)) => assert_eq!(violation, expected),
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }
}

/// Runs a command in a guest that answers its request with these bytes, and gives what becomes of it.
async fn answered(answer: &[u8]) -> AgentError {
    let (host, mut guest) = Guest::pair();
    let play = async {
        guest.welcome().await;
        assert_eq!(guest.frame().await.kind, Kind::Exec);
        guest.send(answer).await;
        guest.hung_up().await;
    };
    let use_it = async {
        let agent = Agent::connect(host).await.unwrap();
        let error = match agent.exec(cat()).await {
            Ok(exec) => exec.wait().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(agent.closed().await.to_string(), error.to_string());
        assert_eq!(agent.ping().await.unwrap_err().to_string(), error.to_string());
        assert_eq!(agent.exec(cat()).await.unwrap_err().to_string(), error.to_string());
        error
    };
    // The guest sees the host hang up while the host's handle still lives.
    tokio::join!(use_it, play).0
}

#[tokio::test]
async fn a_guest_that_breaks_the_protocol_loses_its_connection() {
    let started = bytes(Kind::Started, 1, b"");
    let then = |rest: Vec<u8>| [started.clone(), rest].concat();
    let exited = |status| bytes(Kind::Exited, 1, &pack(&status).unwrap());
    let flood: Vec<u8> = (0..=OUTPUT_WINDOW as usize / MOST_PAYLOAD)
        .flat_map(|_| bytes(Kind::Stdout, 1, &[0; MOST_PAYLOAD]))
        .collect();
    let mut damaged = bytes(Kind::Stdout, 1, b"hello");
    damaged[18] ^= 1;
    for (what, answer) in [
        ("no frame", b"sixteen or more bytes of anything".to_vec()),
        ("a damaged frame", then(damaged)),
        ("an unasked stream", bytes(Kind::Started, 2, b"")),
        ("output before the start", bytes(Kind::Stdout, 1, b"x")),
        ("a start twice", then(started.clone())),
        ("an unreadable failure", bytes(Kind::Failed, 1, b"\xff\xff")),
        ("too much output", then(flood)),
        ("too much room", then(bytes(Kind::StdinCredit, 1, &1u32.to_le_bytes()))),
        ("an impossible code", then(exited(ExitStatus::Code(256)))),
        ("an impossible signal", then(exited(ExitStatus::Signal(-9)))),
        ("another welcome", bytes(Kind::Welcome, 0, b"")),
        ("an unasked pong", bytes(Kind::Pong, 0, &[0; 8])),
        ("an unasked shutdown", bytes(Kind::ShuttingDown, 0, b"")),
        ("unasked figures", bytes(Kind::Figures, 0, &pack(&Figures::default()).unwrap())),
        ("an unasked signal", bytes(Kind::MainSignalled, 0, &[0; 4])),
        ("an impossible end", bytes(Kind::MainEnded, 0, &pack(&ExitStatus::Code(-1)).unwrap())),
        ("a host's frame", bytes(Kind::Hello, 0, b"")),
        ("a new beginning", bytes(Kind::Lost, 0, b"")),
    ] {
        let error = answered(&answer).await;
        assert!(matches!(error, AgentError::Protocol(_)), "{what}: {error}");
    }
}

#[tokio::test]
async fn figures_without_bounds_are_a_breach() {
    let listener = |port| Listener { port, address: IpAddr::from([0, 0, 0, 0]) };
    let many = (0..=MOST_LISTENERS as u16).map(listener).collect();
    for listeners in [many, vec![listener(2), listener(1)], vec![listener(1), listener(1)]] {
        let (socket, mut guest) = Guest::pair();
        let answer = pack(&Figures { listeners, ..Figures::default() }).unwrap();
        let play = async {
            guest.welcome().await;
            assert_eq!(guest.frame().await.kind, Kind::Measure);
            guest.send(&bytes(Kind::Figures, 0, &answer)).await;
            guest.hung_up().await;
        };
        let measure = async { Agent::connect(socket).await.unwrap().measure().await };
        let (error, ()) = tokio::join!(measure, play);
        assert!(matches!(error, Err(AgentError::Protocol(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_frame_after_the_end_of_its_stream_is_a_breach() {
    let end =
        [bytes(Kind::Started, 1, b""), bytes(Kind::Exited, 1, &pack(&ExitStatus::Code(0)).unwrap())].concat();
    let (host, mut guest) = Guest::pair();
    let play = async {
        guest.welcome().await;
        guest.frame().await;
        guest.send(&[end, bytes(Kind::Stdout, 1, b"late")].concat()).await;
        guest.hung_up().await;
    };
    let use_it = async {
        let agent = Agent::connect(host).await.unwrap();
        let exec = agent.exec(cat()).await.unwrap();
        assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(0), "what was right stays right");
        agent.closed().await
    };
    assert!(matches!(tokio::join!(use_it, play).0, AgentError::Protocol(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answer_ends_in_an_error_or_an_end(
        frames in prop::collection::vec((0u8..50, 0u32..3, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        garbage in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut answer = Vec::new();
        for (kind, stream, payload) in frames {
            if let Ok(kind) = Kind::try_from(kind) {
                answer.extend(bytes(kind, stream, &payload));
            }
        }
        answer.extend(garbage);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (host, mut guest) = Guest::pair();
            let play = async {
                guest.welcome().await;
                guest.send(&answer).await;
                guest.socket.shutdown().await
            };
            let use_it = async {
                let agent = Agent::connect(host).await.unwrap();
                let ended = match agent.exec(cat()).await {
                    Ok(exec) => exec.wait().await.err(),
                    Err(error) => Some(error),
                };
                (ended, agent.closed().await)
            };
            let ((_, closed), _) = tokio::join!(use_it, play);
            assert!(matches!(closed, AgentError::Closed | AgentError::Protocol(_)), "{closed}");
        });
    }
}
