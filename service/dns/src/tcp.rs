//! Connections, each with one query after the other (RFC 7766).

use crate::answer::{Transport, answer};
use crate::places::Places;
use crate::server::{SharedZone, read};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// So long may a connection be silent, and its other end take for one query or answer.
const IDLE: Duration = Duration::from_secs(5);

/// Longest query, in bytes; see the one over UDP.
const LONGEST: usize = 4096;

/// After a failure to accept: there may be too few descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections from whoever is served, as many as there are places; others are closed at once.
pub async fn serve(listener: TcpListener, zone: SharedZone, places: Arc<Places>) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !read(&zone).serves(from.ip()) {
            continue;
        }
        let Some(place) = places.take(from.ip()) else { continue };
        let zone = Arc::clone(&zone);
        tokio::spawn(async move {
            // Who is too slow, or hangs up, is not worth a line.
            let _ = converse(stream, &zone).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, zone: &SharedZone) -> io::Result<()> {
    let mut query = vec![0; LONGEST];
    loop {
        let length = usize::from(timeout(IDLE, stream.read_u16()).await??);
        let query = query.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        timeout(IDLE, stream.read_exact(query)).await??;
        let reply = answer(&read(zone), query, Transport::Tcp).ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        // In one piece, for what comes in two is slow (RFC 7766, section 8).
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
