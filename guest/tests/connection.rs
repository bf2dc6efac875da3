//! What becomes of commands and of the byte stream when a host goes away, also in the middle of a word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use banger_agent::{Agent, AgentError, ExecRequest, ExitStatus};
use banger_guest::wire::{self, ExecSpec, Kind, StreamId};
use common::{command, connect, noise, run, script, start};
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Waits until a process is gone.
async fn gone(pid: &str) {
    while Path::new("/proc").join(pid).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a script that says its process id in between, and gives that.
async fn pid_of(agent: &Agent, before: &str, after: &str) -> (banger_agent::Exec, String) {
    let mut exec = agent.exec(script(&format!("{before}; echo $$; {after}"))).await.unwrap();
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(char::from(exec.stdout.read_u8().await.unwrap()));
    }
    (exec, line.trim().to_owned())
}

#[tokio::test]
async fn a_lost_host_hangs_its_commands_up_and_then_kills_them() {
    let (mut guest, agent) = connect().await;
    let (kind, kind_pid) = pid_of(&agent, ":", "sleep 1000; exit").await;
    let (stubborn, stubborn_pid) = pid_of(&agent, "trap '' HUP", "while :; do sleep 1; done").await;
    drop(agent);
    for exec in [kind, stubborn] {
        assert!(matches!(exec.wait().await, Err(AgentError::Closed)));
    }
    gone(&kind_pid).await;
    gone(&stubborn_pid).await;
    assert!(guest.0.wait().unwrap().success(), "and the agent ends with its only host");
}

