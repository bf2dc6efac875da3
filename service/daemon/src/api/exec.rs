//! `org.banger.Exec`.

use super::no_options;
use crate::{error, ops::exec::End, service::Service, store::VmRow};
use banger_agent::{ExecControl, ExitStatus, WindowSize};
use banger_dbus::{Dict, Error, ExecResult, names};
use banger_model::{Uid, VmId};
use std::sync::Arc;
use zbus::{OwnedObjectPath, message::Header};

/// A command in a guest, on the bus.
pub struct ExecObject {
    service: Arc<Service>,
    vm: VmId,
    owner: Uid,
    control: ExecControl,
    end: End,
}

impl ExecObject {
    /// The object of a command in `vm`.
    pub fn new(service: Arc<Service>, vm: &VmRow, control: ExecControl, end: End) -> Self {
        Self { service, vm: vm.id, owner: vm.owner, control, end }
    }

    async fn check(&self, header: &Header<'_>) -> Result<(), Error> {
        let caller = self.service.gate.caller(header).await?;
        let wanted = header.path().map(ToString::to_string).unwrap_or_default();
        Ok(self.service.gate.must_see(&caller, self.owner, "command", &wanted)?)
    }
}

/// A command that runs in a guest. It ends with the connection of the caller that began it, unless that
/// said `detach`, and stays for a minute after its end.
#[zbus::interface(name = "org.banger.Exec")]
impl ExecObject {
    /// Waits for the end of the command, and tells it: `code` i, or `signal` i when a signal ended it.
    /// Its streams may hold unread output then.
    #[zbus(out_args("result"))]
    async fn wait(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        self.check(&header).await?;
        let mut end = self.end.clone();
        let status = match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(status)) => status.map_err(error::Error::from)?,
            _ => return Err(error::Error::Internal("the command was lost".into()).into()),
        };
        let result = match status {
            ExitStatus::Code(code) => ExecResult::Code(code),
            ExitStatus::Signal(signal) => ExecResult::Signal(signal),
        };
        Ok(result.into_dict())
    }

    /// Gives the command's terminal another size.
    async fn resize(
        &self,
        #[zbus(header)] header: Header<'_>,
        rows: u16,
        columns: u16,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        self.check(&header).await?;
        self.control.resize(WindowSize { rows, cols: columns });
        Ok(())
    }

    /// Sends a signal, 1 to 64, to the command's process group.
    async fn signal(
        &self,
        #[zbus(header)] header: Header<'_>,
        signal: i32,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        self.check(&header).await?;
        Ok(self.control.signal(signal).map_err(error::Error::from)?)
    }

    /// The VM that it runs in.
    #[zbus(property(emits_changed_signal = "const"), name = "VM")]
    fn vm(&self) -> OwnedObjectPath {
        names::path_of(self.vm)
    }
}
