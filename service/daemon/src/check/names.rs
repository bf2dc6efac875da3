//! Whether VMs are found by their names, and what guests ask for the names of others.

use super::Finding;
use crate::{
    names::{Serving, upstreams},
    service::Service,
};
use banger_host::NameRouting;
use std::{io, net::SocketAddr, path::Path};
use tokio::net::UdpSocket;

/// A query for `vm. SOA`, with an id that nobody else has.
const QUERY: [u8; 20] = *b"\xba\x9e\0\0\0\x01\0\0\0\0\0\0\x02vm\0\0\x06\0\x01";

/// Where NetworkManager's own settings are, if it is there.
const NETWORK_MANAGER: &str = "/etc/NetworkManager";

/// Whether names are answered for: asked as everybody asks.
pub async fn server(service: &Service) -> Finding {
    let addresses = match service.names.serving() {
        Serving::Off => return Finding::note("the configuration says not to serve them", ""),
        Serving::Starting => return Finding::unknown("the service has just been started"),
        Serving::Failed(why) => {
            return Finding::warning(
                why,
                "VMs can be had by their addresses meanwhile; this is tried again by itself",
            );
        }
        Serving::At(addresses) => addresses,
    };
    let mut answered = Vec::new();
    for address in &addresses {
        match ask(*address).await {
            Ok(()) => answered.push(address.to_string()),
            // The address is the bridge's, which comes with the first VM.
            Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {}
            Err(error) => {
                return Finding::warning(
                    format!("{address} does not answer: {error}"),
                    "a firewall may be in between",
                );
            }
        }
    }
    match answered.is_empty() {
        true => Finding::ok("ready; there is no bridge yet: it comes with the first VM"),
        false => Finding::ok(format!("answered at {}", answered.join(" and "))),
    }
}

async fn ask(server: SocketAddr) -> io::Result<()> {
    // From the same address: others are refused, and where it is not there yet there is nobody to ask.
    let socket = match UdpSocket::bind((server.ip(), 0)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        other => other?,
    };
    socket.connect(server).await?;
    socket.send(&QUERY).await?;
    let mut answer = [0; 512];
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(2), socket.recv(&mut answer));
    let length = waiting.await??;
    // The same id, an answer, and no error.
    match length > 12 && answer[..2] == QUERY[..2] && answer[2] & 0x80 != 0 && answer[3] & 0x0f == 0 {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether this host's programs find them.
pub async fn resolver(service: &Service) -> Finding {
    if service.names.serving() == Serving::Off {
        return Finding::note("there is nothing to tell it", "");
    }
    let (routing, why) = match service.host.show_dns().await {
        Ok(shown) => shown,
        Err(error) => return Finding::unknown(error.to_string()),
    };
    match routing {
        NameRouting::Routed => Finding::ok("systemd-resolved looks names in .vm up here"),
        NameRouting::NoBridge => Finding::ok(format!("systemd-resolved is there; {why}")),
        NameRouting::NoResolver | NameRouting::NoBus => Finding::warning(
            format!("{why}: no program finds VMs by their names"),
            without_resolved(service, Path::new(NETWORK_MANAGER).is_dir()),
        ),
        NameRouting::Failed => Finding::warning(
            why,
            "this is tried again by itself; `resolvectl status banger0` shows what it knows",
        ),
        NameRouting::Off => Finding::unknown("the helper has not been asked yet"),
    }
}

/// What to do where there is no resolver that could be told.
fn without_resolved(service: &Service, network_manager: bool) -> String {
    let address = match service.names.serving() {
        Serving::At(addresses) => addresses.first().copied(),
        _ => None,
    };
    let Some(address) = address else { return "use systemd-resolved".into() };
    let (ip, port) = (address.ip(), address.port());
    let server = match port {
        53 => ip.to_string(),
        port => format!("{ip}#{port}"),
    };
    let dnsmasq = match network_manager {
        true => format!(
            "have NetworkManager run dnsmasq: put `[main]` and `dns=dnsmasq` into /etc/NetworkManager/conf.d/dns.conf and `server=/vm/{server}` into /etc/NetworkManager/dnsmasq.d/banger.conf, then `systemctl reload NetworkManager`"
        ),
        false => format!(
            "install dnsmasq, put `server=/vm/{server}` into /etc/dnsmasq.d/banger.conf and `nameserver 127.0.0.1` first into /etc/resolv.conf"
        ),
    };
    format!(
        "install and enable systemd-resolved; or {dnsmasq}. `banger vm show` has a VM's address meanwhile"
    )
}

/// Whether guests that reach the world can ask it for names.
pub fn guests() -> Finding {
    let found = match upstreams() {
        Ok(found) => found,
        Err(error) => return Finding::unknown(format!("this host's name servers cannot be read: {error}")),
    };
    let servers: Vec<_> = found.servers.iter().map(ToString::to_string).collect();
    match servers.is_empty() {
        false => Finding::ok(format!("{}, from {}", servers.join(" and "), found.source.display())),
        true => Finding::warning(
            "this host's own name servers are on its loopback, where no guest reaches them, or it has none",
            "name another in /etc/resolv.conf, or have systemd-resolved or NetworkManager say which it asks",
        ),
    }
}
