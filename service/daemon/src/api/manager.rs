//! `org.banger.Manager`: where things are made, found and listed.

use super::{create_options::CreateOptions, credentials::Given, import_options, kernel_options, no_options};
use crate::{
    catalogue::{self, Sources},
    check, error,
    gate::Caller,
    jobs::{Job, NewJob},
    kernels::{self, Kernel},
    ops::{
        bundle::{self, PullBundle},
        create, import,
        kernels::{Import, Material, import as import_kernel},
        prune::{self, Prune},
        pull::{self, Pull},
        register::{self, Register},
        usage,
    },
    service::Service,
    show,
    store::{VmRow, VolumeRow},
    volumes,
};
use banger_dbus::{Dict, Error, Options, names};
use banger_image::{Login, Platform};
use banger_model::{Bytes, ImageName, JobKind, KernelName, Plan, Uid, VmName};
use banger_polkit::{Details, Operation};
use std::{sync::Arc, time::Duration};
use zbus::{OwnedObjectPath, message::Header, object_server::SignalEmitter};

/// Most operations that one user may have under way.
const MOST_JOBS: usize = 64;

/// Why the option `size` is refused with a bundle.
const BUNDLES_HAVE_A_SIZE: &str =
    "an image of the catalogue has its size: leave it out, a VM's disk may be larger than its image";

/// The manager on the bus.
pub struct ManagerObject {
    service: Arc<Service>,
}

impl ManagerObject {
    /// The object of this service.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    async fn caller(&self, header: &Header<'_>) -> Result<Caller, Error> {
        Ok(self.service.gate.caller(header).await?)
    }

    /// Pulls what the catalogue names, for the caller.
    async fn pull_bundle(&self, header: &Header<'_>, request: PullBundle) -> Result<OwnedObjectPath, Error> {
        let caller = self.caller(header).await?;
        let request = PullBundle { owner: caller.uid, ..request };
        request.claim().check(&self.service)?;
        self.may(&caller, Operation::PullImage, "image", &request.entry.name).await?;
        request.claim().check(&self.service)?;
        let (service, subject) = (self.service.clone(), request.name.to_string());
        let new = NewJob { kind: JobKind::PullImage, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| bundle::pull(service, request, job)).await?;
        Ok(job.path())
    }

    /// Takes a kernel in, for the caller.
    async fn take_kernel(
        &self,
        header: &Header<'_>,
        kind: JobKind,
        name: KernelName,
        from: Material,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.caller(header).await?;
        kernels::check_name(&self.service, &name)?;
        self.may(&caller, Operation::ImportKernel, "kernel", name.as_str()).await?;
        kernels::check_name(&self.service, &name)?;
        let subject = name.to_string();
        let request = Import { name, from, owner: caller.uid };
        let service = self.service.clone();
        let new = NewJob { kind, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| import_kernel(service, request, job)).await?;
        Ok(job.path())
    }

    /// Asks whether the caller may make something new called `name`.
    async fn may(
        &self,
        caller: &Caller,
        what: Operation,
        key: &'static str,
        name: &str,
    ) -> Result<(), Error> {
        check_quota(&self.service, caller.uid)?;
        let details = Details::from([(key, name.to_owned())]);
        Ok(self.service.gate.authorize(caller, what, None, details).await?)
    }
}

/// Refuses a user who has too much under way.
///
/// # Errors
/// [`error::Error::TooMany`].
pub fn check_quota(service: &Service, uid: Uid) -> Result<(), error::Error> {
    match service.jobs.under_way(uid) {
        n if n >= MOST_JOBS && uid != Uid::ROOT => Err(error::Error::TooMany(n)),
        _ => Ok(()),
    }
}

