//! VMs by name: the zone that `banger-dns` answers from, kept as the VMs are, and the server behind it.
//!
//! The zone is made of the database and lives in memory alone. A name comes and goes with its VM's state and
//! leaves nothing on the host, so it is no step of a plan (docs/adr/0020-names.md).

mod upstreams;

pub use upstreams::{Upstreams, read as upstreams};

use crate::{config::Dns, error::Error, service::Service, store::VmRow};
use banger_dns::{Server, SharedZone, Sockets, Zone};
use banger_host::Host;
use banger_model::{NetworkMode, NetworkRules, Subnet, VmId, VmName, VmState};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::{io::Interest, net::unix::pipe::Sender};

/// The only port that a resolv.conf(5) knows.
const PLAIN_PORT: u16 = 53;

/// Until the next attempt to listen, or to have the resolver told.
const PAUSE: Duration = Duration::from_secs(5);

/// The names, and how they are served.
pub struct Names {
    zone: SharedZone,
    /// Each VM's name as the zone has it: it may be another by now.
    known: Mutex<HashMap<VmId, VmName>>,
    serving: Mutex<Serving>,
}

/// Whether names are answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// The configuration says not to.
    Off,
    /// Not yet.
    Starting,
    /// At these addresses.
    At(Vec<SocketAddr>),
    /// It did not work, and is tried again.
    Failed(String),
}

impl Default for Names {
    fn default() -> Self {
        Self {
            zone: Arc::new(RwLock::new(Zone::new(Vec::new(), Vec::new()))),
            known: Mutex::default(),
            serving: Mutex::new(Serving::Starting),
        }
    }
}

impl Names {
    /// Has the VM's name lead to where the VM is now.
    pub fn tell(&self, vm: &VmRow, subnet: &Subnet) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zone = self.zone.write().unwrap_or_else(PoisonError::into_inner);
        let before = match vm.state {
            VmState::Deleting => known.remove(&vm.id),
            _ => known.insert(vm.id, vm.name.clone()),
        };
        // A name that was given up may be another VM's by now.
        if let Some(before) = before.filter(|before| *before != vm.name || vm.state == VmState::Deleting)
            && !known.values().any(|name| *name == before)
        {
            zone.remove(&before);
        }
        if vm.state != VmState::Deleting {
            zone.set(&vm.name, addresses(vm, subnet));
        }
    }

    /// Forgets a VM that is gone.
    pub fn forget(&self, id: VmId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.remove(&id)
            && !known.values().any(|other| *other == name)
        {
            self.zone.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
    }

    /// How they are served.
    pub fn serving(&self) -> Serving {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_serving(&self, now: Serving) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        match &now {
            now if *now == *serving => {}
            Serving::At(addresses) => tracing::info!(?addresses, "answering for names of VMs"),
            Serving::Failed(why) => tracing::warn!(why, "names of VMs are not answered for"),
            Serving::Off | Serving::Starting => {}
        }
        *serving = now;
    }
}

/// Where a name leads: a VM that is not there has none of the addresses that are kept for it, so that whoever looks for it
/// is told at once and not after a timeout.
fn addresses(vm: &VmRow, subnet: &Subnet) -> Vec<IpAddr> {
    match vm.state {
        VmState::Running | VmState::Paused => {
            vec![subnet.guest_v4(vm.slot).into(), subnet.guest_v6(vm.slot).into()]
        }
        _ => Vec::new(),
    }
}

/// The name servers of a guest, and the domains that complete short names there.
///
/// A VM that reaches the world has this host's own servers. One that reaches other VMs finds them by name: our server comes
/// first, and refuses what is not ours, after which a guest's C library asks the next. With none the guest keeps what its
/// image says.
pub fn for_guest(
    rules: &NetworkRules,
    subnet: &Subnet,
    dns: &Dns,
    host: Upstreams,
) -> (Vec<IpAddr>, Vec<String>) {
    let Upstreams { servers, search, .. } = if rules.nat { host } else { Upstreams::default() };
    let ours = rules.mode == NetworkMode::Shared && dns.enabled && dns.port == PLAIN_PORT;
    let first = ours.then(|| subnet.host_v4().into());
    (first.into_iter().chain(servers).take(upstreams::MOST_SERVERS).collect(), search)
}

/// Fills the zone with all VMs that there are, once it is settled which network they are in.
///
/// # Errors
/// When the database fails.
pub fn fill(service: &Service) -> Result<(), Error> {
    let subnet = service.subnet();
    let hosts = vec![subnet.host_v4().into(), subnet.host_v6().into()];
    let zone = Zone::new(subnet.networks().into(), hosts);
    *service.names.zone.write().unwrap_or_else(PoisonError::into_inner) = zone;
    service.store.vms()?.iter().for_each(|vm| service.names.tell(vm, &subnet));
    Ok(())
}

