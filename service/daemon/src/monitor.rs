//! What is asked of a running VM's monitor: the one place that speaks with it.

use crate::{error::Error, reach, service::Service};
use banger_model::VmId;
use banger_vmm::{Control, ControlError, DiskCounts, RunState};
use std::time::Duration;

/// A monitor answers at once, unless it hangs; it serves one caller at a time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stops the guest's processors. They stand still when this returns.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn pause(service: &Service, vm: VmId) -> Result<(), Error> {
    ask(service, vm, async |vmm| vmm.pause().await).await
}

/// Lets them run again.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn resume(service: &Service, vm: VmId) -> Result<(), Error> {
    ask(service, vm, async |vmm| vmm.resume().await).await
}

/// Whether they stand still at the moment.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn is_paused(service: &Service, vm: VmId) -> Result<bool, Error> {
    Ok(ask(service, vm, async |vmm| vmm.state().await).await? == RunState::Paused)
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
    let disks = ask(service, vm, async |vmm| vmm.disks().await).await?;
    let sum = |of: fn(&DiskCounts) -> u64| disks.iter().map(of).fold(0, u64::saturating_add);
    Ok(DiskTraffic { read: sum(|disk| disk.read), written: sum(|disk| disk.written) })
}

async fn ask<T>(
    service: &Service,
    vm: VmId,
    what: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
) -> Result<T, Error> {
    let (kind, socket) = reach::control(service, vm);
    let uid = service.vm(vm)?.slot.uid();
    let asked = async {
        let mut control = Control::connect(kind, &socket, uid).await?;
        what(&mut control).await
    };
    let told = tokio::time::timeout(PATIENCE, asked).await;
    told.map_err(|_| Error::Monitor(format!("it did not answer in {} s", PATIENCE.as_secs())))?
        .map_err(|error| Error::Monitor(sentence(&error)))
}

/// An error with its reason.
pub fn sentence(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
