//! How a running VM is reached: its serial port, its guest's agent, its VMM. Which VMM it is shows in what lies in its
//! run folder, so that a service that was started again finds it without being told.

use crate::{console::Console, error::Error, service::Service};
use banger_agent::Agent;
use banger_host::VmmKind;
use banger_model::{Slot, VmId};
use banger_vmm::firecracker::paths::{API_NAME, CONSOLE, OUTSIDE, VSOCK_NAME};
use std::{io, path::PathBuf, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
};

/// The port of the agent on the guest's vsock.
const PORT: u32 = banger_guest::wire::VSOCK_PORT;

/// The longest line with which a VMM answers who connects to a guest's port: `OK 1073741824`.
const LONGEST_ANSWER: usize = 32;

/// What runs a VM that has a process.
pub fn vmm(service: &Service, id: VmId) -> VmmKind {
    match service.socket(id, OUTSIDE).exists() {
        true => VmmKind::Firecracker,
        false => VmmKind::Qemu,
    }
}

/// The socket by which a VM's VMM is controlled.
pub fn control(service: &Service, id: VmId) -> (VmmKind, PathBuf) {
    let vmm = vmm(service, id);
    let name = match vmm {
        VmmKind::Qemu => "qmp.sock".to_owned(),
        VmmKind::Firecracker => format!("{OUTSIDE}/{API_NAME}"),
    };
    (vmm, service.socket(id, &name))
}

/// Connects to the serial port of a VM.
///
/// # Errors
/// When its process is gone.
pub async fn console(service: &Service, id: VmId) -> Result<Arc<Console>, Error> {
    let log = service.console_log(id);
    let failed = |error| Error::disk(&log, error);
    match vmm(service, id) {
        VmmKind::Qemu => {
            let path = service.socket(id, "console.sock");
            let port = UnixStream::connect(&path).await.map_err(|e| Error::disk(&path, e))?;
            let (from, to) = port.into_split();
            Console::take(from, to, &log, service.config.console.log.0).map_err(failed)
        }
        VmmKind::Firecracker => {
            let [output, input] = CONSOLE.map(|name| service.socket(id, name));
            // Nobody at the other end of what it reads: its process is gone.
            let to = pipe::OpenOptions::new().open_sender(&input).map_err(|e| Error::disk(&input, e))?;
            let from =
                pipe::OpenOptions::new().open_receiver(&output).map_err(|e| Error::disk(&output, e))?;
            Console::take(from, to, &log, service.config.console.log.0).map_err(failed)
        }
    }
}

/// Connects to the agent of a VM's guest, and shakes hands with it.
///
/// # Errors
/// Why it cannot be reached (yet), as a sentence.
pub async fn agent(service: &Service, id: VmId, slot: Slot) -> Result<Agent, String> {
    let socket = match vmm(service, id) {
        VmmKind::Firecracker => through_vmm(service, id, slot).await,
        VmmKind::Qemu => {
            let path = service.socket(id, "agent.sock");
            match path.exists() {
                true => UnixStream::connect(&path).await,
                false => by_vsock(service, id).await,
            }
        }
    };
    let socket = socket.map_err(|error| error.to_string())?;
    Agent::connect(socket).await.map_err(|error| error.to_string())
}

/// Connects to the guest by the host's vsock, which only the helper opens. The result is a stream of bytes as a Unix socket's is,
/// and nothing else of it is used.
async fn by_vsock(service: &Service, id: VmId) -> io::Result<UnixStream> {
    let socket = service.host.connect_guest(id, PORT).await.map_err(io::Error::other)?;
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Connects to a port of the guest's through the VMM's socket: it wants a line, and answers with one.
/// <https://github.com/firecracker-microvm/firecracker/blob/main/docs/vsock.md>
async fn through_vmm(service: &Service, id: VmId, slot: Slot) -> io::Result<UnixStream> {
    let mut socket = UnixStream::connect(service.socket(id, &format!("{OUTSIDE}/{VSOCK_NAME}"))).await?;
    // A VMM that was taken over does not lead us to another VM's guest.
    if socket.peer_cred()?.uid() != slot.uid() {
        return Err(io::Error::other("the socket of the guest's vsock is not its VMM's own"));
    }
    socket.write_all(format!("CONNECT {PORT}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what comes behind the line is the agent's.
    while !answer.ends_with(b"\n") {
        let mut byte = [0];
        if answer.len() == LONGEST_ANSWER || socket.read(&mut byte).await? == 0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        answer.extend(byte);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(socket),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}
