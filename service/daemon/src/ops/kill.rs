//! A signal for a guest's main process.

use super::lifecycle::{self, Stop};
use crate::{error::Error, jobs::Job, service::Service};
use banger_model::{VmId, VmState};
use std::{sync::Arc, time::Duration};

// Linux's numbers on x86 (signal(7)): the guest's, whatever this host's are.
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How long the guest may take to say what came of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks a signal's number.
///
/// # Errors
/// [`Error::Spec`].
pub fn check(signal: i32) -> Result<(), Error> {
    match signal {
        1..=64 => Ok(()),
        _ => Err(Error::Spec(format!("signal is {signal}, outside 1 to 64"))),
    }
}

/// Sends the signal; SIGKILL ends the VM itself. What the guest makes of another is its own affair.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoAgent`], or what the guest said.
pub async fn kill(service: &Arc<Service>, id: VmId, signal: i32, job: &Job) -> Result<(), Error> {
    if signal == SIGKILL {
        let how = Stop { patience: Duration::ZERO, force: true, keep: false };
        return lifecycle::stop(service, id, how, job).await;
    }
    let vm = service.vm(id)?;
    let live = match (vm.state, service.machines.of(id).live()) {
        (VmState::Running, Some(live)) => live,
        _ => return Err(Error::NotRunning { name: vm.name.to_string(), state: vm.state }),
    };
    let silent = || Error::NoAgent { name: vm.name.to_string() };
    let agent = live.agent().ok_or_else(silent)?;
    if matches!(signal, SIGINT | SIGQUIT | SIGTERM) {
        service.store.set_vm_wanted(id, false)?;
    }
    tokio::time::timeout(PATIENCE, agent.signal_main(signal)).await.map_err(|_| silent())??;
    Ok(())
}
