//! What CreateVM is asked for: its options, and the one request that they, the configuration and the host make.

use crate::{
    config::VmmChoice,
    gate::Caller,
    kernels::{self, HOST, Kernel},
    ops::{
        change,
        create::{self, Create},
    },
    service::Service,
    store::{ImageRow, VmSpec},
    volumes::{self, Asked},
};
use banger_dbus::{Dict, Error, Options, Port};
use banger_host::{IoLimits, VmmKind};
use banger_model::{Bytes, Cpus, MachineSize, NetworkMode, NetworkRules, PublishedPort, Restart, VmName};

/// A port as it travels, read.
///
/// # Errors
/// [`Error::InvalidSpec`] says what is wrong with it.
pub fn published_port((address, host, guest, protocol): &Port) -> Result<PublishedPort, Error> {
    let address = match address.as_str() {
        "" => PublishedPort::LOOPBACK,
        text => text
            .parse()
            .map_err(|_| Error::InvalidSpec(format!("{text:.64?} is not an address of the host's")))?,
    };
    Ok(PublishedPort::new(address, *host, *guest, protocol.parse()?)?)
}

/// The options of CreateVM, read and of the right types.
pub struct CreateOptions {
    image: String,
    kernel: Option<String>,
    cpus: Option<u32>,
    memory: Option<Bytes>,
    disk: Option<Bytes>,
    start: bool,
    remove: bool,
    main: Option<String>,
    command: Vec<String>,
    environment: Vec<String>,
    user: String,
    working_directory: String,
    vmm: VmmChoice,
    limits: IoLimits,
    autostart: bool,
    restart: Restart,
    idle_stop: u32,
    network: Option<String>,
    nat: bool,
    ports: Vec<Port>,
    volumes: Vec<Asked>,
    work: bool,
}

