//! The steps of a start: the one place that says what carries each out, and what undoes it.

use super::{
    choose::Choice,
    create, firecracker, network, snapshot,
    start::{Incoming, first_answer},
};
use crate::{
    disk, error::Error, fault, jobs::Job, kernels::Boot, machines::Live, service::Service, snapshots,
    store::VmRow, volumes,
};
use banger_host::{Manner, StartVm, VmmKind};
use banger_model::{DiskNumber, Lane, Phase, Plan, StartStep, VmId};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What the steps of one attempt to start a VM work with.
pub struct Attempt<'a> {
    /// The kernel.
    pub boot: Arc<Boot>,
    /// What runs the VM.
    pub way: Choice,
    /// The snapshot from which the guest goes on, instead of booting.
    pub incoming: Option<&'a Incoming>,
    /// How long the guest may take to answer.
    pub bound: Duration,
    /// What is told how far it is.
    pub job: &'a Arc<Job>,
    /// What ends it early.
    pub cancel: &'a CancellationToken,
}

/// What they come to.
#[derive(Default)]
struct Made {
    /// How many are done.
    steps: AtomicU64,
    /// Kernel and initramfs, once they are sealed.
    files: OnceLock<(OwnedFd, OwnedFd)>,
    /// The VMM's process, once it is there.
    pid: OnceLock<u32>,
    /// The VM, once its guest has answered.
    live: OnceLock<Arc<Live>>,
}

/// Carries out one step.
///
/// # Errors
/// Why it did not succeed. Undoing it then is right, and so is undoing it when it was never tried.
async fn act(
    service: &Arc<Service>,
    vm: &VmRow,
    step: StartStep,
    attempt: &Attempt<'_>,
    made: &Made,
) -> Result<(), Error> {
    match step {
        StartStep::AttachDisk => {
            let disk = service.disk(vm);
            disk.be_there(service, vm, attempt.job).await?;
            disk.attach(service, vm).await
        }
        StartStep::AttachVolumes => volumes::attach(service, vm).await,
        StartStep::MakeTap => Ok(service.host.make_tap(vm.id, vm.slot, service.subnet()).await?),
        StartStep::OpenNetwork => network::open(service, vm.id).await,
        StartStep::StartVmm => {
            let way = attempt.way;
            let manner = Manner {
                limits: vm.spec.limits,
                incoming: attempt.incoming.is_some(),
                vsock: attempt.boot.has_vsock,
            };
            let folder = match way.vmm.vmm().opens_by_name() {
                true => {
                    let folder = snapshots::open_folder(service, vm.id)?;
                    if let Some(incoming) = attempt.incoming {
                        snapshot::hand_over(service, vm.id, &incoming.place)?;
                    }
                    Some(folder)
                }
                false => None,
            };
            let sealed =
                made.files.get().map(|(kernel, initrd)| Ok((kernel.try_clone()?, initrd.try_clone()?)));
            let (kernel, initrd) = sealed
                .unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()))
                .map_err(|error: std::io::Error| Error::Internal(format!("the boot files: {error}")))?;
            let start = StartVm {
                vm: vm.id,
                slot: vm.slot,
                size: attempt.incoming.map_or(vm.spec.size, |incoming| incoming.size),
                accel: way.accel,
                vmm: way.vmm,
                manner,
                snapshot: folder,
                kernel,
                initrd,
            };
            let _ = made.pid.set(service.host.start_vm(start).await?);
            match (attempt.incoming, way.vmm) {
                (Some(incoming), _) => snapshot::load(service, vm, &incoming.place).await,
                (None, VmmKind::Qemu) => Ok(()),
                (None, VmmKind::Firecracker) => firecracker::configure(service, vm).await,
            }
        }
        StartStep::AwaitGuest => {
            attempt.job.phase(Phase::Booting);
            let answer = first_answer(service, vm, attempt.bound, attempt.cancel);
            // A new disk becomes durable while the guest boots.
            let (kept, answer) = tokio::join!(disk::keep(service, vm), answer);
            let (console, agent) = answer?;
            kept?;
            if let Some(incoming) = attempt.incoming {
                snapshot::identify(service, vm, &agent, incoming.machine_id.clone()).await?;
            }
            let pid = made.pid.get().copied().unwrap_or_default();
            let _ = made.live.set(Live::new(pid, console, Some(agent)));
            Ok(())
        }
    }
}