/// Turns any OCI image into a running microVM, for users without privileges.
///
/// What takes longer than a reply is a job: the reply names its object, whose `Wait` gives the result.
/// Every method ends in a dictionary of options; an option that is not known is an error. One call with
/// busctl: `busctl call org.banger.Manager /org/banger/Manager org.banger.Manager PullImage 'sa{sv}' REFERENCE 0`.
#[zbus::interface(name = "org.banger.Manager")]
impl ManagerObject {
    /// Pulls an image out of a registry and makes it a root filesystem.
    ///
    /// `reference` is such as `debian:bookworm` or `127.0.0.1:5000/team/app@sha256:...`. Options: `name` s, the
    /// image's name here (default: made of the reference, `debian-bookworm`); `size` t, bytes of the filesystem
    /// (default: 1.25 times the content, at least 1 GiB); `platform` s, such as `linux/amd64`; `source` s, where it
    /// is looked for: `auto` (the default: a plain name in the catalogue first), `catalogue` or `registry`;
    /// `credentials` h, a file or pipe with what the registry is shown, as JSON of at most 64 KiB: `{"username", "password"}`,
    /// `{"identity-token"}` or `{"registry-token"}`; or `username` s and `password` s. An image that is pulled with
    /// credentials is for its owner alone, and nothing keeps the credentials. The job's result
    /// has `image` o, and `unchanged` b when the caller's image of that name and reference is the newest already;
    /// otherwise a newer one takes its name. Needs `org.banger.manager.image-pull`.
    #[zbus(out_args("job"))]
    async fn pull_image(
        &self,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let name: Option<String> = options.take("name")?;
        let size: Option<Bytes> = options.take("size")?;
        let platform: Option<String> = options.take("platform")?;
        let source: Option<String> = options.take("source")?;
        let given = Given::take(&mut options)?;
        options.finish()?;
        let sources = Sources::parse(source.as_deref())?;
        let platform: Platform = match platform {
            Some(platform) => platform.parse().map_err(error::Error::Image)?,
            None => Platform::host(),
        };
        if let Some(entry) = catalogue::image(&self.service, reference, &platform, sources)? {
            if size.is_some() {
                return Err(Error::InvalidSpec(BUNDLES_HAVE_A_SIZE.into()));
            }
            let name = name.as_ref().unwrap_or(&entry.name).parse()?;
            return self.pull_bundle(&header, PullBundle { entry, name, platform, owner: Uid::ROOT }).await;
        }
        let reference = self.service.puller.reference(reference).map_err(error::Error::Image)?;
        let name: ImageName = match name {
            Some(name) => name.parse()?,
            None => reference.default_name(),
        };
        let credentials = given.read().await?;
        let caller = self.caller(&header).await?;
        let owner = caller.uid;
        let login = credentials.map(|credentials| Login { owner, credentials });
        let request = Pull { reference, name, size, platform, owner, login };
        request.claim().check(&self.service)?;
        self.may(&caller, Operation::PullImage, "image", &request.reference.to_string()).await?;
        request.claim().check(&self.service)?;

        let (service, subject) = (self.service.clone(), request.name.to_string());
        let new = NewJob { kind: JobKind::PullImage, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| pull::pull(service, request, job)).await?;
        Ok(job.path())
    }

    /// A reference in full, with registry and tag: where short names come from is configured.
    #[zbus(out_args("full"))]
    async fn expand_reference(&self, reference: &str, options: Dict) -> Result<String, Error> {
        no_options(options)?;
        Ok(self.service.puller.reference(reference).map_err(error::Error::Image)?.to_string())
    }

    /// Makes an image of what a descriptor, a file or a pipe, holds.
    ///
    /// An empty `name` is made of what the archive calls the image or, where it says nothing, the option
    /// `default-name` s. Options: `format` s, `auto` (the default: by its first bytes and names), `oci` (the archive of
    /// an image layout), `docker` (what `docker save` writes), `rootfs` (the archive of a root filesystem) or `ext4`
    /// (a filesystem, taken as it is); archives may be compressed with gzip or zstd. `select` s, which image of an
    /// archive that has several, by its name there or its digest; `platform` s; `size` t, bytes of the filesystem;
    /// and for `rootfs` and `ext4`, which do not say how they are run: `entrypoint` as, `command` as, `environment`
    /// as, `user` s, `working-directory` s. The job's result has `image` o. Needs `org.banger.manager.image-import`.
    #[zbus(out_args("job"))]
    async fn import_image(
        &self,
        #[zbus(header)] header: Header<'_>,
        input: zbus::OwnedFd,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.caller(&header).await?;
        let request = import_options::import(input.into(), name, options, caller.uid)?;
        let shown = request.name.as_ref().map_or_else(|| "without a name".to_owned(), ToString::to_string);
        self.may(&caller, Operation::ImportImage, "image", &shown).await?;
        let service = self.service.clone();
        let subject = request.name.as_ref().map_or_else(|| "import".to_owned(), ToString::to_string);
        let new = NewJob { kind: JobKind::ImportImage, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| import::import(service, request, job)).await?;
        Ok(job.path())
    }

