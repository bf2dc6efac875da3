//! The real agent, as an ordinary process of this machine.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

use banger_agent::{Agent, Exec, ExecRequest, ExitStatus};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    process::{Child, Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The agent's process; it and what it still runs are killed when this is dropped.
pub struct Guest(pub Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let _ = Command::new("kill").args(["-9", child]).status();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an agent, and gives the host's end of its stream.
pub fn start() -> (Guest, UnixStream) {
    let (host, guest) = StdUnixStream::pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_banger-guest"));
    let child = command.args(["agent", "--stdin"]).stdin(Stdio::from(OwnedFd::from(guest))).spawn().unwrap();
    host.set_nonblocking(true).unwrap();
    (Guest(child), UnixStream::from_std(host).unwrap())
}

/// Starts an agent and connects to it.
pub async fn connect() -> (Guest, Agent) {
    let (guest, socket) = start();
    (guest, Agent::connect(socket).await.unwrap())
}

/// A request to run this.
pub fn command(argv: &[&str]) -> ExecRequest {
    ExecRequest { argv: argv.iter().map(|a| a.to_string()).collect(), ..ExecRequest::default() }
}

/// A request to run a shell script.
pub fn script(text: &str) -> ExecRequest {
    command(&["sh", "-c", text])
}

/// How a command ended and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs a command to its end, with this input.
pub async fn run(agent: &Agent, request: ExecRequest, input: &[u8]) -> Outcome {
    finish(agent.exec(request).await.unwrap(), input).await
}

/// Follows a command to its end, with this input.
pub async fn finish(exec: Exec, input: &[u8]) -> Outcome {
    let Exec { mut stdin, mut stdout, mut stderr, control } = exec;
    let mut outcome = Outcome { status: ExitStatus::Code(-1), stdout: Vec::new(), stderr: Vec::new() };
    let write = async {
        // A command may end without having read everything.
        let _ = stdin.write_all(input).await;
        stdin.shutdown().await.unwrap();
    };
    let (_, out, err, status) = tokio::join!(
        write,
        stdout.read_to_end(&mut outcome.stdout),
        stderr.read_to_end(&mut outcome.stderr),
        control.wait()
    );
    out.unwrap();
    err.unwrap();
    outcome.status = status.unwrap();
    outcome
}

/// Bytes without a pattern that a mistake could keep: a xorshift generator's.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(step).collect()
}
