//! From the configuration to a service that answers on the bus, and back.

use crate::{
    api::ManagerObject,
    config::Config,
    disk,
    error::Error,
    gate::Gate,
    jobs::Jobs,
    kernels::{self, Kernels},
    machines::Machines,
    names::{self, Names},
    ops::restart,
    reconcile::reconcile,
    registered::{self, Registered},
    service::Service,
    space,
    store::Store,
    turns::Turns,
};
use banger_dbus::names as bus_names;
use banger_host::{Host, HostClient};
use banger_image::{Puller, RegistriesFolder};
use banger_model::{Bytes, Limits};
use banger_polkit::PolkitAuthority;
use banger_systemd::{Notifier, fdstore};
use std::{fs::File, path::Path, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use zbus::{connection, fdo};

/// Serves until it is told to stop, or the bus is gone.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(config: Config) -> Result<(), Error> {
    let notifier = Notifier::from_env();
    // Only one service may use a state folder.
    let _lock = lock(&config.state)?;
    let bus = connection::Builder::system()
        .allow_name_replacements(false)
        .replace_existing_names(false)
        .build()
        .await?;
    let gate = Gate::new(&bus, Arc::new(PolkitAuthority::new(bus.clone()))).await?;
    let host = HostClient::new(config.run.join("hostd.sock"));
    host.hello().await?;
    let backends = disk::probe(&host, &config.state, config.disks.backend).await;
    let service = Arc::new(Service {
        backends,
        store: Store::open(&config.state.join("banger.db"))?,
        jobs: Jobs::new(bus.clone(), gate.clone()),
        gate,
        machines: Machines::default(),
        host: Arc::new(host),
        puller: puller(&config)?,
        kernels: Kernels::default(),
        limits: Limits::of_host(processors(), memory()),
        bus: bus.clone(),
        registered: Registered::default(),
        making_volume: tokio::sync::Mutex::default(),
        making: Turns::default(),
        subnet: std::sync::OnceLock::new(),
        names: Names::default(),
        publication: tokio::sync::Mutex::default(),
        config,
    });
    reconcile(&service).await?;
    registered::restore(&service, fdstore::kept());
    names::fill(&service)?;
    tokio::spawn(names::keep(service.clone()));
    show_everything(&service).await?;
    tokio::spawn(space::watch(service.clone()));
    // Last, so that nobody ever meets half of the objects.
    bus.request_name_with_flags(bus_names::SERVICE, fdo::RequestNameFlags::DO_NOT_QUEUE).await?;
    tracing::info!("serving {}", bus_names::SERVICE);
    notifier.ready("serving");
    restart::with_the_service(&service).await?;

    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut watchdog = tokio::time::interval(notifier.watchdog_interval().unwrap_or(Duration::from_secs(60)));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = watchdog.tick() => notifier.watchdog(),
            () = bus.closed() => return Err(Error::Internal("the message bus closed the connection".into())),
        }
    }
    // VMs run on: the next start finds them again.
    notifier.stopping();
    tracing::info!("stopping");
    Ok(())
}

/// What pulls. An error in what is said about registries does not keep VMs from being run: it is told now, and to
/// everybody who pulls until it is repaired.
fn puller(config: &Config) -> Result<Puller, Error> {
    let puller = Puller::new(config.state.join("blobs"), config.limits.0)?
        .with_registries(RegistriesFolder::new(config.registries.clone()));
    if let Err(error) = puller.registries() {
        tracing::error!(%error, "no image can be pulled");
    }
    Ok(puller)
}

async fn show_everything(service: &Arc<Service>) -> Result<(), Error> {
    let server = service.bus.object_server();
    server.at(bus_names::ROOT_PATH, fdo::ObjectManager).await?;
    server.at(bus_names::MANAGER_PATH, ManagerObject::new(service.clone())).await?;
    for image in service.store.images()? {
        service.show_image(image.id).await?;
    }
    for kernel in kernels::all(service)? {
        service.show_kernel(kernel.id()).await?;
    }
    for volume in service.store.volumes()? {
        service.show_volume(volume.id).await?;
    }
    for vm in service.store.vms()? {
        service.show_vm(vm.id).await?;
    }
    Ok(())
}

/// Takes the state folder for this process; the lock goes with it.
fn lock(state: &Path) -> Result<nix::fcntl::Flock<File>, Error> {
    std::fs::create_dir_all(state).map_err(|e| Error::disk(state, e))?;
    let path = state.join("lock");
    let file = File::create(&path).map_err(|e| Error::disk(&path, e))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        match errno {
            nix::errno::Errno::EWOULDBLOCK => Error::HostNotReady(format!(
                "another bangerd is at work in {}: stop it first",
                state.display()
            )),
            other => Error::disk(&path, other.into()),
        }
    })
}

fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// What the host has (`MemTotal`, proc_meminfo(5)).
fn memory() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    Bytes::kib(kib.unwrap_or(0))
}

fn no_signals(error: std::io::Error) -> Error {
    Error::Internal(format!("signals cannot be caught: {error}"))
}
