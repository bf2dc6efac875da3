//! A VM's processors stand still, and run again.

use super::lifecycle::enter;
use crate::{error::Error, monitor, service::Service};
use banger_model::{VmEvent, VmId, VmState};
use std::sync::Arc;

/// Stops a VM's processors. `why` is empty when somebody asked for it, else the sentence that tells why the service
/// did it by itself. One that is paused already is no error.
///
/// # Errors
/// [`Error::Model`] when it does not run, [`Error::Monitor`].
pub async fn pause(service: &Arc<Service>, id: VmId, why: &str) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    if vm.state == VmState::Paused {
        return Ok(());
    }
    vm.state.after(VmEvent::Pause)?;
    monitor::pause(service, id).await?;
    enter(service, &vm, VmEvent::Pause, why).await
}

/// Lets them run again. A VM that runs is no error.
///
/// # Errors
/// [`Error::Model`] when it is neither paused nor runs, [`Error::Monitor`].
pub async fn resume(service: &Arc<Service>, id: VmId) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    if vm.state == VmState::Running {
        return Ok(());
    }
    vm.state.after(VmEvent::Resume)?;
    monitor::resume(service, id).await?;
    enter(service, &vm, VmEvent::Resume, "").await
}
