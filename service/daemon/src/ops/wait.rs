//! Waiting for a VM to stop.

use crate::{error::Error, service::Service};
use banger_agent::ExitStatus;
use banger_dbus::{Dict, DictWriter};
use banger_model::VmId;

/// The word for a VM that is no longer there.
const REMOVED: &str = "removed";

/// Replies once the VM has no process: its state and, where that is known, how its main process ended.
///
/// # Errors
/// When the database fails, or the VM was not there to begin with.
pub async fn wait(service: &Service, id: VmId) -> Result<Dict, Error> {
    let machine = service.machines.of(id);
    let mut changes = machine.changes();
    service.vm(id)?;
    loop {
        match service.vm(id) {
            Ok(vm) if vm.state.may_have_process() => {}
            Ok(vm) => return Ok(told(vm.state.as_str(), vm.exit, &vm.error)),
            Err(Error::NotFound { .. }) => return Ok(told(REMOVED, machine.exit(), "")),
            Err(error) => return Err(error),
        }
        // The sender lives in the machine, which is held here.
        let _ = changes.changed().await;
    }
}

fn told(state: &str, exit: Option<ExitStatus>, error: &str) -> Dict {
    let (code, signal) = match exit {
        Some(ExitStatus::Code(code)) => (Some(code), None),
        Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    DictWriter::new()
        .with("state", state.to_owned())
        .with_some("code", code)
        .with_some("signal", signal)
        .with_some("error", (!error.is_empty()).then(|| error.to_owned()))
        .done()
}