impl CreateOptions {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::InvalidArgs`] or [`Error::UnknownOption`].
    pub fn read(options: Dict) -> Result<Self, Error> {
        let mut options = Options::new(options);
        let image: Option<String> = options.take("image")?;
        let read = Self {
            image: String::new(),
            kernel: options.take("kernel")?,
            cpus: options.take("cpus")?,
            memory: options.take("memory")?,
            disk: options.take("disk")?,
            start: options.take("start")?.unwrap_or(true),
            remove: options.take_or_default("remove")?,
            main: options.take("main")?,
            command: options.take_or_default("command")?,
            environment: options.take_or_default("environment")?,
            user: options.take_or_default("user")?,
            working_directory: options.take_or_default("working-directory")?,
            vmm: vmm_choice(options.take("vmm")?)?,
            limits: IoLimits {
                disk: limit(&mut options, "disk-bytes-per-second")?,
                network: limit(&mut options, "network-bytes-per-second")?,
            },
            autostart: options.take_or_default("autostart")?,
            restart: match options.take::<String>("restart")? {
                Some(policy) => policy.parse()?,
                None => Restart::No,
            },
            idle_stop: options.take_or_default("idle-stop")?,
            network: options.take("network")?,
            nat: options.take_or_default("nat")?,
            ports: options.take_or_default("ports")?,
            volumes: asked(options.take_or_default("volumes")?),
            work: options.take_or_default("work")?,
        };
        options.finish()?;
        let image = image.ok_or_else(|| Error::InvalidArgs("the option \"image\" is missing".into()))?;
        Ok(Self { image, ..read })
    }

    /// The kernel that was asked for, else what the image wants, else the default; and the name that it has here.
    fn wanted_kernel(&self, service: &Service, image: &ImageRow) -> Result<(Kernel, String), Error> {
        let default = kernels::default_name(service)?;
        // The image knows already which of its entry's and its own was the one.
        let wanted = kernels::choose(self.kernel.as_deref(), "", &image.kernel, &default).to_owned();
        let found = match &self.kernel {
            Some(asked) => kernels::find(service, asked)?,
            None => kernels::find_for_image(service, &image.kernel)?,
        };
        Ok((found, wanted))
    }

    /// QEMU limits disks, and leaves networks to their hosts.
    fn check_limits(&self, service: &Service) -> Result<(), Error> {
        let vmm = self.vmm.forced().or(service.config.vmm.forced());
        if self.limits.network.is_some() && vmm != Some(VmmKind::Firecracker) {
            return Err(Error::InvalidSpec(
                "network-bytes-per-second is what Firecracker can do and QEMU cannot: say vmm \"firecracker\" too".into(),
            ));
        }
        Ok(())
    }

    /// What its packets may.
    fn network(&self) -> Result<NetworkRules, Error> {
        let mode = self.network.as_deref().map_or(Ok(NetworkMode::default()), str::parse)?;
        let ports = self.ports.iter().map(published_port).collect::<Result<_, _>>()?;
        let rules = NetworkRules { mode, nat: self.nat, ports };
        rules.check()?;
        Ok(rules)
    }

    /// The volumes that are asked for, and the work disk if it is.
    fn all_volumes(&self, name: Option<&VmName>) -> Result<Vec<Asked>, Error> {
        let mut all = self.volumes.clone();
        if self.work {
            let name = name.ok_or_else(|| {
                Error::InvalidSpec("a work disk is called after its VM: give the VM a name".into())
            })?;
            // A volume's name is as long as a VM's at most.
            let stem: String = name.as_str().chars().take(58).collect();
            all.push(Asked { name: format!("{stem}-work"), path: volumes::WORK.into(), read_only: false });
        }
        Ok(all)
    }

    /// Everything that can be known before somebody is asked: that the image and the kernel are there, the
    /// sizes are possible, and the name is free.
    ///
    /// # Errors
    /// What is not there, not possible or not free.
    pub fn resolve(&self, service: &Service, name: Option<VmName>, caller: &Caller) -> Result<Create, Error> {
        let image = service.find_image(caller, &self.image)?;
        let (found, kernel) = self.wanted_kernel(service, &image)?;
        // The preferred one of the host may be another tomorrow: its VMs follow it.
        let kernel = if kernel == HOST { kernel } else { found.name().to_owned() };
        let size = MachineSize {
            cpus: Cpus(self.cpus.unwrap_or(service.config.defaults.cpus)),
            memory: self.memory.unwrap_or(service.config.defaults.memory),
            disk: self.disk.unwrap_or(image.size),
        };
        service.limits.check(&size, image.size)?;
        let main = match self.main.as_deref() {
            None | Some("image") => true,
            Some("none") if self.command.is_empty() => false,
            Some("none") => {
                return Err(Error::InvalidSpec("main is \"none\", and there is a command".into()));
            }
            Some(_) => return Err(Error::InvalidSpec("main is neither \"image\" nor \"none\"".into())),
        };
        let (volumes, fresh) = volumes::resolve(service, caller.uid, &self.all_volumes(name.as_ref())?)?;
        let spec = VmSpec {
            size,
            remove: self.remove,
            main,
            command: self.command.clone(),
            environment: self.environment.clone(),
            user: self.user.clone(),
            working_directory: self.working_directory.clone(),
            vmm: self.vmm,
            limits: self.limits,
            ends_with_main: !self.command.is_empty(),
            autostart: self.autostart,
            restart: self.restart,
            idle_stop: self.idle_stop,
            network: self.network()?,
            disk_backend: service.backends.choose(service.is_registered(&image))?,
            volumes,
        };
        self.check_limits(service)?;
        change::check(&spec)?;
        let (start, owner) = (self.start, caller.uid);
        let request = Create { name, image, kernel, spec, volumes: fresh, start, owner };
        // What the guest would refuse is refused here.
        create::settings(&request.image.config, &request.spec, request.name.as_ref(), None)?;
        create::check_name(service, &request)?;
        Ok(request)
    }
}

/// The least that a limit may be: below it, a VM would not come up within its time.
const LEAST_LIMIT: Bytes = Bytes::mib(1);

/// The most that the VMMs can count.
const MOST_LIMIT: Bytes = Bytes::gib(1 << 10);

fn limit(options: &mut Options, name: &'static str) -> Result<Option<Bytes>, Error> {
    let limit: Option<Bytes> = options.take(name)?;
    match limit {
        Some(limit) if limit < LEAST_LIMIT || limit > MOST_LIMIT => Err(Error::InvalidSpec(format!(
            "{name} is {} bytes, outside {LEAST_LIMIT} to {MOST_LIMIT}",
            limit.0
        ))),
        limit => Ok(limit),
    }
}

fn vmm_choice(word: Option<String>) -> Result<VmmChoice, Error> {
    let Some(word) = word else { return Ok(VmmChoice::Auto) };
    VmmChoice::of(&word)
        .ok_or_else(|| Error::InvalidSpec("vmm is none of \"auto\", \"qemu\" and \"firecracker\"".into()))
}

fn asked(volumes: Vec<(String, String, bool)>) -> Vec<Asked> {
    volumes.into_iter().map(|(name, path, read_only)| Asked { name, path, read_only }).collect()
}
