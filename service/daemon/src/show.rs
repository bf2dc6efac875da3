//! What is told of images, VMs and jobs: rows as the dictionaries of the bus.

use crate::{
    disk,
    gate::Caller,
    ids,
    jobs::Job,
    reach,
    service::Service,
    store::{ImageRow, Mounted, VmRow, VolumeRow},
};
use banger_agent::ExitStatus;
use banger_dbus::{ImageInfo, JobInfo, Port, VmInfo, VmSummary, VolumeInfo};
use banger_model::{NetworkRules, PublishedPort, VmState};
use std::net::SocketAddr;

/// An image, for a caller: only the names of their own VMs are in `used_by`, everybody's for root.
pub fn image(service: &Service, image: &ImageRow, vms: &[VmRow], caller: &Caller) -> ImageInfo {
    let users = vms.iter().filter(|vm| vm.image == image.id && caller.sees(vm.owner));
    ImageInfo {
        id: image.id,
        name: image.names.first().map(ToString::to_string).unwrap_or_default(),
        names: image.names.iter().map(ToString::to_string).collect(),
        source: image.source.to_string(),
        owner_uid: image.owner,
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        platform: image.platform.clone(),
        size: image.size,
        content: image.content,
        compressed: image.compressed,
        created: image.created.max(0) as u64,
        used: disk::used(&service.rootfs(image.id)),
        layers: image.layers.iter().map(|layer| layer.digest.to_string()).collect(),
        private: image.private,
        signature: image.signature.clone(),
        kernel: image.kernel.clone(),
        entrypoint: image.config.entrypoint.clone(),
        command: image.config.cmd.clone(),
        environment: image.config.env.clone(),
        user: image.config.user.clone().unwrap_or_default(),
        working_directory: image.config.working_dir.clone().unwrap_or_default(),
        unavailable: service.unavailable(image).map(|error| error.to_string()).unwrap_or_default(),
        used_by: users.map(|vm| vm.name.to_string()).collect(),
    }
}

/// A VM.
pub fn vm(service: &Service, vm: &VmRow, images: &[ImageRow]) -> VmInfo {
    let live = service.machines.live(vm.id);
    let image = images.iter().find(|image| image.id == vm.image);
    VmInfo {
        id: vm.id,
        name: vm.name.to_string(),
        state: vm.state.to_string(),
        owner_uid: vm.owner,
        image: image.map(ImageRow::called).unwrap_or_default(),
        image_id: vm.image.to_string(),
        kernel: vm.kernel.clone(),
        cpus: vm.spec.size.cpus.0,
        memory: vm.spec.size.memory,
        disk: vm.spec.size.disk,
        disk_used: disk::used(&service.disk(vm).path),
        disk_backend: vm.spec.disk_backend.to_string(),
        volumes: volumes(service, vm),
        addresses: addresses(service, vm),
        network: vm.spec.network.mode.to_string(),
        nat: vm.spec.network.nat,
        ports: ports(&vm.spec.network),
        created: vm.created.max(0) as u64,
        remove: vm.spec.remove,
        autostart: vm.spec.autostart,
        restart: vm.spec.restart.to_string(),
        idle_stop: vm.spec.idle_stop,
        boot: vm.boot.clone(),
        accel: vm.accel.filter(|_| is_up(vm)).map(|accel| accel.to_string()),
        vmm: live.is_some().then(|| reach::vmm(service, vm.id).to_string()),
        pid: live.map(|live| live.pid),
        started: (vm.started > 0).then_some(vm.started as u64),
        uptime: uptime(vm),
        exit_code: vm.exit.and_then(|exit| if let ExitStatus::Code(code) = exit { Some(code) } else { None }),
        exit_signal: vm.exit.and_then(|exit| if let ExitStatus::Signal(n) = exit { Some(n) } else { None }),
        listening: None,
        error: (!vm.error.is_empty()).then(|| vm.error.clone()),
    }
}

/// A VM, in a list.
pub fn vm_summary(service: &Service, vm: &VmRow, images: &[ImageRow]) -> VmSummary {
    let image = images.iter().find(|image| image.id == vm.image);
    VmSummary {
        id: vm.id,
        name: vm.name.to_string(),
        state: vm.state.to_string(),
        owner_uid: vm.owner,
        image: image.map(ImageRow::called).unwrap_or_default(),
        cpus: vm.spec.size.cpus.0,
        memory: vm.spec.size.memory,
        disk: vm.spec.size.disk,
        addresses: addresses(service, vm),
        created: vm.created.max(0) as u64,
    }
}

/// Seconds since its guest was ready, while it is there.
fn uptime(vm: &VmRow) -> Option<u64> {
    let since = || u64::try_from(ids::now().seconds.saturating_sub(vm.started)).unwrap_or(0);
    (is_up(vm) && vm.started > 0).then(since)
}

/// Published ports as they travel: the host's address and port, the guest's port, and the protocol.
pub fn ports(rules: &NetworkRules) -> Vec<Port> {
    let port = |port: &PublishedPort| {
        (port.address.to_string(), port.host, port.guest, port.protocol.as_str().to_owned())
    };
    rules.ports.iter().map(port).collect()
}

/// Whether its guest is there.
fn is_up(vm: &VmRow) -> bool {
    matches!(vm.state, VmState::Running | VmState::Paused)
}

/// The addresses that a VM has while it runs.
pub fn addresses(service: &Service, vm: &VmRow) -> Vec<String> {
    let subnet = service.subnet();
    match is_up(vm) {
        true => vec![subnet.guest_v4(vm.slot).to_string(), subnet.guest_v6(vm.slot).to_string()],
        false => Vec::new(),
    }
}

/// What a VM's guest listens on, while it answers.
pub async fn listening(service: &Service, vm: &VmRow) -> Option<Vec<String>> {
    if vm.state != VmState::Running {
        return None;
    }
    let figures = service.machines.of(vm.id).live()?.figures().await?;
    let shown = figures.listeners.iter().map(|it| SocketAddr::new(it.address, it.port).to_string());
    Some(shown.collect())
}

/// A VM's volumes, as they are asked for: `name:path` or `name:path:ro`.
fn volumes(service: &Service, vm: &VmRow) -> Vec<String> {
    let told = |mounted: &Mounted| {
        let name = service
            .volume(mounted.volume)
            .map_or_else(|_| mounted.volume.to_string(), |v| v.name.to_string());
        let suffix = if mounted.read_only { ":ro" } else { "" };
        format!("{name}:{}{suffix}", mounted.path)
    };
    vm.spec.volumes.iter().map(told).collect()
}

/// A volume.
pub fn volume(service: &Service, volume: &VolumeRow, vms: &[VmRow]) -> VolumeInfo {
    let users = vms.iter().filter(|vm| vm.spec.volumes.iter().any(|mounted| mounted.volume == volume.id));
    VolumeInfo {
        id: volume.id,
        name: volume.name.to_string(),
        owner_uid: volume.owner,
        size: volume.size,
        used: disk::used(&service.volume_file(volume.id)),
        created: volume.created.max(0) as u64,
        used_by: users.map(|vm| vm.name.to_string()).collect(),
    }
}

/// A job.
pub fn job(job: &Job) -> JobInfo {
    let status = job.status();
    JobInfo {
        id: job.id,
        kind: job.kind.as_str().to_owned(),
        state: status.state.as_str().to_owned(),
        owner_uid: job.owner,
        subject: job.subject.clone(),
        phase: status.phase.as_str().to_owned(),
        done: status.done,
        total: status.total,
        entries: status.entries,
        error: status.result.and_then(Result::err).map(|error| error.to_string()),
    }
}
