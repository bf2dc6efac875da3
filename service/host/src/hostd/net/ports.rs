//! Published ports are taken as a program would take them: whoever comes second is told, whichever it is.

use crate::refused::{Refused, refused};
use banger_host::Refusal;
use banger_model::{Protocol, PublishedPort};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Takes a port for as long as the descriptor is open. Nobody listens on it: what is for it goes to the guest.
pub fn take(port: &PublishedPort) -> Result<OwnedFd, Refused> {
    let taken = match bound(port, false) {
        // Connections of a server that has ended linger for a minute; another server does not.
        Err(Errno::ADDRINUSE) if port.protocol == Protocol::Tcp => bound(port, true),
        other => other,
    };
    taken.map_err(|error| match error {
        Errno::ADDRINUSE => refused(
            Refusal::InUse,
            format!(
                "the host's port of {port} is taken by another program: stop that, or publish another port"
            ),
        ),
        Errno::ADDRNOTAVAIL => refused(
            Refusal::NotFound,
            format!("{port} cannot be published: this host has no address {}", port.address),
        ),
        error => refused(Refusal::System, format!("taking the port of {port}: {error}")),
    })
}

fn bound(port: &PublishedPort, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if port.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if port.address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    set_socket_reuseaddr(&socket, reuse)?;
    bind(&socket, &SocketAddr::new(port.address, port.host))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn port(number: u16, protocol: Protocol) -> PublishedPort {
        PublishedPort::new(PublishedPort::LOOPBACK, number, 80, protocol).unwrap()
    }

    #[test]
    fn whoever_comes_second_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        assert_eq!(take(&port(number, Protocol::Tcp)).unwrap_err().kind, Refusal::InUse);
        drop(listener);
        let taken = take(&port(number, Protocol::Tcp)).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", number)).is_err());
        drop(taken);
        let taken = take(&port(number, Protocol::Udp)).unwrap();
        assert!(UdpSocket::bind(("127.0.0.1", number)).is_err());
        drop(taken);
    }

    #[test]
    fn a_foreign_address_is_told() {
        let foreign = PublishedPort::new("192.0.2.1".parse().unwrap(), 8080, 80, Protocol::Tcp).unwrap();
        assert_eq!(take(&foreign).unwrap_err().kind, Refusal::NotFound);
    }
}
