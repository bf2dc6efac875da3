//! `org.banger.Image`.

use super::{manager::check_quota, no_options};
use crate::{
    error,
    gate::Caller,
    jobs::NewJob,
    ops::{
        export::{self, ExportFormat},
        images, register,
    },
    service::Service,
    show,
    store::ImageRow,
};
use banger_dbus::{Dict, Error, Options};
use banger_model::{ImageId, ImageName, JobKind};
use banger_polkit::{Details, Operation};
use std::sync::Arc;
use zbus::{OwnedFd, OwnedObjectPath, message::Header, object_server::SignalEmitter};

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

    /// The image, for who may see it.
    fn image(&self, caller: &Caller) -> Result<ImageRow, Error> {
        let image = self.service.image(self.id)?;
        match image.private && !caller.sees(image.owner) {
            true => Err(error::Error::NotFound { what: "image", wanted: self.id.to_string() }.into()),
            false => Ok(image),
        }
    }

    /// Every local user reads properties: a private image's tell nothing.
    fn property<T: Default>(&self, of: impl FnOnce(ImageRow) -> T) -> zbus::fdo::Result<T> {
        match self.service.image(self.id) {
            Ok(image) if image.private => Ok(T::default()),
            Ok(image) => Ok(of(image)),
            Err(error) => Err(zbus::fdo::Error::Failed(error.to_string())),
        }
    }

    /// Tells that names, or who may see it, are others.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn changed(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.name_changed(emitter).await?;
        self.names_changed(emitter).await?;
        self.reference_changed(emitter).await?;
        self.digest_changed(emitter).await?;
        self.size_changed(emitter).await
    }

    /// The caller and the image, when the caller may change it.
    async fn owned(&self, header: &Header<'_>) -> Result<ImageRow, Error> {
        let caller = self.service.gate.caller(header).await?;
        let image = self.image(&caller)?;
        let details = Details::from([("image", image.called())]);
        self.service.gate.authorize(&caller, Operation::ChangeImage, Some(image.owner), details).await?;
        self.image(&caller)
    }
}

/// A root filesystem made of an OCI image. Every user may use it, unless it is private: then it is there for its
/// owner, who pulled it, and root alone.
#[zbus::interface(name = "org.banger.Image")]
impl ImageObject {
    /// Everything known of it: id, name, source, reference, digest, platform, signature, kernel, user,
    /// working-directory and unavailable s; size, content, compressed, used and created t; owner-uid u; private b; names, layers,
    /// entrypoint, command, environment and used-by as. `used-by` names those of the caller's VMs that are made of
    /// it.
    #[zbus(out_args("description"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let caller = self.service.gate.caller(&header).await?;
        let vms = self.service.store.vms().map_err(error::Error::from)?;
        Ok(show::image(&self.service, &self.image(&caller)?, &vms, &caller).into_dict())
    }

    /// Gives it one more name.
    async fn tag(&self, #[zbus(header)] header: Header<'_>, name: &str, options: Dict) -> Result<(), Error> {
        no_options(options)?;
        let name: ImageName = name.parse()?;
        let image = self.owned(&header).await?;
        Ok(images::tag(&self.service, &image, &name).await?)
    }

    /// Takes a name away from it. It stays, also without any name, until it is deleted or pruned.
    async fn untag(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        let name: ImageName = name.parse()?;
        let image = self.owned(&header).await?;
        Ok(images::untag(&self.service, &image, &name).await?)
    }

    /// Lets every user see and use it from now on.
    async fn share(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<(), Error> {
        no_options(options)?;
        let image = self.owned(&header).await?;
        Ok(images::share(&self.service, &image).await?)
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
        let image = self.image(&caller)?;
        check_quota(&self.service, caller.uid)?;
        let details = Details::from([("image", image.called())]);
        self.service.gate.authorize(&caller, Operation::DeleteImage, Some(image.owner), details).await?;
        let image = self.image(&caller)?;
        let (service, subject) = (self.service.clone(), image.called());
        let new = NewJob { kind: JobKind::DeleteImage, subject, owner: caller.uid, cancellable: false };
        let job = self.service.jobs.start(new, |job| images::delete(service, image, caller.uid, job)).await?;
        Ok(job.path())
    }

    /// Makes a registered image banger's own: its file is copied, and no longer needed then. Its id, its names and its
    /// VMs stay. The job's result has `image` o.
    #[zbus(out_args("job"))]
    async fn promote(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let image = self.owned(&header).await?;
        let caller = self.service.gate.caller(&header).await?;
        check_quota(&self.service, caller.uid)?;
        let (service, subject) = (self.service.clone(), image.called());
        let new = NewJob { kind: JobKind::PromoteImage, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| register::promote(service, image, job)).await?;
        Ok(job.path())
    }

    /// Writes it to a descriptor, a file or a pipe. Option: `format` s, `ext4` (the default: the filesystem, whose
    /// holes stay holes in a file) or `oci` (the archive of an OCI image layout with one layer, made of all files
    /// but sockets). The job's result has `bytes` t, and for `oci` the manifest's `digest` s.
    #[zbus(out_args("job"))]
    async fn export(
        &self,
        #[zbus(header)] header: Header<'_>,
        output: OwnedFd,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let format: Option<String> = options.take("format")?;
        options.finish()?;
        let format = format.as_deref().unwrap_or("ext4").parse::<ExportFormat>()?;
        let caller = self.service.gate.caller(&header).await?;
        let image = self.image(&caller)?;
        check_quota(&self.service, caller.uid)?;
        let (service, subject) = (self.service.clone(), image.called());
        let new = NewJob { kind: JobKind::ExportImage, subject, owner: caller.uid, cancellable: true };
        let work = |job| export::export(service, image, output.into(), format, job);
        let job = self.service.jobs.start(new, work).await?;
        Ok(job.path())
    }

    /// Its id, 16 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Its first name on this host; empty when it has none. All of its properties but the id and the owner are empty
    /// while it is private.
    #[zbus(property)]
    fn name(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.names.first().map(ToString::to_string).unwrap_or_default())
    }

    /// All its names, the oldest first.
    #[zbus(property)]
    fn names(&self) -> zbus::fdo::Result<Vec<String>> {
        self.property(|image| image.names.iter().map(ToString::to_string).collect())
    }

    /// Where it was pulled from.
    #[zbus(property)]
    fn reference(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.reference)
    }

    /// The digest of its manifest.
    #[zbus(property)]
    fn digest(&self) -> zbus::fdo::Result<String> {
        self.property(|image| image.digest)
    }

    /// Bytes of the filesystem.
    #[zbus(property)]
    fn size(&self) -> zbus::fdo::Result<u64> {
        self.property(|image| image.size.0)
    }

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> zbus::fdo::Result<u32> {
        let image = self.service.image(self.id);
        image.map(|image| image.owner.0).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }
}
