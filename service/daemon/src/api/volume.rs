//! `org.banger.Volume`.

use super::{manager::check_quota, no_options};
use crate::{error, gate::Caller, jobs::NewJob, service::Service, show, store::VolumeRow, volumes};
use banger_dbus::{Dict, Error};
use banger_model::{JobKind, VolumeId};
use banger_polkit::{Details, Operation};
use std::sync::Arc;
use zbus::{OwnedObjectPath, message::Header};

/// A volume on the bus.
pub struct VolumeObject {
    service: Arc<Service>,
    id: VolumeId,
}

impl VolumeObject {
    /// The object of this volume.
    pub fn new(service: Arc<Service>, id: VolumeId) -> Self {
        Self { service, id }
    }

    /// The caller and the volume. Another user's is not there.
    async fn mine(&self, header: &Header<'_>) -> Result<(Caller, VolumeRow), Error> {
        let caller = self.service.gate.caller(header).await?;
        let volume = self.service.volume(self.id)?;
        let details = Details::from([("volume", volume.name.to_string())]);
        let allowed =
            self.service.gate.authorize(&caller, Operation::UseVm, Some(volume.owner), details).await;
        match allowed {
            Ok(()) => Ok((caller, volume)),
            Err(refused) => Err(refused.hide("volume", &self.id.to_string()).into()),
        }
    }

    fn property(&self, of: impl FnOnce(VolumeRow) -> String) -> zbus::fdo::Result<String> {
        self.service.volume(self.id).map(of).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }
}

/// A disk of its own that VMs have at a path, and that stays when they go. To everybody but its owner and root its
/// methods answer `org.banger.Error.NotFound`.
#[zbus::interface(name = "org.banger.Volume")]
impl VolumeObject {
    /// Everything known of it: id and name s, owner-uid u, size, used and created t, used-by as, the names of the VMs
    /// that have it.
    #[zbus(out_args("description"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let (_, volume) = self.mine(&header).await?;
        let vms = self.service.store.vms().map_err(error::Error::from)?;
        Ok(show::volume(&self.service, &volume, &vms).into_dict())
    }

    /// Deletes it with all that is in it; refused while a VM has it, and the error says which.
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let (caller, volume) = self.mine(&header).await?;
        check_quota(&self.service, caller.uid)?;
        let (service, subject) = (self.service.clone(), volume.name.to_string());
        let new = NewJob { kind: JobKind::DeleteVolume, subject, owner: caller.uid, cancellable: false };
        let work = |job: Arc<crate::jobs::Job>| async move {
            job.phase(banger_model::Phase::Removing);
            volumes::delete(&service, volume.id).await.map(|()| Dict::new())
        };
        Ok(self.service.jobs.start(new, work).await?.path())
    }

    /// Its id, 16 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String> {
        self.property(|volume| volume.name.to_string())
    }

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> zbus::fdo::Result<u32> {
        let volume = self.service.volume(self.id);
        volume.map(|volume| volume.owner.0).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }
}
