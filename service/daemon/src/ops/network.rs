//! The VMs' network: which it is, and what a VM's packets may.

use crate::{
    error::Error,
    ids,
    service::Service,
    store::{StoreError, VmRow},
};
use banger_model::{NetworkRules, PublishedPort, Subnet, VmId};
use std::sync::Arc;

/// The fact under which the network is remembered.
const SUBNET: &str = "subnet";

/// Settles which network it is: the one that there was, as long as nobody else has come to use its addresses, or there
/// are VMs that have theirs from it; else another.
///
/// # Errors
/// When the database or the helper fails.
pub async fn choose(service: &Service) -> Result<(), Error> {
    let kept: Option<Subnet> = service.store.fact(SUBNET)?.and_then(|text| serde_json::from_str(&text).ok());
    let forced = service.config.network.subnet;
    let (used, firewalls) = service.host.list_networks().await?;
    for firewall in firewalls.iter().filter(|firewall| !firewall.open) {
        tracing::debug!(%firewall, "seen");
    }
    let wanted = match (kept, forced) {
        (Some(kept), Some(forced)) => Some(kept.with_v4(forced)?),
        (kept, _) => kept,
    };
    let subnet = match wanted.map(|subnet| (subnet, subnet.conflict(&used))) {
        Some((subnet, None)) => subnet,
        Some((subnet, Some(conflict))) if forced.is_some() || !service.store.vms()?.is_empty() => {
            // Those that run go on; the next start is refused with the same words.
            tracing::warn!("{conflict}");
            subnet
        }
        _ => match Subnet::choose(forced, &used, ids::random()?) {
            Ok(subnet) => subnet,
            Err(conflict) => {
                tracing::warn!("{conflict}");
                let any = Subnet::choose(None, &[], ids::random()?).unwrap_or_default();
                forced.map_or(Ok(any), |forced| any.with_v4(forced))?
            }
        },
    };
    if kept != Some(subnet) {
        let text = serde_json::to_string(&subnet).map_err(|error| Error::Internal(error.to_string()))?;
        service.store.remember(SUBNET, &text)?;
        tracing::info!(%subnet, "the VMs' network");
    }
    let _ = service.subnet.set(subnet);
    Ok(())
}

/// Lets a VM's packets do what it was asked for.
///
/// # Errors
/// [`banger_host::Refusal::InUse`] for a port that somebody else has.
pub async fn open(service: &Service, vm: VmId) -> Result<(), Error> {
    let rules = service.vm(vm)?.spec.network;
    Ok(service.host.open_network(vm, rules).await?)
}

/// Publishes a port of a VM, now if it runs, and whenever it does. One that is published so already is no error.
///
/// # Errors
/// What the rules for ports, the helper or the database refuse.
pub async fn publish(service: &Arc<Service>, vm: VmId, port: PublishedPort) -> Result<(), Error> {
    change(service, vm, |rules| {
        if !rules.ports.contains(&port) {
            rules.ports.push(port);
        }
        Ok(rules.check()?)
    })
    .await
}

/// Takes that back. A port that is not published is no error.
///
/// # Errors
/// As [`publish`].
pub async fn unpublish(service: &Arc<Service>, vm: VmId, port: PublishedPort) -> Result<(), Error> {
    change(service, vm, |rules| {
        rules.ports.retain(|there| *there != port);
        Ok(())
    })
    .await
}

/// Changes what a VM's packets may: on the host first, where it can be refused, and then in the database.
async fn change(
    service: &Arc<Service>,
    id: VmId,
    by: impl FnOnce(&mut NetworkRules) -> Result<(), Error>,
) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    let mut rules = vm.spec.network.clone();
    by(&mut rules)?;
    if rules == vm.spec.network {
        return Ok(());
    }
    with(service, &vm, &rules, || service.store.set_vm_network(id, &rules)).await?;
    service.vm_changed(id).await;
    Ok(())
}

/// Lets the packets of a VM, if it runs, do what other `rules` say, and has that written down; or else nothing. The caller
/// holds its turn.
///
/// # Errors
/// What the rules for ports, the helper or the database refuse.
pub async fn with(
    service: &Service,
    vm: &VmRow,
    rules: &NetworkRules,
    write: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), Error> {
    rules.check()?;
    let other = vm.state.may_have_process() && *rules != vm.spec.network;
    if other {
        service.host.open_network(vm.id, rules.clone()).await?;
    }
    if let Err(error) = write() {
        if other && let Err(also) = service.host.open_network(vm.id, vm.spec.network.clone()).await {
            tracing::error!(vm = %vm.id, %also, "a change of what its packets may was not taken back");
        }
        return Err(error.into());
    }
    Ok(())
}
