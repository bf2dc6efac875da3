//! The way to the service: the connection, and proxies of its objects.

use crate::error::Error;
use banger_dbus::{
    Dict, ExecProxy, ImageProxy, JobProxy, KernelProxy, ManagerProxy, Object, VMProxy, VolumeProxy, names,
    zbus::{
        self, Connection, OwnedObjectPath, Variant,
        fdo::{PropertiesChanged, PropertiesChangedStream, PropertiesProxy},
        proxy::CacheProperties,
    },
};

/// No options.
pub fn none() -> Dict {
    Dict::new()
}

/// A connection to the system bus, or to the one that `DBUS_SYSTEM_BUS_ADDRESS` names.
///
/// # Errors
/// [`Error::Bus`] if there is none.
pub async fn connect() -> Result<Connection, Error> {
    Ok(zbus::connection::Builder::system().build().await?)
}

/// How often a service that dies while it is called is called again.
const LIVES: u32 = 3;

/// Makes sure that what is called next meets a service that lives: one that was just killed still takes a call, and
/// never answers it; the call after that starts it again. Whatever else is wrong, the next call tells better.
///
/// # Errors
/// None that can happen; the path is a constant.
pub async fn wake(connection: &Connection) -> Result<(), Error> {
    let peer = zbus::fdo::PeerProxy::builder(connection)
        .destination(names::SERVICE)
        .path(names::MANAGER_PATH)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    for _ in 0..LIVES {
        match peer.ping().await.map_err(banger_dbus::Error::from) {
            Err(error) if error.is_service_gone() => {}
            _ => break,
        }
    }
    Ok(())
}

macro_rules! proxies {
    ($($(#[$doc:meta])* $name:ident: $proxy:ident,)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Bus`] if the path is none.
        pub async fn $name(connection: &Connection, path: OwnedObjectPath) -> Result<$proxy<'static>, Error> {
            Ok($proxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await?)
        }
    )*};
}

proxies! {
    /// An image.
    image: ImageProxy,
    /// A kernel.
    kernel: KernelProxy,
    /// A VM.
    vm: VMProxy,
    /// A volume.
    volume: VolumeProxy,
    /// A job.
    job: JobProxy,
    /// A command in a guest.
    exec: ExecProxy,
}

/// The manager.
///
/// # Errors
/// None that can happen; the path is a constant.
pub async fn manager(connection: &Connection) -> Result<ManagerProxy<'static>, Error> {
    Ok(ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await?)
}

/// What the service tells of a job's properties as they change.
///
/// # Errors
/// [`Error::Bus`] if the bus is gone.
pub async fn job_changes(job: &JobProxy<'_>) -> Result<PropertiesChangedStream, Error> {
    let properties = PropertiesProxy::builder(job.inner().connection())
        .destination(names::SERVICE)
        .path(job.inner().path().to_owned())
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    Ok(properties.receive_properties_changed_with_args(&[(0, names::JOB_INTERFACE)]).await?)
}

/// The number of entries written, if this change tells it.
pub fn entries_in(change: &PropertiesChanged) -> Option<u64> {
    match change.args().ok()?.changed_properties.get("Entries") {
        Some(Variant::U64(entries)) => Some(*entries),
        _ => None,
    }
}

/// The VM of this name, id or prefix of an id.
///
/// # Errors
/// [`Error::Bus`] if there is none.
pub async fn find_vm(connection: &Connection, name: &str) -> Result<VMProxy<'static>, Error> {
    let path = manager(connection).await?.get_vm(name, &none()).await?;
    vm(connection, path).await
}

/// The id in an object's path, as another call takes it.
///
/// # Errors
/// [`Error::Bus`] if the service answered with something else's path.
pub fn id_in<T: Object>(path: &OwnedObjectPath) -> Result<T, Error> {
    names::id_of(path.as_str()).ok_or_else(|| {
        Error::Bus(banger_dbus::Error::Failed(format!(
            "the service answered with an unexpected object: {path}"
        )))
    })
}
