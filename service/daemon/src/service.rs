//! What every operation works with, and the objects that show it on the bus.

use crate::{
    api::{ImageObject, KernelObject, ManagerObject, VmObject, VolumeObject},
    config::Config,
    disk::{Backends, Disk},
    error::Error,
    gate::{Caller, Gate},
    jobs::{Jobs, log_failure},
    kernels::Kernels,
    lookup,
    machines::Machines,
    names::Names,
    registered::Registered,
    store::{ImageRow, Store, VmRow},
    turns::Turns,
};
use banger_dbus::names;
use banger_host::Host;
use banger_image::Puller;
use banger_model::{Bytes, ImageId, KernelId, Limits, Subnet, VmId, VolumeId};
use std::{path::PathBuf, sync::Arc};
use zbus::{Connection, object_server::SignalEmitter};

/// The running service.
pub struct Service {
    /// What the administrator decided.
    pub config: Config,
    /// What exists.
    pub store: Store,
    /// What is under way.
    pub jobs: Arc<Jobs>,
    /// Who may.
    pub gate: Arc<Gate>,
    /// VMs beyond the database.
    pub machines: Machines,
    /// What needs privileges.
    pub host: Arc<dyn Host>,
    /// Images out of registries.
    pub puller: Puller,
    /// Kernels, and the initramfs of each.
    pub kernels: Kernels,
    /// What disks are made of here.
    pub backends: Backends,
    /// How large a VM may be here.
    pub limits: Limits,
    /// The system bus.
    pub bus: Connection,
    /// Files that stay their users'.
    pub registered: Registered,
    /// Held while the filesystem of a volume is made, or a volume is deleted.
    pub making_volume: tokio::sync::Mutex<()>,
    /// Whose turn it is to make the image of a manifest.
    pub making: Turns,
    /// The VMs' network.
    pub subnet: std::sync::OnceLock<Subnet>,
    /// VMs by name.
    pub names: Names,
    /// Held across "check the name, rename, insert" alone.
    pub publication: tokio::sync::Mutex<()>,
}

impl Service {
    /// The VMs' network, which is chosen before anything is served.
    pub fn subnet(&self) -> Subnet {
        *self.subnet.get_or_init(Subnet::default)
    }

    /// The folder of images.
    pub fn images(&self) -> PathBuf {
        self.config.state.join("images")
    }

    /// An image's filesystem.
    pub fn rootfs(&self, id: ImageId) -> PathBuf {
        self.images().join(id.to_string()).join("rootfs.ext4")
    }

    /// The folder of VMs.
    pub fn vms(&self) -> PathBuf {
        self.config.state.join("vms")
    }

    /// A VM's folder.
    pub fn vm_folder(&self, id: VmId) -> PathBuf {
        self.vms().join(id.to_string())
    }

    /// A VM's root disk.
    pub fn disk(&self, vm: &VmRow) -> Disk {
        Disk::of(&self.vm_folder(vm.id), vm)
    }

    /// A VM's console log.
    pub fn console_log(&self, id: VmId) -> PathBuf {
        self.vm_folder(id).join("console.log")
    }

    /// A running VM's socket.
    pub fn socket(&self, id: VmId, name: &str) -> PathBuf {
        self.config.run.join("vm").join(id.to_string()).join(name)
    }

    /// The images that the caller sees: everybody's but other users' private ones.
    ///
    /// # Errors
    /// When the database fails.
    pub fn images_for(&self, caller: &Caller) -> Result<Vec<ImageRow>, Error> {
        let images = self.store.images()?.into_iter();
        Ok(images.filter(|image| !image.private || caller.sees(image.owner)).collect())
    }

    /// The image that `wanted` means among those that the caller sees.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Ambiguous`].
    pub fn find_image(&self, caller: &Caller, wanted: &str) -> Result<ImageRow, Error> {
        let images = self.images_for(caller)?;
        let named = images.iter().find(|image| image.names.iter().any(|name| name.as_str() == wanted));
        match named {
            Some(image) => Ok(image.clone()),
            None => lookup::find("image", wanted, &images, |i| (i.called(), i.id.to_string())).cloned(),
        }
    }

