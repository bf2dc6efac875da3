//! What is asked of a running VM's monitor: the one place that speaks with it.

use crate::{error::Error, service::Service};
use banger_model::VmId;
use banger_vmm::{Qmp, QmpError, RunState};
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
