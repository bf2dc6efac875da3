//! A connection to a port of a guest, whatever it listens on: made by the guest itself, so it reaches what listens on
//! the guest's loopback alone too, and needs no way over the network.

use crate::{error::Error, machines::Session, service::Service, store::VmRow};
use banger_agent::{Exec, ExecRequest};
use banger_model::VmState;
use std::{os::fd::OwnedFd, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy},
    net::UnixStream,
};

/// The guest's program, where it is in a guest that runs.
const PROGRAM: &str = "/run/banger/banger-guest";

/// What it says once it is connected.
const CONNECTED: &str = "connected";

/// How long connecting may take, the guest's own patience included.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest sentence of a guest's that is passed on, in bytes.
const LONGEST: u64 = 256;

/// Connects to a port of the VM's guest; gives the client's end, a socket.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoAgent`], [`Error::Port`] when nobody listens there.
pub async fn open(service: &Service, vm: &VmRow, port: u16) -> Result<OwnedFd, Error> {
    let live = match (vm.state, service.machines.of(vm.id).live()) {
        (VmState::Running, Some(live)) => live,
        _ => return Err(Error::NotRunning { name: vm.name.to_string(), state: vm.state }),
    };
    let agent = live.agent().ok_or_else(|| Error::NoAgent { name: vm.name.to_string() })?;
    let request = ExecRequest {
        argv: vec![PROGRAM.into(), "connect".into(), port.to_string()],
        stdin: true,
        ..ExecRequest::default()
    };
    let mut exec = agent.exec(request).await?;
    let said = tokio::time::timeout(PATIENCE, first_line(&mut exec.stderr)).await.unwrap_or_default();
    if said != CONNECTED {
        return Err(Error::Port { name: vm.name.to_string(), port, why: said });
    }
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::Internal(format!("no socket: {e}")))?;
    tokio::spawn(carry(exec, ours, live.session()));
    let theirs = theirs.into_std().and_then(|socket| socket.set_nonblocking(false).map(|()| socket));
    Ok(theirs.map_err(|e| Error::Internal(format!("no socket: {e}")))?.into())
}

/// The first line, without what could move a terminal's cursor.
async fn first_line(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    let mut from = from.take(LONGEST);
    while let Ok(byte) = from.read_u8().await
        && byte != b'\n'
    {
        line.push(byte);
    }
    String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect()
}

async fn carry(exec: Exec, socket: UnixStream, _session: Session) {
    let Exec { mut stdin, mut stdout, stderr, control } = exec;
    drop(stderr);
    let (mut from, mut to) = socket.into_split();
    let sent = tokio::spawn(async move {
        // A peer that does not read to the end is no error.
        let _ = copy(&mut from, &mut stdin).await;
        let _ = stdin.shutdown().await;
    });
    let _ = copy(&mut stdout, &mut to).await;
    let _ = to.shutdown().await;
    drop((stdout, to));
    // The guest's side is over once its program is; without a reader that is soon.
    let _ = control.wait().await;
    sent.abort();
}
