//! What the thread does: it tells, whenever something that it told has gone.

use super::{State, Wanted, Word, links::Links};
use banger_host::NameRouting;
use banger_systemd::resolved::{self, ManagerProxy};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::{Connection, proxy::CacheProperties};

/// How long a resolver may take for all that it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take when this process ends.
const LAST: Duration = Duration::from_secs(2);

/// Until the next attempt after one that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The bus, and who comes and goes on it.
struct Bus {
    connection: Connection,
    owners: NameOwnerChangedStream,
    manager: ManagerProxy<'static>,
    names: DBusProxy<'static>,
}

impl Bus {
    async fn connect() -> zbus::Result<Self> {
        let connection = Connection::system().await?;
        let names = DBusProxy::new(&connection).await?;
        let owners = names.receive_name_owner_changed_with_args(&[(0, resolved::SERVICE)]).await?;
        let manager =
            ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { connection, owners, manager, names })
    }

    async fn has_resolver(&self) -> bool {
        let Ok(name) = resolved::SERVICE.try_into() else { return false };
        self.names.name_has_owner(name).await.unwrap_or(false)
    }

    async fn revert(&self, link: i32) {
        match timeout(LAST, self.manager.revert_link(link)).await {
            Ok(Ok(())) => tracing::info!(link, "the resolver forgets about names of VMs"),
            // With the resolver, or the link, what was told is gone as well.
            Ok(Err(error)) => tracing::debug!(link, %error, "nothing to take back"),
            Err(_) => tracing::warn!(link, "the resolver does not answer"),
        }
    }
}

/// Tells until nobody can say any more what.
pub async fn keep(mut words: UnboundedReceiver<Word>, links: Links, state: Arc<State>) {
    let mut wanted: Option<(resolved::Route, Receiver)> = None;
    let mut bus: Option<Bus> = None;
    // The link that was told. One of an earlier life is found by its name, and cleaned before anything else.
    let mut told: Option<i32> = None;
    let mut clean = false;
    loop {
        if bus.is_none() {
            bus = Bus::connect().await.ok();
            told = None;
        }
        let mut again = bus.is_none() && wanted.is_some();
        match (&bus, &wanted) {
            (None, Some(_)) => state.set(NameRouting::NoBus, "there is no message bus"),
            (Some(bus), Some((route, _))) => {
                again = tell(bus, &links, route, &mut told, &state).await;
            }
            (Some(bus), None) => {
                let link = if clean { told } else { links.bridge() };
                if let Some(link) = link.filter(|_| !clean || told.is_some()) {
                    bus.revert(link).await;
                }
                told = None;
                state.set(NameRouting::Off, "");
            }
            (None, None) => {}
        }
        clean = clean || bus.is_some();
        tokio::select! {
            word = words.recv() => match word {
                Some(Word::Route(Wanted { route, owner })) => {
                    told = None;
                    wanted = Receiver::from_owned_fd(owner).ok().map(|owner| (route, owner));
                }
                Some(Word::End) | None => break,
            },
            () = links.changed() => {}
            () = gone(wanted.as_ref()) => wanted = None,
            is_there = resolver_changed(bus.as_mut()) => match is_there {
                true => told = None,
                false => bus = None,
            },
            () = sleep(PAUSE), if again => {}
        }
    }
    if let (Some(bus), Some(link)) = (&bus, told) {
        bus.revert(link).await;
    }
}

/// Says what is wanted, unless that link has been told already. Whether it has to be tried again.
async fn tell(
    bus: &Bus,
    links: &Links,
    route: &resolved::Route,
    told: &mut Option<i32>,
    state: &State,
) -> bool {
    if !bus.has_resolver().await {
        *told = None;
        state.set(NameRouting::NoResolver, "systemd-resolved does not run");
        return false;
    }
    let Some(link) = links.bridge() else {
        *told = None;
        state.set(NameRouting::NoBridge, "there is no bridge yet: it comes with the first VM");
        return false;
    };
    if *told == Some(link) {
        return false;
    }
    *told = None;
    let failure = match timeout(PATIENCE, resolved::route(&bus.manager, link, route)).await {
        Ok(Ok(())) => {
            *told = Some(link);
            state.set(NameRouting::Routed, "");
            return false;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it does not answer within {} s", PATIENCE.as_secs()),
    };
    state.set(NameRouting::Failed, format!("systemd-resolved does not take it: {failure}"));
    true
}

/// Waits until whoever wanted something has gone.
async fn gone(wanted: Option<&(resolved::Route, Receiver)>) {
    match wanted {
        Some((_, owner)) => drop(owner.readable().await),
        None => std::future::pending().await,
    }
}

/// Waits until a resolver has come or gone, or the bus has: then it is false.
async fn resolver_changed(bus: Option<&mut Bus>) -> bool {
    let Some(bus) = bus else { return std::future::pending().await };
    tokio::select! {
        changed = bus.owners.next() => changed.is_some(),
        () = bus.connection.closed() => false,
    }
}
