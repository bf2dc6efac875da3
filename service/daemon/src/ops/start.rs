//! Bringing a VM up: the choice of what runs it, and the first words with its guest.

use super::steps::{self, Attempt};
use crate::{console::Console, error::Error, jobs::Job, machines::Live, service::Service, store::VmRow};
use banger_agent::Agent;
use banger_host::{HostError, Refusal, Verb};
use banger_model::{Accel, Phase, Plan, VmId};
use std::{sync::Arc, time::Duration};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// Pauses between two attempts to reach an agent that does not answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The fact under which it is remembered whether KVM runs guests on this boot of the host.
const KVM: &str = "kvm";

/// Carries out the plan. On failure the journal tells what there is to undo.
///
/// # Errors
/// Why it did not come up, with the console's last lines.
pub async fn bring_up(
    service: &Arc<Service>,
    vm: &VmRow,
    job: &Job,
    cancel: &CancellationToken,
) -> Result<(Arc<Live>, Accel), Error> {
    job.phase(Phase::Initramfs);
    let boot = service.kernels.boot(service, &vm.kernel).await?;
    let mut kvm_failed = false;
    for (accel, trial) in choices(service)? {
        let bound = Duration::from_secs(match trial {
            true => service.config.timeouts.first_kvm_boot,
            false => service.config.timeouts.boot,
        });
        let attempt = Attempt { boot: &boot, accel, bound, job, cancel, pid: 0, live: None };
        match steps::carry_out(service, vm, attempt).await {
            Ok(live) => {
                match (accel, kvm_failed) {
                    (Accel::Kvm, _) => service.store.remember(KVM, &format!("works {}", boot_id()))?,
                    // Only now is it sure that KVM was the reason.
                    (Accel::Tcg, true) => service.store.remember(KVM, &format!("fails {}", boot_id()))?,
                    (Accel::Tcg, false) => {}
                }
                return Ok((live, accel));
            }
            Err(error) if trial && may_be_kvms(&error) => {
                tracing::warn!(vm = %vm.id, %error, "KVM does not run guests on this host: emulating, which is slow");
                steps::take_down(service, vm.id, Plan::Rollback).await?;
                kvm_failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::HostNotReady(
        "nothing on this host runs guests: set accel = \"tcg\" in the configuration".into(),
    ))
}

/// Whether a start may have failed because of KVM: there is no /dev/kvm, QEMU ended, or the guest says nothing.
fn may_be_kvms(error: &Error) -> bool {
    match error {
        Error::VmmFailed { .. } | Error::GuestSilent { .. } => true,
        Error::Host(HostError::Refused { verb: Verb::StartVm, kind, .. }) => {
            matches!(kind, Refusal::HostNotReady | Refusal::Vmm)
        }
        _ => false,
    }
}

/// Whether KVM runs guests on this boot of the host; none before it has been tried.
///
/// # Errors
/// When the database fails.
pub fn kvm_works(service: &Service) -> Result<Option<bool>, Error> {
    let remembered = service.store.fact(KVM)?;
    let verdict = remembered.as_deref().and_then(|fact| fact.split_once(' '));
    Ok(verdict.filter(|(_, at)| *at == boot_id()).map(|(verdict, _)| verdict == "works"))
}

/// What to try, in order; `true` for a trial, after whose failure comes the next. Whether there is a /dev/kvm is for the
/// helper to say: this service sees no devices.
fn choices(service: &Service) -> Result<Vec<(Accel, bool)>, Error> {
    if let Some(accel) = service.config.accel.forced() {
        return Ok(vec![(accel, false)]);
    }
    Ok(match kvm_works(service)? {
        Some(true) => vec![(Accel::Kvm, false)],
        Some(false) => vec![(Accel::Tcg, false)],
        None => vec![(Accel::Kvm, true), (Accel::Tcg, false)],
    })
}

/// Tells one boot of the host from the next (random(4)): a module may be there after it that was not before.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
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
    let Ok(console) = connect_console(service, vm.id).await else {
        return Err(ended_early(service, vm, String::new()).await);
    };
    let agent = tokio::select! {
        biased;
        // A guest that did all that it had to do may have answered and be gone.
        agent = reach_agent(service, vm.id) => Ok(agent),
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

/// Connects to the serial port of a VM.
///
/// # Errors
/// When its process is gone.
pub async fn connect_console(service: &Service, id: VmId) -> Result<Arc<Console>, Error> {
    let path = service.socket(id, "console.sock");
    let port = UnixStream::connect(&path).await.map_err(|e| Error::disk(&path, e))?;
    let log = service.console_log(id);
    Console::take(port, &log, service.config.console.log.0).map_err(|e| Error::disk(&log, e))
}

/// Connects to the agent of a VM and waits until its guest is ready. A connection that breaks is made again: the
/// caller knows when the VM's process is gone, or the time is over.
async fn reach_agent(service: &Service, id: VmId) -> Agent {
    let path = service.socket(id, "agent.sock");
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match UnixStream::connect(&path).await {
            Ok(port) => match Agent::connect(port).await {
                Ok(agent) => return agent,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::debug!(vm = %id, error, "the guest does not answer yet");
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Brings the connection to the guest back whenever it is lost. Never returns.
pub async fn keep_agent(service: &Service, id: VmId, live: &Live) {
    loop {
        if let Some(agent) = live.agent() {
            agent.closed().await;
            live.set_agent(None);
            tracing::warn!(vm = %id, "the connection to the guest was lost");
        }
        live.set_agent(Some(reach_agent(service, id).await));
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
