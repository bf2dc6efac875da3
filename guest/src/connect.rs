//! One connection to a port of this guest, as a command: standard input goes there, and what comes from there to
//! standard output.
//!
//! The agent runs it like any command, so flow and end are the protocol's. It first says on standard error whether it
//! is connected.

use crate::ioctl;
use nix::sys::wait::waitpid;
use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

/// How long a connection within the guest may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What standard error says once there is a connection.
const CONNECTED: &str = "connected";

/// Connects and passes bytes on until both sides have ended.
pub fn run(port: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let socket = connect(port)?;
    eprintln!("{CONNECTED}");
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // A process for each direction: this program has no threads.
    let Some(sender) = ioctl::fork()? else {
        let _ = carry(input, &socket);
        let _ = socket.shutdown(Shutdown::Write);
        ioctl::exit_now(0)
    };
    drop(input);
    match carry(&socket, output) {
        Ok(()) => drop(waitpid(sender, None)),
        // Nobody reads any more: then there is nothing to send for either.
        Err(_) => drop(ioctl::kill(sender.as_raw(), libc::SIGKILL)),
    }
    Ok(())
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let to = |address: IpAddr| TcpStream::connect_timeout(&(address, port).into(), PATIENCE);
    // The first refusal is the one to tell.
    to(Ipv4Addr::LOCALHOST.into()).or_else(|refused| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| refused))
}

fn carry(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