    /// Makes a private image of a file that stays the caller's: the service keeps the descriptor and never writes.
    ///
    /// Options: `rootfs` h, required, an ext4 filesystem in a regular file, open for reading; `kernel` h, `initrd` h
    /// and `modules` h as for `ImportKernel`, a kernel that is taken in under the image's name and is what its VMs
    /// boot; or `kernel-name` s, one that is here. The file of an image that is not available any more comes back by
    /// registering it again under the same name. The job's result has `image` o. Needs
    /// `org.banger.manager.image-import`, and with a kernel `org.banger.manager.kernel-import`.
    #[zbus(out_args("job"))]
    async fn register_image(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.caller(&header).await?;
        let request = import_options::register(name, options, caller.uid)?;
        if let Some(kernel) = &request.kernel_name {
            kernels::find(&self.service, kernel.as_str())?;
        }
        Register::before(&self.service, &request.name, caller.uid)?;
        self.may(&caller, Operation::ImportImage, "image", request.name.as_str()).await?;
        if request.kernel.is_some() {
            self.may(&caller, Operation::ImportKernel, "kernel", request.name.as_str()).await?;
        }
        let (service, subject) = (self.service.clone(), request.name.to_string());
        let new = NewJob { kind: JobKind::RegisterImage, subject, owner: caller.uid, cancellable: true };
        let job = self.service.jobs.start(new, |job| register::register(service, request, job)).await?;
        Ok(job.path())
    }

    /// The image of this name, id or unique prefix of an id (at least 4 digits).
    #[zbus(out_args("image"))]
    async fn get_image(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        Ok(names::path_of(self.service.find_image(&caller, name)?.id))
    }

    /// Every image that the caller sees, with what its `Describe` tells.
    #[zbus(out_args("images"))]
    async fn list_images(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<(OwnedObjectPath, Dict)>, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        let vms = self.service.store.vms().map_err(error::Error::from)?;
        let images = self.service.images_for(&caller)?;
        let described = |image| show::image(&self.service, image, &vms, &caller).into_dict();
        Ok(images.iter().map(|image| (names::path_of(image.id), described(image))).collect())
    }

    /// Removes the caller's images (every user's for root) that no VM is made of and that have no name, and cached
    /// layers, which a later pull would download again. Options: `all` b, images with a name too; `dangling` b,
    /// images alone; `older-than` t, only what is so many seconds old; `larger-than` t, only what takes more bytes
    /// of the disk; `dry-run` b only tells. The job's result has `count` u, `bytes` t and `images` as.
    #[zbus(out_args("job"))]
    async fn prune_images(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let all = options.take_or_default("all")?;
        let dangling = options.take_or_default("dangling")?;
        let older_than = Duration::from_secs(options.take_or_default("older-than")?);
        let larger_than = options.take_or_default("larger-than")?;
        let dry_run = options.take_or_default("dry-run")?;
        options.finish()?;
        let caller = self.caller(&header).await?;
        check_quota(&self.service, caller.uid)?;
        let request = Prune { caller: caller.uid, all, dangling, older_than, larger_than, dry_run };
        let service = self.service.clone();
        let new = NewJob {
            kind: JobKind::PruneImages,
            subject: String::new(),
            owner: caller.uid,
            cancellable: false,
        };
        let job = self.service.jobs.start(new, |job| prune::prune(service, request, job)).await?;
        Ok(job.path())
    }

    /// How much of the disk banger takes, in bytes: `images`, `images-unused` (of these, what no VM is made of),
    /// `blobs` (cached layers), `kernels`, `vms`, `volumes`, `other` and `total` t; `images-count`, `vms-count` and
    /// `volumes-count` u. A file
    /// that several images share counts once; `total` is what `du -s` says of the state folder.
    #[zbus(out_args("usage"))]
    async fn disk_usage(&self, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let service = self.service.clone();
        let counted = tokio::task::spawn_blocking(move || usage::usage(&service)).await;
        Ok(counted.map_err(error::Error::from)??)
    }

