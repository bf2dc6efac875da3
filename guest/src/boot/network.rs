//! The guest's network: loopback, and the one interface that the host gave it.

use super::{Report, netlink::Netlink};
use crate::uevent;
use banger_guest::{Address, Mac, Network};
use std::{fs, io, time::Duration};

/// How long the interface may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sets the network up. Without it a guest still boots, for its agent needs none.
pub fn set_up(network: Option<&Network>, report: &mut Report) {
    if let Err(error) = Netlink::open().and_then(|mut netlink| netlink.up(index_of("lo")?)) {
        report.warn(format!("the loopback interface does not come up: {error}"));
    }
    if let Some(network) = network
        && let Err(error) = try_set_up(network, report)
    {
        report.warn(format!("there is no network: {error}"));
    }
}

fn try_set_up(network: &Network, report: &mut Report) -> io::Result<()> {
    let name = uevent::wait(PATIENCE, || find(network.mac))?;
    let missing =
        || io::Error::new(io::ErrorKind::NotFound, format!("no interface has the MAC {}", network.mac));
    let name = name.ok_or_else(missing)?;
    let index = index_of(&name)?;
    let mut netlink = Netlink::open()?;
    // Nobody announces routes here; what an IPv6 address is, and where the rest goes, is told below.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0");
    netlink.up(index)?;
    for Address { address, prefix, gateway } in &network.addresses {
        let set = netlink.add_address(index, *address, *prefix).and_then(|()| match gateway {
            Some(gateway) => netlink.add_default_route(index, *gateway),
            None => Ok(()),
        });
        match set {
            // A kernel without IPv6, or one that was told to leave it off.
            Err(error) if address.is_ipv6() => report.warn(format!("there is no IPv6: {error}")),
            other => other?,
        }
    }
    Ok(())
}

/// Makes the interface that was set up as `old` another one.
///
/// # Errors
/// What the kernel refuses.
pub fn change(old: Option<&Network>, new: &Network) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no network interface");
    let name = old.and_then(|old| find(old.mac)).or_else(|| find(new.mac)).ok_or_else(missing)?;
    let index = index_of(&name)?;
    let mut netlink = Netlink::open()?;
    for Address { address, prefix, .. } in old.into_iter().flat_map(|old| &old.addresses) {
        match netlink.remove_address(index, *address, *prefix) {
            // Somebody in the guest took it away, or a kernel without IPv6 never gave it.
            Err(error) if address.is_ipv4() && error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
                return Err(error);
            }
            _ => {}
        }
    }
    // Down, so that routes go too.
    netlink.down(index)?;
    netlink.set_mac(index, new.mac)?;
    try_set_up(new, &mut Report::default())
}

/// The interface with this MAC address.
fn find(mac: Mac) -> Option<String> {
    let interfaces = fs::read_dir("/sys/class/net").ok()?.flatten();
    interfaces.filter_map(|entry| entry.file_name().into_string().ok()).find(|name| {
        let address = fs::read_to_string(format!("/sys/class/net/{name}/address")).unwrap_or_default();
        address.trim_end().parse().is_ok_and(|found: Mac| found == mac)
    })
}

fn index_of(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim_end().parse().map_err(io::Error::other)
}
