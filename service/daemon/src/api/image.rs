//! `org.banger.Image`.

use super::{manager::check_quota, no_options};
use crate::{error, jobs::NewJob, ops::images, service::Service, show, store::ImageRow};
use banger_dbus::{Dict, Error};
use banger_model::{ImageId, JobKind};
use banger_polkit::{Details, Operation};
use std::sync::Arc;
use zbus::{OwnedFd, OwnedObjectPath, message::Header};

/// An image on the bus.
pub struct ImageObject {
    service: Arc<Service>,
    id: ImageId,
}

impl ImageObject {
    /// The object of this image.
    pub fn new(service: Arc<Service>, id: ImageId) -> Self {
        Self { service, id }
    }

    fn image(&self) -> Result<ImageRow, Error> {
        Ok(self.service.image(self.id)?)
    }

    fn property<T>(&self, of: impl FnOnce(ImageRow) -> T) -> zbus::fdo::Result<T> {
        self.image().map(of).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }
}

/// A root filesystem made of an OCI image. Every user may use it; its owner is who pulled it.
#[zbus::interface(name = "org.banger.Image")]
impl ImageObject {
    /// Everything known of it: id, name, reference, digest and platform s; size, content, compressed and
    /// created t; owner-uid and layers u; entrypoint, command, environment and used-by as; user and
    /// working-directory s. `used-by` names those of the caller's VMs that are made of it.
    #[zbus(out_args("description"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        let vms = self.service.store.vms().map_err(error::Error::from)?;
        Ok(show::image(&self.image()?, &vms, &caller).into_dict())
    }

    /// Deletes it; refused while a VM is made of it. Another user's needs
    /// `org.banger.manager.image-delete-others`.
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        let image = self.image()?;
        check_quota(&self.service, caller.uid)?;
        let details = Details::from([("image", image.name.to_string())]);
        self.service.gate.authorize(&caller, Operation::DeleteImage, Some(image.owner), details).await?;
        let image = self.image()?;
        let (service, subject) = (self.service.clone(), image.name.to_string());
        let new = NewJob { kind: JobKind::DeleteImage, subject, owner: caller.uid, cancellable: false };
        let job = self.service.jobs.start(new, |job| images::delete(service, image, caller.uid, job)).await?;
        Ok(job.path())
    }

    /// Writes the ext4 filesystem to a descriptor, a file (holes stay holes) or a pipe. The job's result has
    /// `bytes` t.
    #[zbus(out_args("job"))]
    async fn export(
        &self,
        #[zbus(header)] header: Header<'_>,
        output: OwnedFd,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        let image = self.image()?;
        check_quota(&self.service, caller.uid)?;
        let (service, subject) = (self.service.clone(), image.name.to_string());
        let new = NewJob { kind: JobKind::ExportImage, subject, owner: caller.uid, cancellable: true };
        let job =
            self.service.jobs.start(new, |job| images::export(service, image, output.into(), job)).await?;
        Ok(job.path())
    }

    /// Its id, 16 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Its name on this host.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.name.to_string())
    }

    /// Where it was pulled from.
    #[zbus(property(emits_changed_signal = "const"))]
    fn reference(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.reference)
    }

    /// The digest of its manifest.
    #[zbus(property(emits_changed_signal = "const"))]
    fn digest(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.digest)
    }

    /// Bytes of the filesystem.
    #[zbus(property(emits_changed_signal = "const"))]
    fn size(&self) -> zbus::fdo::Result<u64> {
        self.property(|image| image.size.0)
    }

    /// Who pulled it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> zbus::fdo::Result<u32> {
        self.property(|image| image.owner.0)
    }
}
