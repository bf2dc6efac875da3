//! A VM's changes of state: start, stop, restart, kill, delete. One operation at a time holds a VM's turn.

use super::{
    idle, restart,
    start::{self, Incoming},
    steps::take_down,
};
use crate::{error::Error, fault, jobs::Job, machines::Live, monitor, service::Service, store::VmRow};
use banger_model::{DeleteStep, Phase, Plan, StopStep, VmEvent, VmId, VmState};
use std::{sync::Arc, time::Duration};

/// How long the agent's connection may outlive the guest's console.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Starts a VM and waits for its guest. The second of two starts comes to what the first does, its failure too; one
/// of a VM that runs is no error.
///
/// # Errors
/// Why it did not come up; everything that was made for it is gone again by then.
pub async fn start(service: &Arc<Service>, id: VmId, job: &Arc<Job>) -> Result<(), Error> {
    match service.machines.of(id).begin_start() {
        Ok(told) => {
            let result = start_first(service, id, job).await;
            told.send_replace(Some(result.as_ref().copied().map_err(banger_dbus::Error::from)));
            result
        }
        Err(mut first) => {
            job.phase(Phase::Booting);
            let outcome = tokio::select! {
                outcome = first.wait_for(Option::is_some) => outcome.ok().and_then(|outcome| outcome.clone()),
                () = job.cancel.cancelled() => return Err(Error::Cancelled),
            };
            let lost = || Err(Error::Internal("the start broke off".into()));
            outcome.map_or_else(lost, |outcome| outcome.map_err(Error::Named))
        }
    }
}

async fn start_first(service: &Arc<Service>, id: VmId, job: &Arc<Job>) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    start_with_turn(service, id, job, None).await
}

/// The same, for who has the VM's turn; its guest may go on from a snapshot instead of booting.
///
/// # Errors
/// As [`start()`].
pub async fn start_with_turn(
    service: &Arc<Service>,
    id: VmId,
    job: &Arc<Job>,
    incoming: Option<Incoming>,
) -> Result<(), Error> {
    let machine = service.machines.of(id);
    let vm = service.vm(id)?;
    if vm.state == VmState::Running {
        return Ok(());
    }
    // What an earlier undo could not remove is in the way of a new start.
    if !service.store.begun_steps(id)?.is_empty() {
        take_down(service, id, Plan::Rollback).await?;
    }
    vm.state.after(VmEvent::Start)?;
    service.store.set_vm_starting(id)?;
    machine.set_exit(None);
    service.vm_changed(id).await;
    let cancel = job.cancel.child_token();
    machine.set_start(&cancel);
    let up = match start::bring_up(service, &vm, job, &cancel, incoming.as_ref()).await {
        Ok((live, accel)) => {
            let written = service.store.set_vm_running(id, accel, crate::ids::now().seconds, &phases(&live));
            written.map(|()| live).map_err(Error::from)
        }
        Err(error) => Err(error),
    };
    match up {
        Ok(live) => {
            machine.set_live(Some(live.clone()));
            service.vm_changed(id).await;
            tokio::spawn(watch(service.clone(), id, live));
            Ok(())
        }
        Err(error) => {
            let error = match take_down(service, id, Plan::Rollback).await {
                Ok(()) => error,
                Err(also) => Error::Rollback { cause: error.to_string(), also: also.to_string() },
            };
            settle(service, id, Plan::Rollback, VmEvent::Fail, &error.to_string()).await?;
            Err(error)
        }
    }
}

/// What a guest tells of its boot.
fn phases(live: &Live) -> Vec<(String, u32)> {
    let agent = live.agent();
    let phases = agent.iter().flat_map(|agent| &agent.guest().phases);
    phases.map(|phase| (phase.name.clone(), phase.ms)).collect()
}

/// How a VM is stopped.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// How long the guest may take to shut itself down.
    pub patience: Duration,
    /// Whether it is not asked at all.
    pub force: bool,
    /// Whether even one that is to go when it stops stays, because it starts again.
    pub keep: bool,
}

