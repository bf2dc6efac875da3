//! What the agent tells of the guest: its main process, its figures, and a connection to one of its ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use banger_agent::{Agent, AgentError, ExitStatus};
use common::{command, connect, run};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};
use tokio::net::UnixStream;

/// An agent whose guest's main process is as `file` says.
async fn with_main(file: &Path) -> (common::Guest, Agent) {
    let (host, guest) = StdUnixStream::pair().unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_banger-guest"));
    let agent = agent.args(["agent", "--stdin"]).arg(file).stdin(Stdio::from(OwnedFd::from(guest)));
    let agent = common::Guest(agent.spawn().unwrap());
    host.set_nonblocking(true).unwrap();
    (agent, Agent::connect(UnixStream::from_std(host).unwrap()).await.unwrap())
}

#[tokio::test]
async fn a_signal_reaches_the_main_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.json");
    let mut main = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(&file, format!("{{\"pid\":{},\"ended\":null}}", main.id())).unwrap();
    let (_guest, agent) = with_main(&file).await;
    assert!(matches!(agent.signal_main(0).await, Err(AgentError::Invalid(_))));
    assert!(matches!(agent.signal_main(65).await, Err(AgentError::Invalid(_))));
    agent.signal_main(15).await.unwrap();
    assert_eq!(main.wait().unwrap().signal(), Some(15));
    assert!(
        matches!(agent.signal_main(15).await, Err(AgentError::NoMain)),
        "it has ended and was waited for"
    );
}

#[tokio::test]
async fn a_guest_without_a_main_process_says_so() {
    let (_guest, agent) = connect().await;
    assert!(matches!(agent.signal_main(15).await, Err(AgentError::NoMain)));
    assert_eq!(agent.main_ended(), None);
}

#[tokio::test]
async fn the_end_of_the_main_process_is_told_to_a_host_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.json");
    std::fs::write(&file, r#"{"pid":null,"ended":{"Code":42}}"#).unwrap();
    let (_guest, agent) = with_main(&file).await;
    // Answered after what was told before.
    agent.ping().await.unwrap();
    assert_eq!(agent.main_ended(), Some(ExitStatus::Code(42)));
}

#[tokio::test]
async fn the_end_of_the_main_process_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.json");
    std::fs::write(&file, r#"{"pid":1,"ended":null}"#).unwrap();
    let (guest, agent) = with_main(&file).await;
    agent.ping().await.unwrap();
    assert_eq!(agent.main_ended(), None);
    std::fs::write(&file, r#"{"pid":null,"ended":{"Signal":9}}"#).unwrap();
    // What PID 1 does then.
    Command::new("kill").args(["-CHLD", &guest.0.id().to_string()]).status().unwrap();
    while agent.main_ended().is_none() {
        agent.ping().await.unwrap();
    }
    assert_eq!(agent.main_ended(), Some(ExitStatus::Signal(9)));
    let told = file.with_extension("told");
    while !told.exists() {
        agent.ping().await.unwrap();
    }
}

#[tokio::test]
async fn figures_are_measured() {
    let (_guest, agent) = connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let figures = agent.measure().await.unwrap();
    assert!(figures.listeners.iter().any(|l| l.port == port && l.address.is_loopback()), "{figures:?}");
    assert!(figures.uptime_ms > 0 && figures.memory > 0 && figures.cpus > 0, "{figures:?}");
}

#[tokio::test]
async fn a_port_is_reached_by_a_command() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut said = String::new();
        peer.read_to_string(&mut said).unwrap();
        peer.write_all(said.to_uppercase().as_bytes()).unwrap();
        peer.shutdown(Shutdown::Both).unwrap();
    });
    let (_guest, agent) = connect().await;
    let mut request = command(&[env!("CARGO_BIN_EXE_banger-guest"), "connect", &port]);
    request.stdin = true;
    let outcome = run(&agent, request, b"hello").await;
    assert_eq!(outcome.stdout, b"HELLO");
    assert_eq!(outcome.stderr, b"connected\n");
    assert_eq!(outcome.status, ExitStatus::Code(0));
    server.join().unwrap();
    // Nobody listens there any more.
    let refused = run(&agent, command(&[env!("CARGO_BIN_EXE_banger-guest"), "connect", &port]), b"").await;
    assert_eq!(refused.status, ExitStatus::Code(1));
    assert!(!refused.stderr.starts_with(b"connected"), "{refused:?}");
}
