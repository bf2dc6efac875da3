//! Who is asking, and whether they may. Identity is taken from the bus, never from an argument.

use crate::error::Error;
use banger_model::Uid;
use banger_polkit::{Authority, Details, Operation, Ownership, Refusal, authorize};
use futures_util::StreamExt;
use std::{future::Future, sync::Arc};
use zbus::{
    Connection,
    fdo::DBusProxy,
    message::{Flags, Header},
    names::{BusName, OwnedUniqueName},
    proxy::CacheProperties,
};

/// The sender of a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user whom the bus saw connect.
    pub uid: Uid,
    /// The connection: polkit's subject.
    pub name: OwnedUniqueName,
    /// Whether the call allows that somebody is asked.
    pub interactive: bool,
}

impl Caller {
    /// Whether this caller sees what `owner` owns: their own, and root everything.
    pub fn sees(&self, owner: Uid) -> bool {
        self.uid == owner || self.uid == Uid::ROOT
    }
}

/// What every call passes before anything is done for it.
pub struct Gate {
    daemon: DBusProxy<'static>,
    authority: Arc<dyn Authority>,
}

impl Gate {
    /// A gate that asks `authority` about callers on `bus`.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn new(bus: &Connection, authority: Arc<dyn Authority>) -> Result<Arc<Self>, Error> {
        let daemon = DBusProxy::builder(bus).cache_properties(CacheProperties::No).build().await?;
        Ok(Arc::new(Self { daemon, authority }))
    }

    /// The sender of the call with this header.
    ///
    /// # Errors
    /// [`Error::NoCaller`] when the bus does not know (CVE-2013-4288, CVE-2021-3560: then nobody is asking).
    pub async fn caller(&self, header: &Header<'_>) -> Result<Caller, Error> {
        let sender = header.sender().ok_or(Error::NoCaller)?.to_owned();
        let uid = self
            .daemon
            .get_connection_unix_user(BusName::Unique(sender.clone()))
            .await
            .map_err(|_| Error::NoCaller)?;
        let interactive = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        Ok(Caller { uid: Uid(uid), name: sender.into(), interactive })
    }

    /// Refuses to tell a caller of another user's thing.
    ///
    /// # Errors
    /// [`Error::NotFound`], as if it were not there.
    pub fn must_see(
        &self,
        caller: &Caller,
        owner: Uid,
        what: &'static str,
        wanted: &str,
    ) -> Result<(), Error> {
        match caller.sees(owner) {
            true => Ok(()),
            false => Err(Error::NotFound { what, wanted: wanted.into() }),
        }
    }

    /// Whether the caller may do `operation` to something of `owner`'s (`None`: something that nobody owns yet).
    /// No lock is held while somebody is asked, so what was resolved before is resolved again after.
    ///
    /// # Errors
    /// [`Error::Refused`] says why not, and what to do.
    pub async fn authorize(
        &self,
        caller: &Caller,
        operation: Operation,
        owner: Option<Uid>,
        mut details: Details,
    ) -> Result<(), Error> {
        let ownership = owner.map_or(Ownership::Nobodys, |owner| Ownership::of(owner, caller.uid));
        if let Some(owner) = owner {
            details.insert("owner", owner.to_string());
        }
        let subject = banger_polkit::Caller { bus_name: caller.name.to_string(), uid: caller.uid };
        let answer =
            authorize(&*self.authority, operation, ownership, &subject, caller.interactive, details).await;
        match answer {
            // What is hidden from others is not hidden from root.
            Err(Refusal::NotFound) if caller.uid == Uid::ROOT => Ok(()),
            Err(refusal) => {
                tracing::info!(uid = caller.uid.0, ?operation, ?ownership, %refusal, "refused");
                Err(refusal.into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// What ends when the caller's connection does.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn gone(&self, caller: &Caller) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let name = caller.name.to_string();
        let mut changes = self.daemon.receive_name_owner_changed_with_args(&[(0, name.as_str())]).await?;
        // It may have gone before the bus was told that we care.
        let here = self
            .daemon
            .name_has_owner(BusName::from(caller.name.clone()))
            .await
            .map_err(zbus::Error::from)?;
        Ok(async move {
            if here {
                // The first change of a unique name is its end.
                let _ = changes.next().await;
            }
        })
    }
}
