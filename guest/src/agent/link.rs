//! The agent's end of the byte stream: what goes out, in order and bounded, and what comes in.

use super::transport::Transport;
use banger_guest::wire::{Kind, MOST_PAYLOAD, StreamId, encode};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd},
};

/// Above this many bytes in the outbox, nothing is taken in that would add to it.
const OUTBOX: usize = 4 * MOST_PAYLOAD;

/// Frames on their way to the host.
///
/// Bounded by more than [`Outbox::has_room`]: what is added without asking is either an answer to a frame
/// from the host, and those are not read while there is no room, or one of the few that a command's end makes.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

/// A transport with its outbox.
///
/// The transport is watched edge-triggered, through an epoll descriptor of its own: a virtio-serial port
/// without a host always polls as hung up, and only the edge tells when one comes.
pub struct Link<T> {
    transport: T,
    edge: Epoll,
    pub outbox: Outbox,
    readable: bool,
    writable: bool,
}

/// What reading from the host gave.
pub enum Incoming {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// No host is there.
    Gone,
}

impl Outbox {
    /// Whether there is room for another frame full of output.
    pub fn has_room(&self) -> bool {
        self.bytes.len() - self.sent < OUTBOX
    }

    /// Adds a frame. The payload is at most [`MOST_PAYLOAD`] long.
    pub fn push(&mut self, kind: Kind, stream: StreamId, payload: &[u8]) {
        if self.sent > 0 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        let encoded = encode(kind, stream, payload, &mut self.bytes);
        debug_assert!(encoded.is_ok(), "{kind:?} with {} bytes", payload.len());
    }

    /// Forgets everything, also the rest of a frame that has begun: whoever reads next hunts for a welcome.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the host has been sent everything.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.sent
    }
}

impl<T: Transport> Link<T> {
    pub fn new(transport: T) -> io::Result<Self> {
        let edge = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        edge.add(&transport, EpollEvent::new(flags, 0))?;
        Ok(Self { transport, edge, outbox: Outbox::default(), readable: true, writable: true })
    }

    /// Readable when something about the transport has changed.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.edge.0.as_fd()
    }

    /// Takes note of what has changed.
    pub fn changed(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty()];
        if self.edge.wait(&mut events, EpollTimeout::ZERO)? > 0 {
            self.readable = true;
            self.writable = true;
        }
        Ok(())
    }

    /// Whether there is something to do without waiting for a change.
    pub fn is_busy(&self) -> bool {
        self.can_read() || (self.writable && !self.outbox.is_empty())
    }

    fn can_read(&self) -> bool {
        self.readable && self.outbox.has_room()
    }

    /// Whether another host may come after this one.
    pub fn reconnects(&self) -> bool {
        self.transport.reconnects()
    }

    /// Reads what there is, unless the host first has to take something.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Incoming> {
        if !self.can_read() {
            return Ok(Incoming::Nothing);
        }
        match self.transport.read(buffer) {
            Ok(0) => {
                self.readable = false;
                Ok(Incoming::Gone)
            }
            Ok(n) => Ok(Incoming::Bytes(n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Incoming::Nothing)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Incoming::Nothing),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                self.readable = false;
                Ok(Incoming::Gone)
            }
            Err(e) => Err(e),
        }
    }

    /// Sends as much of the outbox as goes.
    pub fn write(&mut self) -> io::Result<()> {
        while self.writable && !self.outbox.is_empty() {
            match self.transport.write(&self.outbox.bytes[self.outbox.sent..]) {
                Ok(n) => self.outbox.sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                // The host has gone, which reading tells too.
                Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.outbox.clear();
                    self.readable = true;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
