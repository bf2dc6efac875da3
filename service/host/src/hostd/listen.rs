//! The socket: the service manager's, or one made here.

use crate::folder::Owner;
use crate::ioctl;
use rustix::fs::{FlockOperation, Gid, Uid, chown, flock};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: OwnedFd,
    /// Its path, if it was made here and so is removed here.
    path: Option<PathBuf>,
}

/// Makes the run folder and its `vm` folder, and takes the run folder for this process alone, as long as
/// the returned file is open.
pub fn run_folder(run: &Path) -> io::Result<File> {
    let vms = run.join("vm");
    for folder in [run, &vms] {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    let locked = File::open(run)?;
    flock(&locked, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let message = format!("another banger-hostd works in {}", run.display());
        io::Error::new(io::ErrorKind::AddrInUse, message)
    })?;
    Ok(locked)
}

/// The socket that the service manager passed (sd_listen_fds(3)), if it passed one. Call it before anything is
/// opened.
pub fn activated() -> io::Result<Option<Listener>> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    if number("LISTEN_FDS") != Some(1) {
        return Err(io::Error::other("LISTEN_FDS is not 1: the unit has to pass one socket"));
    }
    let socket = ioctl::activation_socket();
    let fits = socket_domain(&socket)? == AddressFamily::UNIX
        && socket_type(&socket)? == SocketType::SEQPACKET
        && socket_acceptconn(&socket)?;
    if !fits {
        return Err(io::Error::other("the socket passed is not ListenSequentialPacket= with a path"));
    }
    Ok(Some(Listener { socket, path: None }))
}

/// Listens at `run/hostd.sock`, for `owner` alone. The process's umask keeps everybody else out from the
/// moment that the name exists; what another life has left under it is replaced.
pub fn bound(run: &Path, owner: Owner) -> io::Result<Listener> {
    let path = run.join("hostd.sock");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(&path)?)?;
    chown(&path, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listen(&socket, 64)?;
    Ok(Listener { socket, path: Some(path) })
}

impl Listener {
    /// Takes the socket's name away, if it was made here.
    pub fn remove(self) -> io::Result<()> {
        self.path.map_or(Ok(()), std::fs::remove_file)
    }
}