    /// The image with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn image(&self, id: ImageId) -> Result<ImageRow, Error> {
        self.store.image(id)?.ok_or_else(|| Error::NotFound { what: "image", wanted: id.to_string() })
    }

    /// The VM that `wanted` means among those that the caller sees.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Ambiguous`].
    pub fn find_vm(&self, caller: &Caller, wanted: &str) -> Result<VmRow, Error> {
        let vms: Vec<_> = self.store.vms()?.into_iter().filter(|vm| caller.sees(vm.owner)).collect();
        lookup::find("VM", wanted, &vms, |vm| (vm.name.to_string(), vm.id.to_string())).cloned()
    }

    /// The VM with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn vm(&self, id: VmId) -> Result<VmRow, Error> {
        self.store.vm(id)?.ok_or_else(|| Error::NotFound { what: "VM", wanted: id.to_string() })
    }

    /// Puts an image on the bus.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn show_image(self: &Arc<Self>, id: ImageId) -> Result<(), Error> {
        let path = names::path_of(id);
        self.bus.object_server().at(&path, ImageObject::new(self.clone(), id)).await?;
        self.manager(async |to| ManagerObject::image_added(to, path).await).await;
        Ok(())
    }

    /// Tells that an image's names, or who may see it, are others.
    pub async fn image_changed(&self, id: ImageId) {
        match self.bus.object_server().interface::<_, ImageObject>(names::path_of(id)).await {
            Ok(object) => log_failure(object.get().await.changed(object.signal_emitter()).await),
            Err(error) => log_failure::<()>(Err(error)),
        }
    }

    /// Takes an image off the bus.
    pub async fn hide_image(&self, id: ImageId) {
        let path = names::path_of(id);
        log_failure(self.bus.object_server().remove::<ImageObject, _>(&path).await);
        self.manager(async |to| ManagerObject::image_removed(to, path).await).await;
    }

    /// Puts a kernel on the bus.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn show_kernel(self: &Arc<Self>, id: KernelId) -> Result<(), Error> {
        let object = KernelObject::new(self.clone(), id);
        self.bus.object_server().at(names::path_of(id), object).await?;
        Ok(())
    }

    /// Takes a kernel off the bus.
    pub async fn hide_kernel(&self, id: KernelId) {
        log_failure(self.bus.object_server().remove::<KernelObject, _>(names::path_of(id)).await);
    }

    /// Puts a volume on the bus.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn show_volume(self: &Arc<Self>, id: VolumeId) -> Result<(), Error> {
        let path = names::path_of(id);
        self.bus.object_server().at(&path, VolumeObject::new(self.clone(), id)).await?;
        self.manager(async |to| ManagerObject::volume_added(to, path).await).await;
        Ok(())
    }

    /// Takes a volume off the bus.
    pub async fn hide_volume(&self, id: VolumeId) {
        let path = names::path_of(id);
        log_failure(self.bus.object_server().remove::<VolumeObject, _>(&path).await);
        self.manager(async |to| ManagerObject::volume_removed(to, path).await).await;
    }

    /// Tells that the host's disk is almost full, or no longer.
    pub async fn space_changed(&self, low: bool, free: Bytes) {
        self.manager(async |to| ManagerObject::space_changed(to, low, free.0).await).await;
    }

    /// Puts a VM on the bus.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn show_vm(self: &Arc<Self>, id: VmId) -> Result<(), Error> {
        let path = names::path_of(id);
        self.bus.object_server().at(&path, VmObject::new(self.clone(), id)).await?;
        self.manager(async |to| ManagerObject::vm_added(to, path).await).await;
        Ok(())
    }

    /// Takes a VM off the bus.
    pub async fn hide_vm(&self, id: VmId) {
        self.names.forget(id);
        let path = names::path_of(id);
        log_failure(self.bus.object_server().remove::<VmObject, _>(&path).await);
        self.manager(async |to| ManagerObject::vm_removed(to, path).await).await;
    }

    /// Tells that a VM's name is another.
    pub async fn vm_renamed(&self, id: VmId) {
        self.tell_name(id);
        match self.bus.object_server().interface::<_, VmObject>(names::path_of(id)).await {
            Ok(object) => log_failure(object.get().await.name_changed(object.signal_emitter()).await),
            Err(error) => log_failure::<()>(Err(error)),
        }
    }

    /// Has a VM's name lead to where the VM is.
    fn tell_name(&self, id: VmId) {
        match self.store.vm(id) {
            Ok(Some(vm)) => self.names.tell(&vm, &self.subnet()),
            Ok(None) => self.names.forget(id),
            Err(error) => tracing::warn!(vm = %id, %error, "its name may lead elsewhere"),
        }
    }

    /// Tells that a VM's state, or what follows from it, is another.
    pub async fn vm_changed(&self, id: VmId) {
        self.tell_name(id);
        self.machines.of(id).changed();
        match self.bus.object_server().interface::<_, VmObject>(names::path_of(id)).await {
            Ok(object) => log_failure(object.get().await.state_changed(object.signal_emitter()).await),
            Err(error) => log_failure::<()>(Err(error)),
        }
    }

    async fn manager(&self, tell: impl AsyncFnOnce(&SignalEmitter<'_>) -> zbus::Result<()>) {
        match SignalEmitter::new(&self.bus, names::MANAGER_PATH) {
            Ok(emitter) => log_failure(tell(&emitter).await),
            Err(error) => log_failure::<()>(Err(error)),
        }
    }
}