    /// What this host can do for VMs, looked at now: a row for each thing, in the order in which they build on each other.
    ///
    /// A row has an id, which stays the same; a severity: `ok`, `note`, `warning`, `error` or, for what could not be looked
    /// at, `unknown`; what it is about; what to do, empty when there is nothing to do; and details: `found` s, what it is,
    /// as a sentence.
    #[zbus(out_args("checks"))]
    async fn check(&self, options: Dict) -> Result<Vec<check::Row>, Error> {
        no_options(options)?;
        Ok(check::all(&self.service).await)
    }

    /// Pulls a kernel that the catalogue names: a distribution's package or a bundle.
    ///
    /// Options: `name` s, the kernel's name here (default: the same). The job's result has `kernel` o. Needs
    /// `org.banger.manager.kernel-import`.
    #[zbus(out_args("job"))]
    async fn pull_kernel(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let called: Option<String> = options.take("name")?;
        options.finish()?;
        let entry = catalogue::kernel(&self.service, name)?;
        let called = called.as_ref().unwrap_or(&entry.name).parse()?;
        self.take_kernel(&header, JobKind::PullKernel, called, Material::Artifact(entry.artifact)).await
    }

    /// Takes a kernel in under this name.
    ///
    /// Options: `kernel` h, a bzImage or an ELF; `initrd` h; `modules` h, a tar stream of the folder that holds
    /// `modules.dep`. Or, instead of these, `package` h, a distribution's kernel package (`.deb`, `.rpm`) or a tar
    /// archive of one, or `packages` ah where the distribution splits it. Files and pipes are accepted. The job's
    /// result has `kernel` o. Needs `org.banger.manager.kernel-import`.
    #[zbus(out_args("job"))]
    async fn import_kernel(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let from = kernel_options::read(options)?;
        self.take_kernel(&header, JobKind::ImportKernel, name.parse()?, from).await
    }

    /// What can be pulled by a plain name: images, kernels, and files of the catalogue that do not count.
    ///
    /// Each has `kind` s (`image`, `kernel` or `problem`), `name` s and `description` s; images and kernels also
    /// `architecture` s, `url` s, `digest` s, `size` t (bytes to download), `kernel` s and `release` s. A problem's
    /// name is its file.
    #[zbus(out_args("entries"))]
    async fn list_catalogue(&self, options: Dict) -> Result<Vec<Dict>, Error> {
        no_options(options)?;
        Ok(catalogue::describe(&catalogue::read(&self.service)))
    }

    /// Makes a kernel the one that VMs get which name none and whose image wants none. An empty name returns to
    /// what is configured. Needs `org.banger.manager.system-configure`.
    async fn set_default_kernel(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        let wanted = Some(name).filter(|name| !name.is_empty());
        if let Some(name) = wanted {
            kernels::find(&self.service, name)?;
        }
        let caller = self.caller(&header).await?;
        let details = Details::from([("setting", "default kernel".to_owned())]);
        self.service.gate.authorize(&caller, Operation::SystemConfigure, None, details).await?;
        Ok(kernels::set_default(&self.service, wanted)?)
    }