#[tokio::test]
async fn a_command_that_nobody_is_interested_in_is_hung_up() {
    let (_guest, agent) = connect().await;
    let (exec, pid) = pid_of(&agent, ":", "sleep 1000; exit").await;
    let control = exec.control();
    drop(exec);
    assert!(Path::new("/proc").join(&pid).exists(), "a handle is left");
    drop(control);
    gone(&pid).await;
    agent.ping().await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_taken_back_leaves_nothing() {
    let (_guest, agent) = connect().await;
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let text = format!("trap 'touch {0}; exit' HUP; while :; do sleep 0.01; done", mark.display());
    {
        let mut exec = Box::pin(agent.exec(script(&text)));
        // Far enough for the request to be queued.
        assert!(futures_poll(&mut exec).await.is_none());
    }
    // A shell that gets the signal before its trap ends without a word; either way it ends.
    let count = script("ps -eo args | grep -c '[t]ouch /tmp'; exit 0");
    while run(&agent, count.clone(), b"").await.text().trim() != "0" {}
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// A host whose connection can be cut anywhere while the guest's end stays open, as a virtio-serial port does.
struct Port {
    guest: UnixStream,
}

impl Port {
    /// A host's end of the port. What comes from the host goes to the guest up to so many bytes, and then the
    /// connection is cut; what comes from the guest is passed on until then.
    async fn serve<T>(&mut self, most: usize, host: impl AsyncFnOnce(UnixStream) -> T) -> T {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (guest, mut left) = (&mut self.guest, most);
        let pass = async {
            let (mut from_host, mut to_host) = ours.into_split();
            let (mut up, mut down) = ([0; 5000], [0; 5000]);
            while left > 0 {
                tokio::select! {
                    n = from_host.read(&mut up) => {
                        let n = n.unwrap().min(left);
                        if n == 0 { break }
                        guest.write_all(&up[..n]).await.unwrap();
                        left -= n;
                    }
                    n = guest.read(&mut down) => {
                        let n = n.unwrap();
                        // A host that has just gone takes nothing more.
                        if to_host.write_all(&down[..n]).await.is_err() { break }
                    }
                }
            }
        };
        let ((), result) = tokio::join!(pass, host(theirs));
        result
    }
}

#[tokio::test]
async fn a_stream_that_was_cut_anywhere_is_found_again() {
    let (_guest, socket) = start();
    let mut port = Port { guest: socket };
    let hello = wire::SYNC + 40;
    for cut in
        [1, 100, wire::SYNC - 1, wire::SYNC + 3, wire::SYNC + 20, hello + 5, hello + 900, hello + 70_000]
    {
        port.serve(cut, async |socket| {
            let Ok(agent) = Agent::connect(socket).await else { return };
            let request = ExecRequest { stdin: true, ..script("cat; cat /dev/zero") };
            if let Ok(mut exec) = agent.exec(request).await {
                let _ = exec.stdin.write_all(&noise(200_000, 9)).await;
                let _ = exec.wait().await;
            }
        })
        .await;
        let status = port
            .serve(usize::MAX, async |socket| {
                let agent = Agent::connect(socket).await.unwrap();
                run(&agent, script("exit 42"), b"").await.status
            })
            .await;
        assert_eq!(status, ExitStatus::Code(42), "after a cut at {cut}");
    }
}

#[tokio::test]
async fn a_new_host_finds_none_of_the_old_ones_commands() {
    let (_guest, socket) = start();
    let mut port = Port { guest: socket };
    let pid = port
        .serve(usize::MAX, async |socket| {
            let agent = Agent::connect(socket).await.unwrap();
            let (exec, pid) = pid_of(&agent, ":", "sleep 1000; exit").await;
            std::mem::forget(exec);
            pid
        })
        .await;
    port.serve(usize::MAX, async |socket| {
        let agent = Agent::connect(socket).await.unwrap();
        gone(&pid).await;
        agent.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_host_that_breaks_the_protocol_is_told_and_can_start_over() {
    let (_guest, mut socket) = start();
    let hello = |nonce| {
        let mut bytes = Vec::new();
        let hello = wire::Hello { oldest: 1, newest: 9, nonce: [nonce; 16] };
        wire::encode(Kind::Hello, StreamId(0), &wire::pack(&hello).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let frame = |kind, stream, payload: &[u8]| {
        let mut bytes = Vec::new();
        wire::encode(kind, StreamId(stream), payload, &mut bytes).unwrap();
        bytes
    };
    let exec =
        wire::pack(&ExecSpec { argv: vec!["cat".into()], stdin: true, ..ExecSpec::default() }).unwrap();
    let flood: Vec<u8> = (0..10).flat_map(|_| frame(Kind::Stdin, 1, &[0; wire::MOST_PAYLOAD])).collect();
    let stopped = [frame(Kind::Exec, 1, &exec), frame(Kind::Signal, 1, &19i32.to_le_bytes()), flood].concat();
    let long: Vec<u8> = (0..9).flat_map(|_| frame(Kind::ExecPart, 1, &[0; wire::MOST_PAYLOAD])).collect();
    for (nonce, broken) in [
        b"no frame at all, and more than sixteen bytes".to_vec(),
        frame(Kind::Stdin, 5, b"x"),
        frame(Kind::Welcome, 0, b"x"),
        frame(Kind::Ping, 0, b"short"),
        frame(Kind::Exec, 1, b"no request"),
        [frame(Kind::Exec, 7, &exec), frame(Kind::Exec, 7, &exec)].concat(),
        [frame(Kind::Exec, 7, &exec), frame(Kind::Exec, 6, &exec)].concat(),
        [frame(Kind::ExecPart, 1, b"x"), frame(Kind::Exec, 2, &exec)].concat(),
        [frame(Kind::Exec, 1, &exec), frame(Kind::Signal, 1, &65i32.to_le_bytes())].concat(),
        [frame(Kind::Exec, 1, &exec), frame(Kind::StdoutCredit, 1, &1u32.to_le_bytes())].concat(),
        stopped,
        long,
    ]
    .into_iter()
    .enumerate()
    {
        let nonce = nonce as u8;
        socket.write_all(&hello(nonce)).await.unwrap();
        socket.write_all(&broken).await.unwrap();
        let mut decoder = wire::Decoder::hunting(Kind::Welcome);
        let mut kinds = Vec::new();
        while kinds.last() != Some(&Kind::Lost) {
            let mut bytes = [0; 4096];
            let length = socket.read(&mut bytes).await.unwrap();
            assert!(length > 0);
            decoder.push(&bytes[..length]);
            while let Some(frame) = decoder.pop().unwrap() {
                if frame.kind == Kind::Welcome {
                    let welcome: wire::Welcome = wire::unpack(&frame.payload).unwrap();
                    assert_eq!((welcome.nonce, welcome.version), ([nonce; 16], 1));
                }
                kinds.push(frame.kind);
            }
        }
    }
    let agent = Agent::connect(socket).await.unwrap();
    assert_eq!(run(&agent, script("exit 42"), b"").await.status, ExitStatus::Code(42));
}

#[tokio::test]
async fn a_hello_that_is_said_again_changes_nothing() {
    let (_guest, mut socket) = start();
    let frame = |kind, stream, payload: &[u8]| {
        let mut bytes = Vec::new();
        wire::encode(kind, StreamId(stream), payload, &mut bytes).unwrap();
        bytes
    };
    let hello = wire::pack(&wire::Hello { oldest: 1, newest: 1, nonce: [7; 16] }).unwrap();
    let exec =
        wire::pack(&ExecSpec { argv: vec!["cat".into()], stdin: true, ..ExecSpec::default() }).unwrap();
    let (hello, exec) = (frame(Kind::Hello, 0, &hello), frame(Kind::Exec, 1, &exec));
    let end = frame(Kind::StdinEnd, 1, b"");
    socket.write_all(&[&hello[..], &exec, &hello, &end].concat()).await.unwrap();
    let mut decoder = wire::Decoder::hunting(Kind::Welcome);
    let mut kinds = Vec::new();
    while kinds.last() != Some(&Kind::Exited) {
        let mut bytes = [0; 4096];
        let length = socket.read(&mut bytes).await.unwrap();
        assert!(length > 0, "{kinds:?}");
        decoder.push(&bytes[..length]);
        while let Some(frame) = decoder.pop().unwrap() {
            if frame.kind == Kind::Exited {
                assert_eq!(wire::unpack::<ExitStatus>(&frame.payload).unwrap(), ExitStatus::Code(0));
            }
            kinds.push(frame.kind);
        }
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Welcome).count(), 2, "{kinds:?}");
}

#[tokio::test]
async fn a_host_of_another_version_is_told_so() {
    let (_guest, mut socket) = start();
    let hello = wire::Hello { oldest: 2, newest: 9, nonce: [1; 16] };
    let mut bytes = Vec::new();
    wire::encode(Kind::Hello, StreamId(0), &wire::pack(&hello).unwrap(), &mut bytes).unwrap();
    socket.write_all(&bytes).await.unwrap();
    let mut decoder = wire::Decoder::hunting(Kind::Welcome);
    let frame = loop {
        let mut bytes = [0; 4096];
        let length = socket.read(&mut bytes).await.unwrap();
        decoder.push(&bytes[..length]);
        if let Some(frame) = decoder.pop().unwrap() {
            break frame;
        }
    };
    let welcome: wire::Welcome = wire::unpack(&frame.payload).unwrap();
    assert_eq!(welcome.version, 0);
}

#[tokio::test]
async fn a_shutdown_ends_commands_and_then_the_machine() {
    let (mut guest, agent) = connect().await;
    let ended = agent.exec(command(&["sleep", "1000"])).await.unwrap();
    let mut shell = agent.exec(script("trap '' TERM; echo; sleep 1000")).await.unwrap();
    shell.stdout.read_u8().await.unwrap();
    agent.shutdown(Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.wait().await.unwrap(), ExitStatus::Signal(15));
    assert_eq!(shell.wait().await.unwrap(), ExitStatus::Signal(1));
    agent.shutdown(Duration::ZERO).await.unwrap();
    assert!(matches!(agent.closed().await, AgentError::Closed | AgentError::Io(_)));
    assert!(guest.0.wait().unwrap().success());
}
