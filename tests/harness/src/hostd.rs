//! banger-hostd as systemd's socket activation would run it: init holds the socket, so a restart loses nothing.

use crate::{
    error::{Doing, Result},
    launch::{Account, Place},
    mounts,
    supervise::Supervisor,
};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

/// Name of the service and of its log.
pub const NAME: &str = "banger-hostd";
const PROGRAM: &str = "/usr/libexec/banger-hostd";
const SOCKET: &str = "/run/banger/hostd.sock";

/// Listens on the helper's socket, for `owner` alone, and starts the helper on it.
///
/// # Errors
/// [`crate::HarnessError::Io`] when the socket cannot be made or the helper cannot be started.
pub fn start(supervisor: &mut Supervisor, owner: &Account) -> Result<()> {
    // As systemd-tmpfiles makes them.
    mounts::make_dir(Path::new("/run/banger/vm"), 0o755)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).doing("make a socket")?;
    let address = UnixAddr::new(SOCKET).doing("name the socket")?;
    // Nobody else runs in this namespace yet who could connect before the mode is set.
    bind(std::os::fd::AsRawFd::as_raw_fd(&listening), &address).doing(format!("bind {SOCKET}"))?;
    fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o600)).doing("close the socket")?;
    chown(SOCKET, Some(owner.uid), Some(owner.gid)).doing(format!("give the socket to {}", owner.name))?;
    listen(&listening, Backlog::new(16).unwrap_or(Backlog::MAXCONN)).doing(format!("listen on {SOCKET}"))?;

    supervisor.keep(
        NAME,
        Box::new(move || {
            let place = Place { session: true, listen: true, ..Place::default() };
            let mut command = place.command(&[PROGRAM])?;
            command.stdin(listening.try_clone().doing("share the socket")?);
            Ok(command)
        }),
    )
}