/// Stops a VM: the guest is asked to sync and shut down, and after `patience` its process is ended.
/// One that does not run is no error.
///
/// # Errors
/// What could not be removed.
pub async fn stop(service: &Arc<Service>, id: VmId, how: Stop, job: &Job) -> Result<(), Error> {
    let machine = service.machines.of(id);
    machine.interrupt_start();
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    // Whatever ends it from here on, somebody asked for it.
    service.store.set_vm_wanted(id, false)?;
    if !vm.state.may_have_process() {
        return Ok(());
    }
    // A guest that stands still cannot shut itself down. One that the service paused, to keep it from harm, stays so.
    let asleep = vm.state == VmState::Paused
        && (how.force || !vm.error.is_empty() || monitor::resume(service, id).await.is_err());
    enter(service, &vm, VmEvent::Stop, "").await?;
    job.phase(Phase::Stopping);
    let ask = async {
        let Some(live) = machine.live() else { return };
        live.ending.cancel();
        if !how.force && !asleep {
            shut_down(&live, how.patience).await;
        }
    };
    fault::step(service, Some(id), Plan::Stop, StopStep::AskGuest.word(), ask).await;
    ended(service, id, Plan::Stop, VmEvent::Stopped, "").await?;
    match vm.spec.remove && !how.keep {
        true => remove(service, id, Plan::Delete).await,
        false => Ok(()),
    }
}

/// How long an agent that is well may take to say that the shutdown begins: it syncs the guest's filesystems first.
const PROMPT: Duration = Duration::from_secs(5);

/// Asks the guest to shut down and waits for its process to go. One that does not is ended by the caller.
async fn shut_down(live: &Live, patience: Duration) {
    let Some(agent) = live.agent() else { return };
    let asked = async {
        let taken = tokio::time::timeout(PROMPT, agent.shutdown(patience));
        match taken.await {
            Ok(Ok(())) => live.console.closed().await,
            Ok(Err(error)) => tracing::warn!(%error, "the guest did not take the request to shut down"),
            Err(_) => tracing::warn!("the guest's agent does not answer: ending its process"),
        }
    };
    if tokio::time::timeout(patience, asked).await.is_err() {
        tracing::warn!("the guest did not shut down in {} s: ending its process", patience.as_secs());
    }
}

/// Deletes a VM with its disk; one that runs only by `force`.
///
/// # Errors
/// [`Error::Model`] when it runs, or what could not be removed.
pub async fn delete(service: &Arc<Service>, id: VmId, force: bool, job: &Job) -> Result<(), Error> {
    let machine = service.machines.of(id);
    if force {
        machine.interrupt_start();
    }
    let _turn = machine.turn.lock().await;
    let vm = service.vm(id)?;
    job.phase(Phase::Removing);
    if force && vm.state.may_have_process() {
        enter(service, &vm, VmEvent::Stop, "").await?;
        if let Some(live) = machine.live() {
            live.ending.cancel();
            // What the guest has not written yet goes with its disk; of a volume it would be missed.
            if vm.state == VmState::Running && vm.spec.writes_volumes() {
                shut_down(&live, PROMPT).await;
            }
        }
        ended(service, id, Plan::Stop, VmEvent::Stopped, "").await?;
    }
    remove(service, id, Plan::Delete).await
}

/// Removes a VM that has no process. The caller holds its turn. `plan` is the one of which this is a part.
///
/// # Errors
/// [`Error::Model`] when it may have one, or what could not be removed.
pub async fn remove(service: &Arc<Service>, id: VmId, plan: Plan) -> Result<(), Error> {
    for step in DeleteStep::PLAN.iter().copied() {
        let removed = async {
            match step {
                DeleteStep::Mark => mark(service, id).await,
                // Its journal goes with its row: nothing that the journal names may be left on the host by then.
                DeleteStep::UndoStart => Ok(()),
                DeleteStep::RemoveFolder => remove_folder(service, id).await,
                DeleteStep::RemoveRow => Ok(service.store.remove_vm(id)?),
            }
        };
        match step {
            DeleteStep::UndoStart => take_down(service, id, plan).await?,
            _ => fault::step(service, Some(id), plan, step.word(), removed).await?,
        }
    }
    service.machines.forget(id);
    service.hide_vm(id).await;
    Ok(())
}