    /// The kernel of this name, id or unique prefix of an id. `host` is the host's own.
    #[zbus(out_args("kernel"))]
    async fn get_kernel(&self, name: &str, options: Dict) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        Ok(names::path_of(kernels::find(&self.service, name)?.id()))
    }

    /// Every kernel, with what its `Describe` tells: the host's own first.
    #[zbus(out_args("kernels"))]
    async fn list_kernels(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<(OwnedObjectPath, Dict)>, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        let described = |kernel: &Kernel| {
            Ok((names::path_of(kernel.id()), kernel.info(&self.service, &caller)?.into_dict()))
        };
        kernels::all(&self.service)?.iter().map(described).collect()
    }

    /// Makes a VM called `name` (empty: a name is made up) and starts it; the job ends when the guest is ready.
    ///
    /// Options: `image` s, required: name, id or prefix of an id; `kernel` s (default: the one that the image wants, else the default); `cpus` u;
    /// `memory` t, bytes; `disk` t, bytes, the guest's filesystem grows to it (default: the image's size);
    /// `start` b (default: true); `remove` b, it is deleted when it stops; `main` s, what the guest runs by itself
    /// when the image has no init: `image` (the default: the image's own command) or `none`; `command` as,
    /// instead of the image's, and the VM ends when it does; `environment` as of `NAME=value`, `user` s and
    /// `working-directory` s for it; `autostart` b, it starts with the host; `restart` s, whether it starts again when
    /// it ended by itself: `no` (the default), `on-failure` or `always`, and then it also ends with the image's own
    /// command; `idle-stop` u, seconds without use after which it is stopped (default: 0, never);
    /// `volumes` a(ssb), each a volume's name, an absolute path in the guest and whether the guest only reads it: one that
    /// the caller does not have yet is made; `work` b, a volume called `<VM>-work` at `/root`.
    /// Returns the VM and the job, whose result has `vm` o. Needs `org.banger.manager.vm-run`.
    #[zbus(name = "CreateVM", out_args("vm", "job"))]
    async fn create_vm(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath), Error> {
        let asked = CreateOptions::read(options)?;
        let name: Option<VmName> = if name.is_empty() { None } else { Some(name.parse()?) };
        let caller = self.caller(&header).await?;
        let request = asked.resolve(&self.service, name.clone(), &caller)?;
        let shown =
            name.map_or_else(|| format!("of image {}", request.image.called()), |name| name.to_string());
        self.may(&caller, Operation::RunVm, "vm", &shown).await?;
        if request.spec.network.nat {
            self.may(&caller, Operation::NetworkNat, "vm", &shown).await?;
        }
        for port in request.spec.network.ports.iter().filter(|port| port.is_privileged()) {
            let details = Details::from([("vm", shown.clone()), ("port", port.to_string())]);
            self.service.gate.authorize(&caller, Operation::NetworkPublish, None, details).await?;
        }
        // While somebody was asked, the image may have gone.
        let request = asked.resolve(&self.service, request.name, &caller)?;

        let vm = create::reserve(&self.service, &request)?;
        for volume in &request.volumes {
            self.service.show_volume(volume.id).await?;
        }
        let (id, subject) = (vm.id, vm.name.to_string());
        let shown = self.service.show_vm(id).await;
        let service = self.service.clone();
        let new = NewJob { kind: JobKind::CreateVm, subject, owner: caller.uid, cancellable: true };
        let begun = match shown {
            Ok(()) => {
                self.service.jobs.start(new, |job| create::create(service, vm, request.start, job)).await
            }
            Err(error) => Err(error),
        };
        match begun {
            Ok(job) => Ok((names::path_of(id), job.path())),
            Err(error) => {
                crate::ops::lifecycle::remove(&self.service, id, Plan::Delete).await?;
                Err(error.into())
            }
        }
    }

    /// The caller's VM of this name, id or unique prefix of an id.
    #[zbus(name = "GetVM", out_args("vm"))]
    async fn get_vm(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        Ok(names::path_of(self.service.find_vm(&caller, name)?.id))
    }

    /// The caller's VMs (for root, everybody's), each with `id`, `name`, `state`, `owner-uid`, `image`, `cpus`, `memory`, `disk`,
    /// `addresses` and `created`.
    ///
    /// Options: `details` b, with everything that their `Describe` tells without asking their guests.
    #[zbus(name = "ListVMs", out_args("vms"))]
    async fn list_vms(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<(OwnedObjectPath, Dict)>, Error> {
        let mut options = Options::new(options);
        let details: bool = options.take_or_default("details")?;
        options.finish()?;
        let caller = self.caller(&header).await?;
        let images = self.service.store.images().map_err(error::Error::from)?;
        let vms = self.service.store.vms().map_err(error::Error::from)?.into_iter();
        let told = |vm: VmRow| {
            let dict = match details {
                true => show::vm(&self.service, &vm, &images).into_dict(),
                false => show::vm_summary(&self.service, &vm, &images).into_dict(),
            };
            (names::path_of(vm.id), dict)
        };
        Ok(vms.filter(|vm| caller.sees(vm.owner)).map(told).collect())
    }

    /// Makes a volume called `name`, for the caller: a disk that VMs can have at a path. It takes no room until it is first
    /// used, and then has what the VM's image has at that path.
    ///
    /// Options: `size` t, bytes (default: as configured). Needs `org.banger.manager.vm-run`.
    #[zbus(out_args("volume"))]
    async fn create_volume(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let size: Option<Bytes> = options.take("size")?;
        options.finish()?;
        let size = size.unwrap_or(self.service.config.disks.volume_size);
        let caller = self.caller(&header).await?;
        let volume = volumes::new(name.parse()?, caller.uid, size)?;
        self.may(&caller, Operation::RunVm, "vm", &format!("volume {name}")).await?;
        self.service.store.add_volume(&volume).map_err(error::Error::from)?;
        self.service.show_volume(volume.id).await?;
        Ok(names::path_of(volume.id))
    }

    /// The caller's volume of this name, id or unique prefix of an id.
    #[zbus(out_args("volume"))]
    async fn get_volume(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        Ok(names::path_of(self.service.find_volume(&caller, name)?.id))
    }

    /// The caller's volumes (for root, everybody's), with what their `Describe` tells.
    #[zbus(out_args("volumes"))]
    async fn list_volumes(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<(OwnedObjectPath, Dict)>, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        let vms = self.service.store.vms().map_err(error::Error::from)?;
        let volumes = self.service.store.volumes().map_err(error::Error::from)?.into_iter();
        let seen = volumes.filter(|volume| caller.sees(volume.owner));
        let described = |volume: &VolumeRow| show::volume(&self.service, volume, &vms).into_dict();
        Ok(seen.map(|volume| (names::path_of(volume.id), described(&volume))).collect())
    }

    /// The caller's jobs (for root, everybody's), also those that ended within ten minutes.
    #[zbus(out_args("jobs"))]
    async fn list_jobs(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<(OwnedObjectPath, Dict)>, Error> {
        no_options(options)?;
        let caller = self.caller(&header).await?;
        let jobs: Vec<Arc<Job>> = self.service.jobs.list();
        let seen = jobs.iter().filter(|job| caller.sees(job.owner));
        Ok(seen.map(|job| (job.path(), show::job(job).into_dict())).collect())
    }

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// A job has begun.
    #[zbus(signal)]
    pub async fn job_added(emitter: &SignalEmitter<'_>, job: OwnedObjectPath) -> zbus::Result<()>;

    /// A job that ended ten minutes ago is forgotten.
    #[zbus(signal)]
    pub async fn job_removed(emitter: &SignalEmitter<'_>, job: OwnedObjectPath) -> zbus::Result<()>;

    /// How far a job is; the same as its own `Progress`, so that one subscription shows everything.
    #[zbus(signal)]
    pub async fn job_progress(
        emitter: &SignalEmitter<'_>,
        job: OwnedObjectPath,
        phase: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;

    /// There is a new image.
    #[zbus(signal)]
    pub async fn image_added(emitter: &SignalEmitter<'_>, image: OwnedObjectPath) -> zbus::Result<()>;

    /// An image is gone.
    #[zbus(signal)]
    pub async fn image_removed(emitter: &SignalEmitter<'_>, image: OwnedObjectPath) -> zbus::Result<()>;

    /// The disk that holds images and VMs is almost full (`low`), and VMs that run are paused; or it has room again, and
    /// they go on. `free` is in bytes.
    #[zbus(signal)]
    pub async fn space_changed(emitter: &SignalEmitter<'_>, low: bool, free: u64) -> zbus::Result<()>;

    /// There is a new volume.
    #[zbus(signal)]
    pub async fn volume_added(emitter: &SignalEmitter<'_>, volume: OwnedObjectPath) -> zbus::Result<()>;

    /// A volume is gone.
    #[zbus(signal)]
    pub async fn volume_removed(emitter: &SignalEmitter<'_>, volume: OwnedObjectPath) -> zbus::Result<()>;

    /// There is a new VM.
    #[zbus(signal, name = "VMAdded")]
    pub async fn vm_added(emitter: &SignalEmitter<'_>, vm: OwnedObjectPath) -> zbus::Result<()>;

    /// A VM is gone.
    #[zbus(signal, name = "VMRemoved")]
    pub async fn vm_removed(emitter: &SignalEmitter<'_>, vm: OwnedObjectPath) -> zbus::Result<()>;
}
