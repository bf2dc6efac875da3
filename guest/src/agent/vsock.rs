//! The protocol over vsock(7): the host connects, one connection at a time.

use super::transport::Transport;
use crate::ioctl;
use banger_guest::wire::VSOCK_PORT;
use libc::{VMADDR_CID_ANY, VMADDR_CID_HOST};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, getpeername, listen, socket,
    },
};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// A port on which the host connects. Who comes later takes the place of who was there: that host has gone.
pub struct Vsock {
    listener: OwnedFd,
    /// The connection. Reading and writing is all that is done with it, so it may as well be a file.
    host: Option<File>,
    /// Ready when either is.
    either: Epoll,
}

/// Whether the VM has a vsock, without udev: its driver has bound a device (virtio's id 19).
/// <https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html>, 5
pub fn has_device() -> bool {
    fs::read_dir("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport").is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("virtio")))
    })
}

impl Vsock {
    /// Listens.
    ///
    /// # Errors
    /// When the kernel has no vsock (yet).
    pub fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        bind(listener.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, VSOCK_PORT))?;
        listen(&listener, Backlog::new(8)?)?;
        let either = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        either.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { listener, host: None, either })
    }

    /// Takes whoever waits. A program of the guest's own that connects is not the host.
    ///
    /// What has made either ready stays to be seen: whoever watches both is told of each change once, and one that were taken
    /// away here, such as that there is room to write again, would never be told.
    fn take_newest(&mut self) -> io::Result<()> {
        loop {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let connection = match accept4(self.listener.as_raw_fd(), flags) {
                Ok(number) => ioctl::own(number),
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(nix::errno::Errno::ECONNABORTED | nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            match getpeername::<VsockAddr>(connection.as_raw_fd()) {
                Ok(peer) if peer.cid() == VMADDR_CID_HOST => {}
                _ => continue,
            }
            let flags =
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            self.either.add(&connection, EpollEvent::new(flags, 1))?;
            self.host = Some(connection.into());
        }
    }
}

impl AsFd for Vsock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.0.as_fd()
    }
}

impl Transport for Vsock {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.take_newest()?;
        let Some(host) = &mut self.host else { return Ok(0) };
        match host.read(buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Err(error)
            }
            Ok(n @ 1..) => Ok(n),
            // The end, or a reset: a snapshot was restored, for one.
            _ => {
                self.host = None;
                Ok(0)
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody is there who could be told. To call that an error would have it tried again at once, and for ever.
        let Some(host) = &mut self.host else { return Ok(bytes.len()) };
        match host.write(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Err(error)
            }
            Ok(n) => Ok(n),
            Err(_) => {
                self.host = None;
                Err(ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn reconnects(&self) -> bool {
        true
    }
}
