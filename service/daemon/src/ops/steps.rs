//! The steps of a start: the one place that says what carries each out, and what undoes it.

use super::{
    choose::Choice,
    create, firecracker, network, snapshot,
    start::{Incoming, first_answer},
};
use crate::{
    error::Error, fault, jobs::Job, kernels::Boot, machines::Live, service::Service, snapshots, store::VmRow,
    volumes,
};
use banger_host::{Manner, StartVm, VmmKind};
use banger_model::{DiskNumber, Phase, Plan, StartStep, VmId};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What the steps of one attempt to start a VM work with, and what they come to.
pub struct Attempt<'a> {
    /// The kernel.
    pub boot: &'a Boot,
    /// What runs the VM.
    pub way: Choice,
    /// The snapshot from which the guest goes on, instead of booting.
    pub incoming: Option<&'a Incoming>,
    /// How long the guest may take to answer.
    pub bound: Duration,
    /// What is told how far it is.
    pub job: &'a Job,
    /// What ends it early.
    pub cancel: &'a CancellationToken,
    /// The VMM's process, once it is there.
    pub pid: u32,
    /// The VM, once its guest has answered.
    pub live: Option<Arc<Live>>,
}

/// Carries out one step.
///
/// # Errors
/// Why it did not succeed. Undoing it then is right, and so is undoing it when it was never tried.
async fn act(
    service: &Arc<Service>,
    vm: &VmRow,
    step: StartStep,
    attempt: &mut Attempt<'_>,
) -> Result<(), Error> {
    match step {
        StartStep::AttachDisk => service.disk(vm).attach(service, vm).await,
        StartStep::AttachVolumes => volumes::attach(service, vm).await,
        StartStep::MakeTap => Ok(service.host.make_tap(vm.id, vm.slot, service.subnet()).await?),
        StartStep::OpenNetwork => network::open(service, vm.id).await,
        StartStep::StartVmm => {
            let image = service.image(vm.image)?;
            let place = create::place(service, vm);
            let settings = create::settings(&image.config, &vm.spec, Some(&vm.name), Some(place))?;
            let way = attempt.way;
            let (kernel, initrd) = attempt.boot.sealed(way.vmm, &settings).await?;
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
            attempt.pid = service.host.start_vm(start).await?;
            match (attempt.incoming, way.vmm) {
                (Some(incoming), _) => snapshot::load(service, vm, &incoming.place).await,
                (None, VmmKind::Qemu) => Ok(()),
                (None, VmmKind::Firecracker) => firecracker::configure(service, vm).await,
            }
        }
        StartStep::AwaitGuest => {
            attempt.job.phase(Phase::Booting);
            let (console, agent) = first_answer(service, vm, attempt.bound, attempt.cancel).await?;
            if let Some(incoming) = attempt.incoming {
                snapshot::identify(service, vm, &agent, incoming.machine_id.clone()).await?;
            }
            attempt.live = Some(Live::new(attempt.pid, console, Some(agent)));
            Ok(())
        }
    }
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

/// Carries out the plan of a start. On failure the journal tells what there is to undo.
///
/// # Errors
/// Why a step did not succeed, or [`Error::Cancelled`].
pub async fn carry_out(
    service: &Arc<Service>,
    vm: &VmRow,
    mut attempt: Attempt<'_>,
) -> Result<Arc<Live>, Error> {
    let (job, cancel) = (attempt.job, attempt.cancel);
    job.phase(Phase::Starting);
    job.total(StartStep::PLAN.len() as u64);
    // All of them at once and before the first acts: undoing what was never done is no error.
    service.store.begin_steps(vm.id)?;
    for (done, step) in (0..).zip(StartStep::PLAN.iter().copied()) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        job.advance(done);
        let begun = Instant::now();
        let acted = act(service, vm, step, &mut attempt);
        fault::step(service, Some(vm.id), Plan::Start, step.word(), acted).await?;
        tracing::debug!(vm = %vm.id, step = step.word(), ms = begun.elapsed().as_secs_f64() * 1e3, "done");
    }
    attempt.live.ok_or_else(|| Error::Internal("a start that awaited no guest".into()))
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
