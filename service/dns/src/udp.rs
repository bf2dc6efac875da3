//! Datagrams.

use crate::answer::{Transport, answer, refuse};
use crate::limit::Limiter;
use crate::server::{SharedZone, read};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Longest query that is looked at, in bytes: a name is at most 255, and options are few.
const LONGEST: usize = 4096;

/// After a failure of the socket, which will not last for ever or is the end of everything.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers what arrives, one after the other.
pub async fn serve(socket: UdpSocket, zone: SharedZone) {
    let mut limiter = Limiter::default();
    let mut buffer = [0; LONGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a query");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let packet = &buffer[..length];
        let reply = {
            let zone = read(&zone);
            // This host's own programs share its address: one that asks a lot must not silence the others.
            if !zone.is_host(from.ip()) && !limiter.admit(from.ip(), Instant::now()) {
                continue;
            }
            match zone.serves(from.ip()) {
                true => answer(&zone, packet, Transport::Udp),
                false => refuse(packet),
            }
        };
        // Whoever does not take its answers must not hold up those of others: it asks again.
        if let Some(Err(error)) = reply.map(|reply| socket.try_send_to(&reply, from)) {
            tracing::debug!(%error, "sending an answer");
        }
    }
}