/// Serves the names, and keeps the host's resolver told, for as long as the service lives. What fails is tried again: VMs
/// can be had by their addresses meanwhile.
pub async fn keep(service: Arc<Service>) {
    if !service.config.dns.enabled {
        service.names.set_serving(Serving::Off);
        return;
    }
    let _server = loop {
        match start(&service).await {
            Ok(server) => break server,
            Err(why) => service.names.set_serving(Serving::Failed(why)),
        }
        tokio::time::sleep(PAUSE).await;
    };
    loop {
        match route(service.host.as_ref(), service.subnet(), service.config.dns.port).await {
            // The helper has ended: the one that is started next has to hear it again.
            Ok(()) => tracing::info!("the helper is gone, and with it what it told the resolver"),
            Err(why) => {
                tracing::warn!(why, "the resolver is not told");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn start(service: &Service) -> Result<Server, String> {
    let bound = service
        .host
        .bind_dns(service.subnet(), service.config.dns.port)
        .await
        .map_err(|error| error.to_string())?;
    let mut sockets = Sockets::default();
    let mut bound = bound.into_iter();
    while let (Some(datagrams), Some(connections)) = (bound.next(), bound.next()) {
        sockets.udp.push(UdpSocket::from(datagrams));
        sockets.tcp.push(TcpListener::from(connections));
    }
    let at: io::Result<Vec<_>> = sockets.udp.iter().map(UdpSocket::local_addr).collect();
    let at = at.map_err(|error| error.to_string())?;
    let server = Server::start(sockets, service.names.zone.clone()).map_err(|error| error.to_string())?;
    service.names.set_serving(Serving::At(at));
    Ok(server)
}

/// Has the resolver told, and waits until the helper that does so is gone.
async fn route(host: &dyn Host, subnet: Subnet, port: u16) -> Result<(), String> {
    let (theirs, ours) = io::pipe().map_err(|error| error.to_string())?;
    let ours = Sender::from_owned_fd(OwnedFd::from(ours)).map_err(|error| error.to_string())?;
    host.route_dns(subnet, port, theirs.into()).await.map_err(|error| error.to_string())?;
    ours.ready(Interest::ERROR).await.map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use banger_host::{FakeHost, NameRouting};

    #[tokio::test]
    async fn a_name_follows_its_vm() {
        let bench = bench().await;
        let names = &bench.service.names;
        let known = |name: &str| {
            let zone = names.zone.read().unwrap();
            zone.addresses(&name.parse().unwrap()).map(<[IpAddr]>::len)
        };
        let id = bench.add_vm("web", VmState::Running);
        fill(&bench.service).unwrap();
        assert_eq!(known("web"), Some(2));
        bench.service.store.set_vm_state(id, VmState::Stopped, "").unwrap();
        bench.service.vm_changed(id).await;
        assert_eq!(known("web"), Some(0), "it exists, and is nowhere");
        let renamed = VmRow { name: "shop".parse().unwrap(), ..bench.service.vm(id).unwrap() };
        names.tell(&renamed, &bench.service.subnet());
        assert_eq!((known("web"), known("shop")), (None, Some(0)));
        names.tell(&VmRow { state: VmState::Deleting, ..renamed }, &bench.service.subnet());
        assert_eq!(known("shop"), None);
        names.forget(id);
    }

    #[tokio::test]
    async fn a_name_that_was_given_up_can_be_anothers() {
        let bench = bench().await;
        let first = bench.service.vm(bench.add_vm("web", VmState::Running)).unwrap();
        let second = bench.service.vm(bench.add_vm("other", VmState::Running)).unwrap();
        let names = &bench.service.names;
        let subnet = bench.service.subnet();
        names.tell(&first, &subnet);
        names.tell(&VmRow { name: "web".parse().unwrap(), ..second.clone() }, &subnet);
        names.forget(first.id);
        let zone = names.zone.read().unwrap();
        let expected: &[IpAddr] = &[subnet.guest_v4(second.slot).into(), subnet.guest_v6(second.slot).into()];
        assert_eq!(zone.addresses(&"web".parse().unwrap()), Some(expected));
    }

    #[test]
    fn a_guest_asks_whom_it_reaches() {
        let subnet = Subnet::default();
        let host = || Upstreams {
            servers: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap()).into(),
            search: vec!["lan".into()],
            ..Upstreams::default()
        };
        let told = |nat, mode, port| {
            let rules = NetworkRules { nat, mode, ..NetworkRules::default() };
            let (servers, search) = for_guest(&rules, &subnet, &Dns { enabled: true, port }, host());
            (servers.iter().map(ToString::to_string).collect::<Vec<_>>(), search.len())
        };
        let ours = subnet.host_v4().to_string();
        let (private, shared) = (NetworkMode::Private, NetworkMode::Shared);
        assert_eq!(told(false, private, 53), (vec![], 0));
        assert_eq!(told(false, shared, 53), (vec![ours.clone()], 0));
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(str::to_owned);
        assert_eq!(told(true, private, 53), (all.to_vec(), 1));
        assert_eq!(told(true, shared, 53), ([&[ours], &all[..2]].concat(), 1));
        assert_eq!(told(true, shared, 5353), (all.to_vec(), 1));
    }

    #[tokio::test]
    async fn the_helpers_end_is_noticed() {
        let host = Arc::new(FakeHost::new());
        let routing = tokio::spawn({
            let host = host.clone();
            async move { route(host.as_ref(), Subnet::default(), 53).await }
        });
        while host.show_dns().await.unwrap().0 != NameRouting::Routed {
            tokio::task::yield_now().await;
        }
        assert!(!routing.is_finished());
        host.restart();
        assert_eq!(routing.await.unwrap(), Ok(()));
    }
}
