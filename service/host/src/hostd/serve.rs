//! Connections: who may talk, and one request after the other.

use crate::fault;
use crate::refused::refused;
use crate::system::System;
use crate::verbs::Verbs;
use banger_host::packet::{receive, send};
use banger_host::{Refusal, Reply, Request};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many connections at once are served; the daemon has one for each verb under way.
const MOST_CONNECTIONS: usize = 256;

/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// The server behind the socket.
#[derive(Debug)]
pub struct Server<S> {
    verbs: Verbs<S>,
    /// Who is served, beside root.
    peer: u32,
    load: Mutex<Load>,
    quiet: Condvar,
}

/// How many connections are open, and how many verbs are under way.
#[derive(Debug, Default)]
struct Load {
    connections: usize,
    verbs: usize,
}

impl<S: System + 'static> Server<S> {
    /// A server for `peer`.
    pub fn new(verbs: Verbs<S>, peer: u32) -> Arc<Self> {
        Arc::new(Self { verbs, peer, load: Mutex::default(), quiet: Condvar::new() })
    }

    /// Serves a new connection on a thread of its own.
    pub fn serve(self: &Arc<Self>, socket: OwnedFd) {
        let Some(caller) = self.admit(&socket) else { return };
        let counted = Counted::new(self, |load| &mut load.connections);
        let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
            if let Err(error) = counted.server.converse(&socket, caller) {
                tracing::warn!(%error, "a connection failed");
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a connection");
        }
    }

    /// The caller's uid, if it is served. Nothing has been read from it yet.
    fn admit(&self, socket: &OwnedFd) -> Option<u32> {
        let refuse = |kind, message: &str| {
            tracing::warn!(message, "refused a connection");
            // Whoever it is may not even be there any more.
            let _ = reply(socket, &refused(kind, message).into(), &[]);
            None
        };
        let uid = match socket_peercred(socket) {
            Ok(credentials) => credentials.uid.as_raw(),
            Err(error) => return refuse(Refusal::Denied, &format!("who is it? {error}")),
        };
        if uid != self.peer && uid != 0 {
            return refuse(Refusal::Denied, &format!("banger-hostd does not serve uid {uid}"));
        }
        if self.lock().connections >= MOST_CONNECTIONS {
            return refuse(Refusal::System, "banger-hostd has too many connections");
        }
        Some(uid)
    }

    /// Answers requests until the caller hangs up or falls silent.
    fn converse(self: &Arc<Self>, socket: &OwnedFd, caller: u32) -> io::Result<()> {
        set_socket_timeout(socket, Timeout::Recv, Some(IDLE))?;
        set_socket_timeout(socket, Timeout::Send, Some(IDLE))?;
        loop {
            let (message, descriptors) = match receive(socket) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let answer = refused(Refusal::Malformed, "the packet is too large");
                    return reply(socket, &answer.into(), &[]);
                }
                Err(error) => return Err(error),
            };
            let (answer, descriptors) = match serde_json::from_slice(&message) {
                Ok(request) => self.carry_out(request, descriptors, caller),
                Err(error) => {
                    (refused(Refusal::Malformed, format!("not a request: {error}")).into(), Vec::new())
                }
            };
            reply(socket, &answer, &descriptors)?;
        }
    }

    /// One verb, one line.
    fn carry_out(
        self: &Arc<Self>,
        request: Request,
        descriptors: Vec<OwnedFd>,
        caller: u32,
    ) -> (Reply, Vec<OwnedFd>) {
        let _counted = Counted::new(self, |load| &mut load.verbs);
        let (verb, of) = (request.verb(), request.vm());
        let vm = of.map(tracing::field::display);
        fault::come(verb, "before", of);
        let begun = Instant::now();
        let answer = self.verbs.answer(request, descriptors, caller);
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &answer.0 {
            Reply::Failed { kind, message } => tracing::warn!(%verb, vm, ms, ?kind, message, "failed"),
            // What changes nothing is asked often.
            _ if vm.is_none() => tracing::debug!(%verb, ms, "done"),
            _ => tracing::info!(%verb, vm, ms, "done"),
        }
        fault::come(verb, "after", of);
        answer
    }

    /// Waits until no verb is under way, or `limit` has passed. Says whether none is.
    pub fn await_quiet(&self, limit: Duration) -> bool {
        let wait = self.quiet.wait_timeout_while(self.lock(), limit, |load| load.verbs > 0);
        wait.unwrap_or_else(PoisonError::into_inner).0.verbs == 0
    }
}

impl<S> Server<S> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reply(socket: &OwnedFd, answer: &Reply, descriptors: &[OwnedFd]) -> io::Result<()> {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    send(socket, &serde_json::to_vec(answer)?, &descriptors)
}

/// One more of something, until dropped.
struct Counted<S> {
    server: Arc<Server<S>>,
    which: fn(&mut Load) -> &mut usize,
}

impl<S> Counted<S> {
    fn new(server: &Arc<Server<S>>, which: fn(&mut Load) -> &mut usize) -> Self {
        *which(&mut server.lock()) += 1;
        Self { server: Arc::clone(server), which }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        *(self.which)(&mut self.server.lock()) -= 1;
        self.server.quiet.notify_all();
    }
}
