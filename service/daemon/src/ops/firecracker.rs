//! What Firecracker is told once its process is there.

use crate::{error::Error, monitor, reach, service::Service, store::VmRow};
use banger_model::VmId;
use banger_vmm::{
    Control,
    firecracker::{self, Setup, Version, paths::TAP_NAME},
};
use std::{io, time::Duration};

/// How long the process may take to listen, and the pauses between looks whether it does: there is nothing to wait on.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until it listens, and says what it is to run.
///
/// # Errors
/// [`Error::Monitor`] says which request was refused.
pub async fn configure(service: &Service, vm: &VmRow) -> Result<(), Error> {
    let setup = Setup {
        size: vm.spec.size,
        writable: std::iter::once(true)
            .chain(vm.spec.volumes.iter().map(|volume| !volume.read_only))
            .collect(),
        tap: tap(service, vm.id)?,
        mac: vm.slot.mac(),
        cid: vm.slot.cid(),
        limits: vm.spec.limits,
    };
    let mut control = listening(service, vm).await?;
    let Control::Firecracker(api) = &mut control else {
        return Err(Error::Internal("a Firecracker that is none".into()));
    };
    let told = async {
        let version = api.at_least(Version::OLDEST).await?;
        api.all(&firecracker::boot(&setup, version)).await
    };
    told.await.map_err(|error| Error::Monitor(monitor::sentence(&error)))
}

/// The name of a VM's TAP, which the helper wrote down.
///
/// # Errors
/// When there is none.
pub fn tap(service: &Service, id: VmId) -> Result<String, Error> {
    let path = service.socket(id, TAP_NAME);
    std::fs::read_to_string(&path).map_err(|error| Error::disk(&path, error))
}

/// Connects as soon as it listens.
///
/// # Errors
/// [`Error::Monitor`] when it does not.
pub async fn listening(service: &Service, vm: &VmRow) -> Result<Control, Error> {
    let (kind, socket) = reach::control(service, vm.id);
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        let error = match Control::connect(kind, &socket, vm.slot.uid()).await {
            Ok(control) => return Ok(control),
            Err(error) => error,
        };
        let early = matches!(
            &error,
            banger_vmm::ControlError::Firecracker(banger_vmm::ApiError::Connect(why))
                if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        );
        if !early || tokio::time::Instant::now() > patience {
            return Err(Error::Monitor(monitor::sentence(&error)));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