/// Kernel and initramfs, with what this VM's guest is told.
async fn seal(
    service: &Arc<Service>,
    vm: &VmRow,
    attempt: &Attempt<'_>,
) -> Result<(OwnedFd, OwnedFd), Error> {
    let image = service.image(vm.image)?;
    let settings =
        create::settings(&image.config, &vm.spec, Some(&vm.name), Some(create::place(service, vm)))?;
    attempt.boot.sealed(attempt.way.vmm, settings).await
}

/// Undoes one step, whether or not it was done.
///
/// # Errors
/// What could not be undone.
async fn undo(service: &Service, vm: VmId, step: StartStep) -> Result<(), Error> {
    match step {
        StartStep::AttachDisk => Ok(service.host.detach_disk(vm, DiskNumber::ROOT).await?),
        StartStep::AttachVolumes => volumes::detach(service, &service.vm(vm)?).await,
        StartStep::MakeTap => Ok(service.host.remove_tap(vm).await?),
        StartStep::OpenNetwork => Ok(service.host.close_network(vm).await?),
        StartStep::StartVmm => Ok(service.host.stop_vm(vm).await?),
        StartStep::AwaitGuest => Ok(()),
    }
}

/// Carries out the steps of a lane, one after the other.
async fn carry_out_lane(
    service: &Arc<Service>,
    vm: &VmRow,
    lane: Lane,
    attempt: &Attempt<'_>,
    made: &Made,
) -> Result<(), Error> {
    for step in StartStep::of(lane) {
        if attempt.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let begun = Instant::now();
        let acted = act(service, vm, step, attempt, made);
        fault::step(service, Some(vm.id), Plan::Start, step.word(), acted).await?;
        tracing::debug!(vm = %vm.id, step = step.word(), ms = begun.elapsed().as_secs_f64() * 1e3, "done");
        attempt.job.advance(made.steps.fetch_add(1, Ordering::Relaxed) + 1);
    }
    Ok(())
}

/// Carries out the plan of a start: disks and network beside each other, then the machine. On failure the journal tells
/// what there is to undo.
///
/// # Errors
/// Why a step did not succeed, or [`Error::Cancelled`].
pub async fn carry_out(service: &Arc<Service>, vm: &VmRow, attempt: Attempt<'_>) -> Result<Arc<Live>, Error> {
    attempt.job.phase(Phase::Starting);
    attempt.job.total(StartStep::PLAN.len() as u64);
    // All of them at once and before the first acts: undoing what was never done is no error.
    service.store.begin_steps(vm.id)?;
    let made = Made::default();
    let lane = |lane| carry_out_lane(service, vm, lane, &attempt, &made);
    // Each is awaited to its end, whatever becomes of the others: nothing may act any more when this is undone.
    let (disks, network, sealed) =
        tokio::join!(lane(Lane::Disks), lane(Lane::Network), seal(service, vm, &attempt));
    if let (Err(_), Err(also)) = (&disks, &network) {
        tracing::warn!(vm = %vm.id, %also, "its network could not be made either");
    }
    disks.and(network)?;
    let _ = made.files.set(sealed?);
    lane(Lane::Machine).await?;
    made.live.into_inner().ok_or_else(|| Error::Internal("a start that awaited no guest".into()))
}

/// Undoes every step of a start that the journal names, last first; goes on past an error and reports all.
/// `plan` is the one of which this is a part.
///
/// # Errors
/// [`Error::Leftovers`] lists what could not be undone.
pub async fn take_down(service: &Service, vm: VmId, plan: Plan) -> Result<(), Error> {
    let mut left = Vec::new();
    let begun = service.store.begun_steps(vm)?;
    for step in StartStep::PLAN.iter().rev().copied() {
        let Some(word) = step.undo() else { continue };
        let undone = async {
            match begun.contains(&step) {
                true => undo(service, vm, step).await,
                false => Ok(()),
            }
        };
        match fault::step(service, Some(vm), plan, word, undone).await {
            Ok(()) if begun.contains(&step) => service.store.end_step(vm, step)?,
            Ok(()) => {}
            Err(error) => left.push(format!("{word}: {error}")),
        }
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(Error::Leftovers { left }),
    }
}
