//! Seeing when the host changes: a TAP that has gone with its VMM, an uplink that comes, a Docker that starts, a
//! ruleset that somebody has flushed. The kernel tells all of it to who listens (rtnetlink(7), nf_tables).

use super::Network;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// linux/rtnetlink.h: links, routes of both families, and what is set to route.
const ROUTE_GROUPS: [u32; 5] = [1, 7, 11, 24, 25];

/// linux/netfilter/nfnetlink.h: tables, chains and rules.
const NFTABLES_GROUP: u32 = 7;

/// What changes together is looked at together, and not while a VM starts: it would take the processor from that.
const PAUSE: Duration = Duration::from_millis(300);

/// Calls the watcher from within.
#[derive(Debug)]
pub struct Bell {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Bell {
    /// A bell that nobody hears yet.
    pub fn new() -> io::Result<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (theirs, ours) = rustix::pipe::pipe_with(flags)?;
        Ok(Self { ours, theirs })
    }

    /// Rings it. One that has been rung too often to hold more is heard all the same.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.ours, &[0]);
    }
}

fn listen(protocol: SockProtocol, groups: &[u32]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, mask))?;
    Ok(socket)
}

/// Watches on a thread of its own, to the end of the process.
pub fn start(network: &Arc<Network>) -> io::Result<()> {
    let routes = listen(SockProtocol::NetlinkRoute, &ROUTE_GROUPS)?;
    let tables = match listen(SockProtocol::NetlinkNetFilter, &[NFTABLES_GROUP]) {
        Ok(socket) => Some(socket),
        // A kernel without nftables: the first VM's start says so.
        Err(error) => {
            tracing::info!(%error, "nftables is not watched");
            None
        }
    };
    let network = Arc::clone(network);
    std::thread::Builder::new().name("network".into()).spawn(move || {
        let mut timeout = None;
        loop {
            wait(&network.bell.theirs, &routes, tables.as_ref(), timeout);
            std::thread::sleep(PAUSE);
            for socket in [Some(&network.bell.theirs), Some(&routes), tables.as_ref()].into_iter().flatten() {
                drain(socket);
            }
            timeout = network.review();
        }
    })?;
    Ok(())
}

fn wait(bell: &OwnedFd, routes: &OwnedFd, tables: Option<&OwnedFd>, timeout: Option<Duration>) {
    let mut wanted: Vec<PollFd<'_>> = [Some(bell), Some(routes), tables]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = timeout.and_then(|time| time.try_into().ok());
    match poll(&mut wanted, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => tracing::error!(%error, "waiting for changes of the network"),
    }
}

/// What is told does not matter: everything is looked at anew. So it is no loss either when too much was told.
fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 16 << 10];
    loop {
        match rustix::io::read(socket, &mut buffer) {
            Ok(0) => return,
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
