//! The server: sockets, and a thread of its own.

use crate::places::Places;
use crate::zone::Zone;
use crate::{tcp, udp};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// The zone, as whoever changes it shares it with the server. A change is seen by the next query.
pub type SharedZone = Arc<RwLock<Zone>>;

/// Where to listen: bound already, for that takes a privilege.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For datagrams.
    pub udp: Vec<UdpSocket>,
    /// For connections, listening.
    pub tcp: Vec<TcpListener>,
}

/// A server that answers until it is dropped.
///
/// It has a thread to itself: an answer must not wait for whatever else the program does.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to answer.
    ///
    /// # Errors
    /// What the operating system says of the sockets, or of the thread.
    pub fn start(sockets: Sockets, zone: SharedZone) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        {
            let _inside = runtime.enter();
            let places = Arc::new(Places::default());
            for socket in sockets.udp {
                socket.set_nonblocking(true)?;
                runtime.spawn(udp::serve(tokio::net::UdpSocket::from_std(socket)?, Arc::clone(&zone)));
            }
            for listener in sockets.tcp {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                runtime.spawn(tcp::serve(listener, Arc::clone(&zone), Arc::clone(&places)));
            }
        }
        let thread = std::thread::Builder::new().name("dns".into()).spawn(move || {
            // It ends when it is told to, or when nobody is left who could tell.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The zone as it is now.
pub(crate) fn read(zone: &SharedZone) -> RwLockReadGuard<'_, Zone> {
    // Each change is whole before anything could panic.
    zone.read().unwrap_or_else(PoisonError::into_inner)
}
