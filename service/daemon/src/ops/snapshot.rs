//! Snapshots of a running VM: memory, devices and disk at one moment; going on from there; and another VM that does.

use super::{
    choose::Choice,
    create::{self, Create},
    lifecycle::{self, enter},
    start::Incoming,
};
use crate::{
    disk,
    error::Error,
    ids,
    jobs::Job,
    monitor, reach,
    service::Service,
    snapshots::{self, DISK, Draft, MEMORY, STATE, Snapshot},
    store::VmRow,
    transfer::copy_sparse,
};
use banger_dbus::{Dict, DictWriter, names};
use banger_guest::{Settings, wire::Identity};
use banger_host::VmmKind;
use banger_model::{Bytes, Phase, Plan, Uid, VmEvent, VmId, VmName, VmState};
use banger_vmm::{Control, ControlError, QmpError, RunState};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long a guest that goes on may take to be connected to again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes a snapshot. The guest stands still meanwhile, and goes on afterwards unless it was paused before.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoSpace`], that the name is taken, or what failed; nothing of it is left then.
pub async fn snapshot(service: &Arc<Service>, id: VmId, name: &VmName, job: &Job) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    take(service, id, name, job).await
}

/// The same, for who has the VM's turn.
async fn take(service: &Arc<Service>, id: VmId, name: &VmName, job: &Job) -> Result<(), Error> {
    let vm = service.vm(id)?;
    if !matches!(vm.state, VmState::Running | VmState::Paused) {
        return Err(Error::NotRunning { name: vm.name.to_string(), state: vm.state });
    }
    if !vm.spec.volumes.is_empty() {
        let text = "a snapshot of a VM with volumes is not possible: a volume is not the VM's alone";
        return Err(Error::Spec(text.into()));
    }
    let needed = vm.spec.size.memory.0 + disk::used(&service.disk(&vm).path).0;
    snapshots::check_space(service, id, Bytes(needed))?;
    let draft = Draft::begin(service, id, name)?;
    job.phase(Phase::Copying);
    job.total(needed);
    let (vmm, socket) = reach::control(service, id);
    let mut control = Control::connect(vmm, &socket, vm.slot.uid()).await.map_err(refused)?;
    let was_paused = control.state().await.map_err(refused)? == RunState::Paused;
    let version = control.version().await.map_err(refused)?;
    control.pause().await.map_err(refused)?;
    let written = write(service, &vm, &mut control, draft.path(), job).await;
    // Whatever happened, the guest goes on.
    let resumed = match was_paused {
        true => Ok(()),
        false => control.resume().await.map_err(refused),
    };
    written.and(resumed)?;
    if let (VmmKind::Firecracker, Some(live)) = (vmm, service.machines.live(id)) {
        // Its guest's vsock begins anew once it goes on, and every connection of before ends.
        live.renew_agent(if was_paused { Duration::ZERO } else { PATIENCE }).await;
    }
    let snapshot = Snapshot {
        created: ids::now().seconds,
        vmm,
        version,
        accel: vm.accel.ok_or_else(|| Error::Internal("a VM that runs on nothing".into()))?,
        size: vm.spec.size,
        kernel: vm.kernel.clone(),
    };
    // Durable is after the guest goes on: that takes as long as the disk does.
    tokio::task::spawn_blocking(move || draft.finish(&snapshot)).await?
}

async fn write(
    service: &Arc<Service>,
    vm: &VmRow,
    control: &mut Control,
    to: &Path,
    job: &Job,
) -> Result<(), Error> {
    match control {
        Control::Qemu(qmp) => {
            let (reader, writer) = io::pipe().map_err(|error| Error::disk(to, error))?;
            let path = to.join(MEMORY);
            let copied = tokio::task::spawn_blocking(move || keep(reader, &path));
            let saved = qmp.save(writer.as_fd()).await;
            // The copy ends when nobody writes any more, QEMU included.
            drop(writer);
            let copied = copied.await?;
            // A full disk here is what makes QEMU fail there.
            job.advance(copied?);
            saved.map_err(|error| refused(error.into()))?;
        }
        Control::Firecracker(api) => {
            let handed = snapshots::handed(service, vm.id);
            for name in [MEMORY, STATE] {
                let path = handed.join(name);
                // One that a restored VM runs on has the same name: that keeps its file, and this is another.
                let _ = fs::remove_file(&path);
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                made.map_err(|error| Error::disk(&path, error))?;
                snapshots::set_mode(&path, 0o666)?;
            }
            let saved = api.save().await;
            for name in [MEMORY, STATE] {
                let path = handed.join(name);
                snapshots::set_mode(&path, 0o600)?;
                match saved.is_ok() {
                    true => fs::rename(&path, to.join(name)),
                    false => fs::remove_file(&path),
                }
                .map_err(|error| Error::disk(&path, error))?;
            }
            saved.map_err(|error| refused(error.into()))?;
        }
    }
    let (from, path) = (service.disk(vm).path, to.join(DISK));
    tokio::task::spawn_blocking(move || copy(&from, &path)).await?
}

/// Writes what comes to a new file; its length.
fn keep(mut from: impl Read, path: &Path) -> Result<u64, Error> {
    let failed = |error| Error::disk(path, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let length = io::copy(&mut from, &mut file).map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(length)
}

/// Copies a disk to a new file, sharing blocks where the filesystem can.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let file = File::open(from).map_err(|error| Error::disk(from, error))?;
    let size = file.metadata().map_err(|error| Error::disk(from, error))?.len();
    let failed = |error| Error::disk(to, error);
    let copy =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    copy_sparse(&file, &copy, size, &CancellationToken::new(), |_| {}).map_err(failed)?;
    copy.set_len(size).map_err(failed)
}

fn refused(error: ControlError) -> Error {
    match error {
        ControlError::Qemu(QmpError::Closed) => Error::Monitor("the VM ended".into()),
        error => Error::Monitor(monitor::sentence(&error)),
    }
}

/// Goes back to a snapshot: whatever the VM does is ended, its disk becomes the snapshot's, and its guest goes on from there.
///
/// # Errors
/// [`Error::NotFound`], or what failed. A VM whose restore failed is stopped or failed, with the snapshot's disk or its own.
pub async fn restore(service: &Arc<Service>, id: VmId, name: &VmName, job: &Arc<Job>) -> Result<(), Error> {
    let machine = service.machines.of(id);
    machine.interrupt_start();
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    let snapshot = snapshots::read(service, id, name)?;
    let place = snapshots::place(service, id, name);
    let from = place.join(DISK);
    snapshots::check_space(service, id, disk::used(&from))?;
    if vm.state.may_have_process() {
        job.phase(Phase::Stopping);
        enter(service, &vm, VmEvent::Stop, "").await?;
        if let Some(live) = machine.live() {
            live.ending.cancel();
        }
        lifecycle::ended(service, id, Plan::Stop, VmEvent::Stopped, "").await?;
    }
    job.phase(Phase::Disk);
    replace_disk(&from, &service.disk(&vm).path).await?;
    let incoming = Incoming { way: way(&snapshot), size: snapshot.size, place, machine_id: None };
    lifecycle::start_with_turn(service, id, job, Some(incoming)).await
}

fn way(snapshot: &Snapshot) -> Choice {
    Choice { vmm: snapshot.vmm, accel: snapshot.accel, trial: false }
}

/// Puts a copy in the place of a VM's disk, in one step.
async fn replace_disk(from: &Path, to: &Path) -> Result<(), Error> {
    let (from, to) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || {
        let draft = to.with_extension("restoring");
        let _ = fs::remove_file(&draft);
        let replaced = copy(&from, &draft)
            .and_then(|()| disk::sync(&draft))
            .and_then(|()| fs::rename(&draft, &to).map_err(|error| Error::disk(&to, error)));
        if replaced.is_err() {
            let _ = fs::remove_file(&draft);
        }
        replaced
    })
    .await?
}

/// Another VM that goes on from a snapshot, or from this moment.
#[derive(Debug, Clone)]
pub struct Fork {
    /// Of which VM.
    pub parent: VmId,
    /// The new one's name.
    pub name: VmName,
    /// From which snapshot; `None` for one that is taken now and goes again.
    pub snapshot: Option<VmName>,
    /// Whose it is.
    pub owner: Uid,
}

/// Makes it: with a name, slot, addresses, machine id and random numbers of its own. It runs when this returns.
///
/// # Errors
/// What failed; nothing of the new VM is left then.
pub async fn fork(service: Arc<Service>, request: Fork, job: Arc<Job>) -> Result<Dict, Error> {
    let machine = service.machines.of(request.parent);
    // Its snapshot must not go meanwhile.
    let _turn = machine.turn.lock().await;
    let parent = service.vm(request.parent)?;
    let create = Create {
        name: Some(request.name.clone()),
        image: service.image(parent.image)?,
        kernel: parent.kernel.clone(),
        spec: parent.spec.clone(),
        volumes: Vec::new(),
        start: true,
        owner: request.owner,
    };
    create::check_name(&service, &create)?;
    let (name, taken) = match &request.snapshot {
        Some(name) => (name.clone(), false),
        None => {
            let name = format!("fork-{:016x}", ids::random()?).parse()?;
            take(&service, request.parent, &name, &job).await?;
            (name, true)
        }
    };
    let forked = grow(&service, &request, &create, &name, &job).await;
    if taken {
        let removed = snapshots::remove(&service, request.parent, &name);
        if let (Ok(_), Err(error)) = (&forked, removed) {
            tracing::warn!(vm = %request.parent, %error, "the snapshot of a fork stays");
        }
    }
    forked
}

async fn grow(
    service: &Arc<Service>,
    request: &Fork,
    create: &Create,
    name: &VmName,
    job: &Arc<Job>,
) -> Result<Dict, Error> {
    let snapshot = snapshots::read(service, request.parent, name)?;
    let place = snapshots::place(service, request.parent, name);
    let from = place.join(DISK);
    snapshots::check_space(service, request.parent, disk::used(&from))?;
    let mut create = Create { kernel: snapshot.kernel.clone(), ..create.clone() };
    create.spec.size = snapshot.size;
    // A port of the host is one VM's.
    create.spec.network.ports.clear();
    let vm = create::reserve(service, &create)?;
    service.show_vm(vm.id).await?;
    let machine = service.machines.of(vm.id);
    let _turn = machine.turn.lock().await;
    let made = async {
        job.phase(Phase::Disk);
        let folder = service.vm_folder(vm.id);
        tokio::fs::create_dir_all(&folder).await.map_err(|error| Error::disk(&folder, error))?;
        replace_disk(&from, &service.disk(&vm).path).await?;
        service.store.set_vm_has_disk(vm.id)?;
        let machine_id = Some(format!("{:016x}{:016x}", ids::random()?, ids::random()?));
        let incoming = Incoming { way: way(&snapshot), size: snapshot.size, place, machine_id };
        lifecycle::start_with_turn(service, vm.id, job, Some(incoming)).await
    };
    if let Err(error) = made.await {
        return Err(match lifecycle::remove(service, vm.id, Plan::Rollback).await {
            Ok(()) => error,
            Err(also) => Error::Rollback { cause: error.to_string(), also: also.to_string() },
        });
    }
    Ok(DictWriter::new().with("vm", names::path_of(vm.id)).done())
}

/// Hands a snapshot's files to the VM's folder, where a VMM that opens all by name finds them: the same files, which it may
/// read and nothing else.
///
/// # Errors
/// What failed.
pub fn hand_over(service: &Service, id: VmId, place: &Path) -> Result<(), Error> {
    let handed = snapshots::handed(service, id);
    for name in [MEMORY, STATE] {
        let (from, to) = (place.join(name), handed.join(name));
        let _ = fs::remove_file(&to);
        fs::hard_link(&from, &to).map_err(|error| Error::disk(&from, error))?;
        snapshots::set_mode(&to, 0o644)?;
    }
    Ok(())
}

/// Has a VMM that waits read a snapshot, and lets the guest go on, without its network until it knows who it is.
///
/// # Errors
/// [`Error::Monitor`].
pub async fn load(service: &Service, vm: &VmRow, place: &Path) -> Result<(), Error> {
    let mut control = super::firecracker::listening(service, vm).await?;
    match &mut control {
        Control::Qemu(qmp) => {
            let path = place.join(MEMORY);
            let memory = File::open(&path).map_err(|error| Error::disk(&path, error))?;
            let loaded = async {
                qmp.load(memory.as_fd()).await?;
                qmp.plug_network(false).await
            };
            loaded.await.map_err(|error| refused(error.into()))?;
        }
        Control::Firecracker(api) => {
            let tap = super::firecracker::tap(service, vm.id)?;
            let loaded = async {
                api.at_least(banger_vmm::firecracker::Version::OVERRIDES).await?;
                api.all(&banger_vmm::firecracker::load(&tap)).await
            };
            loaded.await.map_err(|error| refused(error.into()))?;
        }
    }
    control.resume().await.map_err(refused)
}

/// Tells a guest that goes on from a snapshot who it is and what time it is, and plugs its network in.
///
/// # Errors
/// What the guest or the VMM refuses.
pub async fn identify(
    service: &Service,
    vm: &VmRow,
    agent: &banger_agent::Agent,
    machine_id: Option<String>,
) -> Result<(), Error> {
    let image = service.image(vm.image)?;
    let place = create::place(service, vm);
    let text = create::settings(&image.config, &vm.spec, Some(&vm.name), Some(place))?;
    let mut settings = Settings::from_json(&text)
        .map_err(|error| Error::Internal(format!("settings of our own: {error}")))?;
    // What it runs it runs already.
    settings.main = None;
    let mut seed = vec![0; Identity::SEED];
    getrandom::fill(&mut seed).map_err(|error| Error::Internal(format!("no random numbers: {error}")))?;
    let now = ids::now();
    let identity =
        Identity { seconds: now.seconds, nanoseconds: now.nanoseconds, seed, settings, machine_id };
    for failure in agent.identify(&identity).await? {
        tracing::warn!(vm = %vm.id, name = %vm.name, failure, "a guest did not become what it should be");
    }
    let (vmm, socket) = reach::control(service, vm.id);
    if vmm == VmmKind::Qemu {
        let mut control = Control::connect(vmm, &socket, vm.slot.uid()).await.map_err(refused)?;
        if let Control::Qemu(qmp) = &mut control {
            qmp.plug_network(true).await.map_err(|error| refused(error.into()))?;
        }
    }
    Ok(())
}