/// Writes down that a VM is going.
async fn mark(service: &Service, id: VmId) -> Result<(), Error> {
    let vm = service.vm(id)?;
    // A half-made one may be deleting already, when the service was killed in the middle.
    if vm.state != VmState::Deleting {
        vm.state.after(VmEvent::Delete)?;
        if let Err(error) = enter(service, &vm, VmEvent::Delete, "").await {
            // On a full disk even this cannot be written, and the VM's disk is what makes room.
            tracing::warn!(vm = %id, %error, "the beginning of a removal was not written down");
        }
    }
    Ok(())
}

async fn remove_folder(service: &Service, id: VmId) -> Result<(), Error> {
    let folder = service.vm_folder(id);
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::disk(&folder, error)),
        _ => Ok(()),
    }
}

/// Takes away what a VM had while it ran, and writes down how it ended. The caller holds its turn. `plan` is the
/// one of which this is a part.
pub(crate) async fn ended(
    service: &Arc<Service>,
    id: VmId,
    plan: Plan,
    how: VmEvent,
    why: &str,
) -> Result<(), Error> {
    let machine = service.machines.of(id);
    if let Some(live) = machine.live() {
        // What the agent said last may still be on its way, and ends with the connection.
        if live.console.is_closed()
            && let Some(agent) = live.agent()
        {
            let _ = tokio::time::timeout(LAST_WORDS, agent.closed()).await;
        }
        if let Some(exit) = live.exit() {
            machine.set_exit(Some(exit));
            service.store.set_vm_exit(id, exit)?;
        }
    }
    let result = take_down(service, id, plan).await;
    machine.set_live(None);
    match &result {
        Ok(()) => settle(service, id, plan, how, why).await?,
        Err(error) => settle(service, id, plan, VmEvent::Fail, &error.to_string()).await?,
    }
    result
}

/// Writes down how a VM ended.
async fn settle(service: &Service, id: VmId, plan: Plan, how: VmEvent, why: &str) -> Result<(), Error> {
    let written = async { enter(service, &service.vm(id)?, how, why).await };
    fault::step(service, Some(id), plan, StopStep::Settle.word(), written).await
}

/// Writes down and tells what happened to a VM, and why. The caller holds its turn.
///
/// # Errors
/// [`Error::Model`] where the table of transitions has no row.
pub(crate) async fn enter(service: &Service, vm: &VmRow, event: VmEvent, why: &str) -> Result<(), Error> {
    let state = vm.state.after(event)?;
    service.store.set_vm_state(vm.id, state, why)?;
    service.vm_changed(vm.id).await;
    Ok(())
}

/// Waits for a VM's process to go by itself (the guest powered off, or the VMM died), then cleans up.
/// Also brings the connection to the guest back when only that was lost.
pub async fn watch(service: Arc<Service>, id: VmId, live: Arc<Live>) {
    let Ok(vm) = service.vm(id) else { return };
    tokio::select! {
        () = live.console.closed() => {}
        () = live.ending.cancelled() => return,
        () = start::keep_agent(&service, (id, vm.slot), &live) => {}
        () = idle::watch(&service, id, &live) => {}
    }
    let machine = service.machines.of(id);
    let _turn = machine.turn.lock().await;
    if live.ending.is_cancelled() {
        return;
    }
    if let Err(error) = gone(&service, id, &live).await {
        tracing::error!(vm = %id, %error, "a VM that ended was not cleaned up");
    }
}

async fn gone(service: &Arc<Service>, id: VmId, live: &Live) -> Result<(), Error> {
    let vm = service.vm(id)?;
    let ran = live.since.elapsed();
    let exit = start::exit_of(service, id).await;
    let (how, why) = match &exit {
        None => (VmEvent::Stopped, String::new()),
        Some(why) => (VmEvent::Fail, why.clone()),
    };
    tracing::info!(vm = %id, name = %vm.name, why, "the VM ended by itself");
    ended(service, id, Plan::Stop, how, &why).await?;
    if vm.spec.remove {
        return remove(service, id, Plan::Delete).await;
    }
    let end = restart::end_of(vm.wanted, exit.as_deref(), service.machines.of(id).exit());
    restart::after_end(service, &vm, end, ran);
    Ok(())
}
