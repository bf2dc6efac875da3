//! Making a VM: its row, its disk, and its first start.

use super::{
    exec::{Run, request},
    lifecycle,
};
use crate::{
    disk,
    error::Error,
    ids,
    jobs::Job,
    names,
    service::Service,
    store::{ImageRow, StoreError, VmRow, VmSpec, VolumeRow},
    volumes,
};
use banger_agent::ExecRequest;
use banger_dbus::{Dict, DictWriter, names::path_of};
use banger_guest::{Address, Init, Mac, Network, Process, Settings};
use banger_image::RunConfig;
use banger_model::{Phase, Plan, Restart, Slot, Subnet, Uid, VmId, VmName, VmState};
use std::{net::IpAddr, sync::Arc};

/// A VM to make.
#[derive(Debug, Clone)]
pub struct Create {
    /// Its name; `None` for one made up.
    pub name: Option<VmName>,
    /// What its disk is made of.
    pub image: ImageRow,
    /// Its kernel's name.
    pub kernel: String,
    /// What it is to be.
    pub spec: VmSpec,
    /// The volumes that it is to have and that are not there yet.
    pub volumes: Vec<VolumeRow>,
    /// Whether it starts at once.
    pub start: bool,
    /// For whom.
    pub owner: Uid,
}

/// Where a guest is on the network.
pub struct Place {
    /// Its slot.
    pub slot: Slot,
    /// The VMs' network.
    pub subnet: Subnet,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    /// Domains that complete short names there.
    pub search: Vec<String>,
}

/// Where a VM's guest is from its next start on. Without name servers of this host it is a network all the same.
pub fn place(service: &Service, vm: &VmRow) -> Place {
    let subnet = service.subnet();
    let host = names::upstreams().unwrap_or_else(|error| {
        tracing::warn!(%error, "this host's name servers cannot be read");
        names::Upstreams::default()
    });
    let (dns, search) = names::for_guest(&vm.spec.network, &subnet, &service.config.dns, host);
    Place { slot: vm.slot, subnet, dns, search }
}

/// What the guest is told: who it is, its network, and the command that it starts by itself.
///
/// # Errors
/// [`Error::Spec`] for what the guest would refuse.
pub fn settings(
    image: &RunConfig,
    spec: &VmSpec,
    name: Option<&VmName>,
    network: Option<Place>,
) -> Result<Vec<u8>, Error> {
    let mut settings = Settings::new(name.map_or("vm", VmName::as_str));
    settings.network = network.map(|Place { slot, subnet, dns, search }| Network {
        mac: Mac(slot.mac()),
        addresses: addresses(slot, subnet),
        dns,
        search,
    });
    settings.mounts = volumes::mounts(&spec.volumes);
    settings.main = main_process(image, spec);
    settings.ends_with_main = settings.main.is_some() && (spec.ends_with_main || spec.restart != Restart::No);
    if !spec.command.is_empty() {
        // As with podman: who says what to run gets that, and not the image's own init.
        settings.init = Init::Agent;
    }
    settings.to_json().map_err(|error| Error::Spec(error.to_string()))
}

/// The guest's addresses. The host is where everything else goes, also for a VM that reaches nothing beyond it: that is
/// how its answers leave from published ports.
fn addresses(slot: Slot, subnet: Subnet) -> Vec<Address> {
    vec![
        Address {
            address: subnet.guest_v4(slot).into(),
            prefix: Subnet::PREFIX_V4,
            gateway: Some(subnet.host_v4().into()),
        },
        Address {
            address: subnet.guest_v6(slot).into(),
            prefix: Subnet::PREFIX_V6,
            gateway: Some(subnet.host_v6().into()),
        },
    ]
}

/// The command that the guest starts by itself; none where neither the VM nor its image has one.
fn main_process(image: &RunConfig, spec: &VmSpec) -> Option<Process> {
    if !spec.main {
        return None;
    }
    let run = Run {
        argv: spec.command.clone(),
        entrypoint: true,
        environment: spec.environment.clone(),
        user: spec.user.clone(),
        working_directory: spec.working_directory.clone(),
        tty: None,
        stdin: false,
        detach: true,
    };
    let ExecRequest { argv, env, cwd, user, .. } = request(image, run).ok()?;
    Some(Process { argv, env, cwd, user })
}

/// Refuses a name that a VM has.
///
/// # Errors
/// [`StoreError::Taken`].
pub fn check_name(service: &Service, create: &Create) -> Result<(), Error> {
    match (name_taken(service, create)?, &create.name) {
        (true, Some(name)) => Err(StoreError::Taken { what: "a VM", name: name.to_string() }.into()),
        _ => Ok(()),
    }
}

