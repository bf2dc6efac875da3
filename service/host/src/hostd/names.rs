//! The sockets that VMs' names are served on, and what the host's resolver is to be told of them.

use crate::refused::{Result, refused, system};
use banger_host::Refusal;
use banger_model::{Subnet, VmName, reverse};
use banger_systemd::resolved::Route;
use rustix::net::sockopt::{set_ip_freebind, set_ipv6_freebind, set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Binds a socket for datagrams and a listening one at each of the host's own addresses in the VMs' networks, in turn.
/// They stay bound while the bridge comes and goes.
///
/// A host without IPv6 has those for IPv4 alone.
pub fn sockets(subnet: &Subnet, port: u16) -> Result<Vec<OwnedFd>> {
    let port = check_port(port)?;
    let mut sockets = Vec::new();
    for address in hosts(subnet) {
        let address = SocketAddr::new(address, port);
        match both(address) {
            Ok(pair) => sockets.extend(pair),
            Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let message = format!(
                    "another program serves port {port} at {}: keep it from listening everywhere, \
                     or set port in [dns] of banger's configuration",
                    address.ip()
                );
                return Err(refused(Refusal::HostNotReady, message));
            }
            Err(error) => return Err(system(format!("listening at {address}"))(error)),
        }
    }
    Ok(sockets)
}

/// What a resolver is told: the VMs' names are looked up here, and their addresses.
pub fn route(subnet: &Subnet, port: u16) -> Result<Route> {
    let port = check_port(port)?;
    let zones = subnet.networks().into_iter().flat_map(reverse::zones);
    let domains = std::iter::once(VmName::DOMAIN.to_owned())
        .chain(zones.map(|zone| zone.trim_end_matches('.').to_owned()));
    Ok(Route { servers: hosts(subnet).into(), port, domains: domains.collect() })
}

/// The host's own addresses in the VMs' network.
fn hosts(subnet: &Subnet) -> [IpAddr; 2] {
    [subnet.host_v4().into(), subnet.host_v6().into()]
}

fn check_port(port: u16) -> Result<u16> {
    match port {
        0 => Err(refused(Refusal::Range, "a server has a port between 1 and 65535")),
        port => Ok(port),
    }
}

fn both(address: SocketAddr) -> io::Result<[OwnedFd; 2]> {
    let datagrams = socket(address, SocketType::DGRAM)?;
    let connections = socket(address, SocketType::STREAM)?;
    // So that a server can be started again while connections of the last one are being forgotten.
    set_socket_reuseaddr(&connections, true)?;
    bind(&datagrams, &address)?;
    bind(&connections, &address)?;
    listen(&connections, BACKLOG)?;
    Ok([datagrams, connections])
}

/// A socket that can be bound to an address which is not there yet.
fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match address.ip() {
        IpAddr::V4(_) => {
            let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
            set_ip_freebind(&socket, true)?;
            Ok(socket)
        }
        IpAddr::V6(_) => {
            let socket = socket_with(AddressFamily::INET6, kind, flags, None)?;
            set_ipv6_v6only(&socket, true)?;
            set_ipv6_freebind(&socket, true)?;
            Ok(socket)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_told_of_our_names_and_addresses_alone() {
        let subnet = Subnet::default();
        let route = route(&subnet, 53).unwrap();
        assert_eq!(route.domains[0], VmName::DOMAIN);
        assert!(route.domains[1..].iter().all(|domain| domain.ends_with(".arpa")), "{route:?}");
        // systemd-resolved takes at most 256 domains of a link.
        assert!((2..=256).contains(&route.domains.len()), "{}", route.domains.len());
        assert!(!route.servers.is_empty());
        assert_eq!(super::route(&subnet, 0).unwrap_err().kind, Refusal::Range);
    }
}
