//! Bringing a VM up: the choice of what runs it, and the first words with its guest.

use super::{
    choose::{self, Choice},
    steps::{self, Attempt},
};
use crate::{
    console::Console, error::Error, jobs::Job, machines::Live, reach, service::Service, store::VmRow,
};
use banger_agent::Agent;
use banger_host::{HostError, Refusal, Verb};
use banger_model::{Accel, MachineSize, Phase, Plan, Slot, VmId};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Pauses between two attempts to reach an agent that does not answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A snapshot from which a guest goes on, instead of booting.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// What ran it, and has to run it again.
    pub way: Choice,
    /// Its size then.
    pub size: MachineSize,
    /// The snapshot's folder.
    pub place: PathBuf,
    /// A new machine id, for another VM than the snapshot's.
    pub machine_id: Option<String>,
}

/// Carries out the plan. On failure the journal tells what there is to undo.
///
/// # Errors
/// Why it did not come up, with the console's last lines.
pub async fn bring_up(
    service: &Arc<Service>,
    vm: &VmRow,
    job: &Arc<Job>,
    cancel: &CancellationToken,
    incoming: Option<&Incoming>,
) -> Result<(Arc<Live>, Accel), Error> {
    job.phase(Phase::Initramfs);
    let boot = service.kernels.boot(service, &vm.kernel).await?;
    let mut failed = Vec::new();
    let ways = match incoming {
        // What was written by one is read by that alone.
        Some(incoming) => vec![incoming.way],
        None => choose::choices(service, vm.spec.vmm)?,
    };
    for way in ways {
        let bound = Duration::from_secs(match way.trial && !choose::worked_last(service, way)? {
            true => service.config.timeouts.first_kvm_boot,
            false => service.config.timeouts.boot,
        });
        let attempt = Attempt { boot: boot.clone(), way, incoming, bound, job, cancel };
        match steps::carry_out(service, vm, attempt).await {
            Ok(live) => {
                choose::remember(service, way, true)?;
                // Only now is it sure that they were the reason.
                for way in failed {
                    choose::remember(service, way, false)?;
                }
                return Ok((live, way.accel));
            }
            Err(error) if way.trial && may_be_the_ways(&error) => {
                let slow = "what comes next may be slower";
                tracing::warn!(vm = %vm.id, %error, "{} on {} does not run guests on this host: {slow}", way.vmm, way.accel);
                steps::take_down(service, vm.id, Plan::Rollback).await?;
                failed.push(way);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::HostNotReady(
        "nothing on this host runs guests: set accel = \"tcg\" in the configuration".into(),
    ))
}

/// Whether a start may have failed because of what ran it: there is no /dev/kvm, the VMM ended or refused, or the guest
/// says nothing.
fn may_be_the_ways(error: &Error) -> bool {
    match error {
        Error::VmmFailed { .. } | Error::GuestSilent { .. } | Error::Monitor(_) => true,
        Error::Host(HostError::Refused { verb: Verb::StartVm, kind, .. }) => {
            matches!(kind, Refusal::HostNotReady | Refusal::Vmm)
        }
        _ => false,
    }
}

/// Connects to a VM's console and waits until its guest is ready.
///
/// # Errors
/// That its process ended, its guest was silent for `bound`, or the start was cancelled.
pub async fn first_answer(
    service: &Arc<Service>,
    vm: &VmRow,
    bound: Duration,
    cancel: &CancellationToken,
) -> Result<(Arc<Console>, Agent), Error> {
    let Ok(console) = reach::console(service, vm.id).await else {
        return Err(ended_early(service, vm, String::new()).await);
    };
    let agent = tokio::select! {
        biased;
        // A guest that did all that it had to do may have answered and be gone.
        agent = reach_agent(service, vm.id, vm.slot) => Ok(agent),
        () = console.closed() => Err(ended_early(service, vm, console.tail()).await),
        () = cancel.cancelled() => Err(Error::Cancelled),
        () = tokio::time::sleep(bound) => {
            Err(Error::GuestSilent { name: vm.name.to_string(), seconds: bound.as_secs(), console: console.tail() })
        }
    }?;
    Ok((console, agent))
}

async fn ended_early(service: &Service, vm: &VmRow, console: String) -> Error {
    let why = exit_of(service, vm.id).await.unwrap_or_else(|| "it powered off while it booted".into());
    Error::VmmFailed { name: vm.name.to_string(), why, console }
}

/// Connects to the agent of a VM and waits until its guest is ready. A connection that breaks is made again: the
/// caller knows when the VM's process is gone, or the time is over.
pub async fn reach_agent(service: &Service, id: VmId, slot: Slot) -> Agent {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match reach::agent(service, id, slot).await {
            Ok(agent) => return agent,
            Err(error) => error,
        };
        tracing::debug!(vm = %id, error, "the guest does not answer yet");
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Brings the connection to the guest back whenever it is lost. Never returns.
pub async fn keep_agent(service: &Service, (id, slot): (VmId, Slot), live: &Live) {
    loop {
        if let Some(agent) = live.agent() {
            agent.closed().await;
            live.set_agent(None);
            tracing::warn!(vm = %id, "the connection to the guest was lost");
        }
        live.set_agent(Some(reach_agent(service, id, slot).await));
    }
}

/// How often, and after which pauses, the helper is asked about a process whose sockets are closed already: they
/// are closed a moment before its end can be collected.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Why a VM's process ended; `None` when it powered off as it should, or has not ended.
pub async fn exit_of(service: &Service, id: VmId) -> Option<String> {
    let mut looks = 0;
    let status = loop {
        let status = match service.host.list_vms().await {
            Ok(all) => all.into_iter().find(|status| status.vm == id)?,
            Err(error) => return Some(error.to_string()),
        };
        looks += 1;
        if !status.running || looks == LOOKS {
            break status;
        }
        tokio::time::sleep(PAUSE).await;
    };
    match status.exit.as_deref() {
        // What "unknown" hides happened while the helper was down; the guest may well have powered off.
        Some("exit code 0" | "unknown") | None => None,
        Some(exit) if status.stderr_tail.is_empty() => Some(format!("its process ended with {exit}")),
        Some(exit) => Some(format!("its process ended with {exit}: {}", status.stderr_tail.trim())),
    }
}