/// Writes the VM down, which reserves its name and its slot.
///
/// # Errors
/// [`StoreError::Taken`] when the name is.
pub fn reserve(service: &Service, create: &Create) -> Result<VmRow, Error> {
    for volume in &create.volumes {
        service.store.add_volume(volume)?;
    }
    let id = VmId::from_bits(ids::random()?);
    loop {
        let slot = service.store.free_slot()?.ok_or(Error::NoSlot)?;
        let name = match &create.name {
            Some(name) => name.clone(),
            None => made_up(&create.image.called(), ids::random()?)?,
        };
        let vm = VmRow {
            id,
            name,
            owner: create.owner,
            image: create.image.id,
            kernel: create.kernel.clone(),
            spec: create.spec.clone(),
            slot,
            state: VmState::Created,
            error: String::new(),
            accel: None,
            created: ids::now().seconds,
            started: 0,
            has_disk: false,
            boot: Vec::new(),
            exit: None,
            wanted: false,
        };
        match service.store.add_vm(&vm) {
            Ok(()) => return Ok(vm),
            // Another VM took the slot, or the made-up name, in between. A given name stays taken.
            Err(StoreError::Taken { .. }) if !name_taken(service, create)? => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn name_taken(service: &Service, create: &Create) -> Result<bool, Error> {
    let Some(name) = &create.name else { return Ok(false) };
    Ok(service.store.vms()?.iter().any(|vm| vm.name == *name))
}

/// `<image>-<4 digits>`, cut to the length of a DNS label.
fn made_up(image: &str, bits: u64) -> Result<VmName, Error> {
    let stem: String = image.chars().take(58).collect();
    Ok(format!("{}-{:04x}", stem.trim_end_matches('-'), bits & 0xffff).parse()?)
}

/// Makes the disk and starts the VM.
///
/// # Errors
/// What failed. A VM whose disk could not be made, and one that was cancelled or asked to go by itself, is
/// removed; one whose guest did not come up stays to be looked at, in state `failed`.
pub async fn create(service: Arc<Service>, vm: VmRow, start: bool, job: Arc<Job>) -> Result<Dict, Error> {
    let result = make(&service, &vm, start, &job).await;
    if let Err(error) = result {
        let started = service.vm(vm.id).is_ok_and(|vm| vm.has_disk);
        if !started || vm.spec.remove || matches!(error, Error::Cancelled) {
            let machine = service.machines.of(vm.id);
            let _turn = machine.turn.lock().await;
            if let Err(also) = lifecycle::remove(&service, vm.id, Plan::Delete).await {
                return Err(Error::Rollback { cause: error.to_string(), also: also.to_string() });
            }
        }
        return Err(error);
    }
    Ok(DictWriter::new().with("vm", path_of(vm.id)).done())
}

async fn make(service: &Arc<Service>, vm: &VmRow, start: bool, job: &Arc<Job>) -> Result<(), Error> {
    job.phase(Phase::Disk);
    let image = service.image(vm.image)?;
    job.total(image.size.0);
    let folder = service.vm_folder(vm.id);
    tokio::fs::create_dir_all(&folder).await.map_err(|e| Error::disk(&folder, e))?;
    // What takes no time is made by the start, beside everything else of it.
    if !start || !vm.spec.disk_backend.is_instant() {
        // Whoever starts the VM meanwhile waits until the disk is whole.
        let machine = service.machines.of(vm.id);
        let _turn = machine.turn.lock().await;
        service.disk(vm).make_of(service, &image, job).await?;
    }
    volumes::prepare(service, vm, &image, &job.cancel).await?;
    let started = match start {
        true => lifecycle::start(service, vm.id, job).await,
        false => Ok(()),
    };
    // A start that came to the boot has done this.
    let kept = match service.store.vm(vm.id)? {
        Some(vm) => disk::keep(service, &vm).await,
        // It may have gone by itself, its command having ended.
        None => Ok(()),
    };
    started.and(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{Bytes, Cpus, MachineSize, Restart};

    #[test]
    fn a_command_of_ones_own_replaces_the_images_init() {
        let image =
            RunConfig { entrypoint: vec!["/entry".into()], cmd: vec!["x".into()], ..RunConfig::default() };
        let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::gib(1) };
        let spec = |main, command: &[&str]| VmSpec {
            size,
            remove: false,
            main,
            command: command.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            user: String::new(),
            working_directory: String::new(),
            vmm: crate::config::VmmChoice::Auto,
            limits: banger_host::IoLimits::default(),
            ends_with_main: false,
            autostart: false,
            restart: Restart::No,
            idle_stop: 0,
            network: banger_model::NetworkRules::default(),
            disk_backend: banger_model::DiskBackend::Copy,
            volumes: Vec::new(),
        };
        let told = |spec: &VmSpec| Settings::from_json(&settings(&image, spec, None, None).unwrap()).unwrap();
        let own = told(&spec(true, &["serve", "-v"]));
        assert_eq!(
            (own.init, own.main.unwrap().argv),
            (Init::Agent, vec!["/entry".into(), "serve".into(), "-v".into()])
        );
        let images = told(&spec(true, &[]));
        assert_eq!((images.init, images.main.unwrap().argv), (Init::Auto, vec!["/entry".into(), "x".into()]));
        assert_eq!(told(&spec(false, &[])).main, None);
    }

    #[test]
    fn made_up_names_are_dns_labels() {
        let longest = "a".repeat(63);
        assert_eq!(made_up(&longest, 0x12).unwrap().as_str().len(), 63);
        assert_eq!(made_up("debian-bookworm", 0xa_beef).unwrap().as_str(), "debian-bookworm-beef");
        let edge = format!("{}-b", "a".repeat(57));
        assert_eq!(made_up(&edge, 0).unwrap().as_str(), format!("{}-0000", "a".repeat(57)));
    }
}
