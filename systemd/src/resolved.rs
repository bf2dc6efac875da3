//! Which names systemd-resolved asks of whom, by its D-Bus interface (org.freedesktop.resolve1(5)).

use std::net::IpAddr;

/// Its name on the bus.
pub const SERVICE: &str = "org.freedesktop.resolve1";

/// `AF_INET` and `AF_INET6` (address_families(7)).
const INET: i32 = 2;
const INET6: i32 = 10;

/// The part of the interface that says where names on a link are looked up. Root may; others are asked for by polkit.
#[zbus::proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
pub trait Manager {
    /// Servers: family, address, port, and the name of a certificate.
    #[zbus(name = "SetLinkDNSEx", no_autostart)]
    fn set_link_dns_ex(&self, link: i32, servers: &[(i32, Vec<u8>, u16, &str)]) -> zbus::Result<()>;
    /// Domains; `true` for one whose names are looked up here and which completes no other names.
    #[zbus(no_autostart)]
    fn set_link_domains(&self, link: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    /// Whether names of no link's domain are looked up here.
    #[zbus(no_autostart)]
    fn set_link_default_route(&self, link: i32, enable: bool) -> zbus::Result<()>;
    /// `yes`, `no`, or as far as others do.
    #[zbus(name = "SetLinkLLMNR", no_autostart)]
    fn set_link_llmnr(&self, link: i32, mode: &str) -> zbus::Result<()>;
    /// `yes`, `no`, or as far as others do.
    #[zbus(name = "SetLinkMulticastDNS", no_autostart)]
    fn set_link_multicast_dns(&self, link: i32, mode: &str) -> zbus::Result<()>;
    /// `yes`, `no`, or where the server can.
    #[zbus(name = "SetLinkDNSOverTLS", no_autostart)]
    fn set_link_dns_over_tls(&self, link: i32, mode: &str) -> zbus::Result<()>;
    /// `yes`, `no`, or where the server can.
    #[zbus(name = "SetLinkDNSSEC", no_autostart)]
    fn set_link_dnssec(&self, link: i32, mode: &str) -> zbus::Result<()>;
    /// Takes back all of it.
    #[zbus(no_autostart)]
    fn revert_link(&self, link: i32) -> zbus::Result<()>;
}

/// What is looked up on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// Their port.
    pub port: u16,
    /// The domains whose names they are asked for, and no others.
    pub domains: Vec<String>,
}

/// Tells a resolver of a link's servers and domains. Names of other domains go where they went; nothing is asked of
/// the link's other machines, which are not to be trusted with names.
///
/// # Errors
/// What the resolver says, or the bus.
pub async fn route(manager: &ManagerProxy<'_>, link: i32, route: &Route) -> zbus::Result<()> {
    let server = |address: &IpAddr| match address {
        IpAddr::V4(v4) => (INET, v4.octets().to_vec(), route.port, ""),
        IpAddr::V6(v6) => (INET6, v6.octets().to_vec(), route.port, ""),
    };
    let servers: Vec<_> = route.servers.iter().map(server).collect();
    let domains: Vec<_> = route.domains.iter().map(|domain| (domain.as_str(), true)).collect();
    // The domains come before the servers: a link with servers and no domains would be asked for everything.
    manager.set_link_default_route(link, false).await?;
    manager.set_link_domains(link, &domains).await?;
    manager.set_link_llmnr(link, "no").await?;
    manager.set_link_multicast_dns(link, "no").await?;
    manager.set_link_dns_over_tls(link, "no").await?;
    // There is no .vm in the root zone, so nothing about it can be proven.
    manager.set_link_dnssec(link, "no").await?;
    manager.set_link_dns_ex(link, &servers).await
}
