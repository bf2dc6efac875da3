//! `org.banger.Kernel`.

use super::no_options;
use crate::{
    error,
    jobs::NewJob,
    kernels::{self, Kernel},
    ops::kernels::delete,
    service::Service,
};
use banger_dbus::{Dict, Error};
use banger_model::{JobKind, KernelId};
use banger_polkit::{Details, Operation};
use std::sync::Arc;
use zbus::{OwnedObjectPath, message::Header};

/// A kernel on the bus.
pub struct KernelObject {
    service: Arc<Service>,
    id: KernelId,
}

impl KernelObject {
    /// The object of this kernel.
    pub fn new(service: Arc<Service>, id: KernelId) -> Self {
        Self { service, id }
    }

    fn kernel(&self) -> Result<Kernel, error::Error> {
        kernels::find(&self.service, &self.id.to_string())
    }

    fn property(&self, of: impl FnOnce(Kernel) -> String) -> zbus::fdo::Result<String> {
        self.kernel().map(of).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }
}

/// A kernel that VMs can have: the host's own, or an imported one.
#[zbus::interface(name = "org.banger.Kernel")]
impl KernelObject {
    /// Everything known of it: id, name, release and source (`host` or `imported`) s, size t, has-modules,
    /// has-initrd and default b, used-by as, which names the caller's VMs alone (everybody's for root).
    #[zbus(out_args("description"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        Ok(self.kernel()?.info(&self.service, &caller)?.into_dict())
    }

    /// Deletes an imported kernel; refused while a VM has it, an image wants it or it is the default, and the error
    /// says which. Another user's needs `org.banger.manager.kernel-delete-others`.
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        let Kernel::Imported(kernel) = self.kernel()? else {
            return Err(Error::WrongState(
                "the host's own kernel cannot be deleted here: remove its package".into(),
            ));
        };
        let details = Details::from([("kernel", kernel.name.to_string())]);
        self.service.gate.authorize(&caller, Operation::DeleteKernel, Some(kernel.owner), details).await?;
        let (service, subject) = (self.service.clone(), kernel.name.to_string());
        let new = NewJob { kind: JobKind::DeleteKernel, subject, owner: caller.uid, cancellable: false };
        let job = self.service.jobs.start(new, |job| delete(service, kernel, caller.uid, job)).await?;
        Ok(job.path())
    }

    /// Its id, 16 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Its name; `host` for the host's preferred one.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String> {
        self.property(|kernel| kernel.name().to_owned())
    }

    /// What `uname -r` says in it, where that is known.
    #[zbus(property(emits_changed_signal = "const"))]
    fn release(&self) -> zbus::fdo::Result<String> {
        self.property(|kernel| kernel.release().to_owned())
    }
}
