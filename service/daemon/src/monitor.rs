//! What is asked of a running VM's monitor: the one place that speaks with it.

use crate::{error::Error, service::Service};
use banger_model::VmId;
use banger_vmm::{DiskCounts, Qmp, QmpError, RunState};
use std::time::Duration;
use tokio::net::UnixStream;

/// A monitor answers at once, unless it hangs; it serves one caller at a time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stops the guest's processors. They stand still when this returns.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn pause(service: &Service, vm: VmId) -> Result<(), Error> {
    ask(service, vm, async |qmp| qmp.stop().await).await
}

/// Lets them run again.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn resume(service: &Service, vm: VmId) -> Result<(), Error> {
    ask(service, vm, async |qmp| qmp.cont().await).await
}

/// Whether they stand still at the moment.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn is_paused(service: &Service, vm: VmId) -> Result<bool, Error> {
    Ok(ask(service, vm, async |qmp| qmp.status().await).await? == RunState::Paused)
}

/// Bytes that the guest has read from and written to its disks since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

/// What went between the guest and its disks.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn disk_traffic(service: &Service, vm: VmId) -> Result<DiskTraffic, Error> {
    let disks = ask(service, vm, async |qmp| qmp.disks().await).await?;
    let sum = |of: fn(&DiskCounts) -> u64| disks.iter().map(of).fold(0, u64::saturating_add);
    Ok(DiskTraffic { read: sum(|disk| disk.read), written: sum(|disk| disk.written) })
}

async fn ask<T>(
    service: &Service,
    vm: VmId,
    what: impl AsyncFnOnce(&mut Qmp) -> Result<T, QmpError>,
) -> Result<T, Error> {
    let path = service.socket(vm, "control.sock");
    let asked = async {
        let socket = UnixStream::connect(&path).await.map_err(QmpError::Io)?;
        let mut qmp = Qmp::connect(socket).await?;
        what(&mut qmp).await
    };
    let told = tokio::time::timeout(PATIENCE, asked).await;
    told.map_err(|_| Error::Monitor(format!("it did not answer in {} s", PATIENCE.as_secs())))?
        .map_err(|error| Error::Monitor(sentence(&error)))
}

fn sentence(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
