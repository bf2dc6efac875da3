//! After a start: what the database, the host and the folders say is made to agree. The service may have been
//! killed, or the host may have lost power, at any moment before.

use crate::{
    error::Error,
    fault,
    machines::Live,
    monitor,
    ops::{lifecycle, network, start, steps::take_down},
    reach,
    service::Service,
    store::VmRow,
};
use banger_host::VmStatus;
use banger_model::{Plan, RecoverStep, VmEvent, VmId, VmState};
use std::{collections::HashSet, path::Path, sync::Arc};

/// Brings everything to a true state. Afterwards every object can be shown.
///
/// # Errors
/// When the database, the helper or a folder fails: then the service must not go on.
pub async fn reconcile(service: &Arc<Service>) -> Result<(), Error> {
    let state = &service.config.state;
    for folder in ["images", "kernels", "vms", "volumes"] {
        let path = state.join(folder);
        std::fs::create_dir_all(&path).map_err(|e| Error::disk(&path, e))?;
    }
    let images = service.store.images()?.iter().map(|i| i.id.to_string()).collect();
    sweep(&service.images(), &images)?;
    let kernels = service.store.kernels()?.iter().map(|k| k.id.to_string()).collect();
    sweep(&state.join("kernels"), &kernels)?;
    network::choose(service).await?;
    let volumes = service.store.volumes()?.iter().map(|volume| volume.id.to_string()).collect();
    sweep(&service.volumes(), &volumes)?;
    machines(service).await?;
    let vms = service.store.vms()?.iter().map(|vm| vm.id.to_string()).collect();
    moment(service, None, RecoverStep::Sweep, async {
        for vm in service.store.vms()? {
            crate::snapshots::sweep(service, vm.id);
        }
        sweep(&service.vms(), &vms)
    })
    .await
}

/// One step of the recovery.
async fn moment<T>(
    service: &Service,
    vm: Option<VmId>,
    step: RecoverStep,
    act: impl Future<Output = T>,
) -> T {
    fault::step(service, vm, Plan::Recover, step.word(), act).await
}

/// Removes every folder that no row names: what was staged, or being removed, when the service ended.
fn sweep(folder: &Path, known: &HashSet<String>) -> Result<(), Error> {
    let failed = |e| Error::disk(folder, e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
            continue;
        }
        let path = entry.path();
        tracing::info!(path = %path.display(), "removing what was left half-made");
        let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.map_err(|e| Error::disk(&path, e))?;
    }
    Ok(())
}

async fn machines(service: &Arc<Service>) -> Result<(), Error> {
    let vms = service.store.vms()?;
    let on_host = service.host.list_vms().await?;
    for status in on_host.iter().filter(|status| !vms.iter().any(|vm| vm.id == status.vm)) {
        tracing::warn!(vm = %status.vm, "ending a VM that nobody knows");
        let end = service.host.stop_vm(status.vm);
        if let Err(error) = moment(service, Some(status.vm), RecoverStep::EndUnknown, end).await {
            tracing::error!(vm = %status.vm, %error, "a VM that nobody knows is still there");
        }
    }
    for vm in vms {
        let status = on_host.iter().find(|status| status.vm == vm.id);
        if let Err(error) = settle(service, &vm, status).await {
            // One VM that cannot be helped must not keep the others from being served.
            tracing::error!(vm = %vm.id, name = %vm.name, %error, "a VM was not brought to a true state");
        }
    }
    Ok(())
}

/// What to do about a VM, decided without doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing: it is as written.
    Leave,
    /// Its process lives: connect to it again.
    Adopt,
    /// Its process is gone, or has to go: write that down.
    End,
    /// It was never finished, or was going: remove it.
    Remove,
}

fn verdict(vm: &VmRow, whole: bool, lives: bool) -> Verdict {
    match vm.state {
        _ if !whole => Verdict::Remove,
        VmState::Deleting => Verdict::Remove,
        VmState::Running | VmState::Paused if lives => Verdict::Adopt,
        VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping => Verdict::End,
        VmState::Created | VmState::Stopped | VmState::Failed => Verdict::Leave,
    }
}

async fn settle(service: &Arc<Service>, vm: &VmRow, status: Option<&VmStatus>) -> Result<(), Error> {
    let lives = status.is_some_and(|status| status.running);
    // A removal that could not be written down, because the disk was full, begins with the VM's disk.
    let whole = vm.has_disk && service.disk(vm).path.exists();
    let verdict = verdict(vm, whole, lives);
    if status.is_some() && verdict != Verdict::Adopt {
        // The helper holds something of it, whatever is written here: the journal then says so, and it is undone.
        service.store.begin_steps(vm.id)?;
    }
    match verdict {
        Verdict::Adopt => {
            match moment(service, Some(vm.id), RecoverStep::Adopt, adopt(service, vm, status)).await {
                Ok(()) => Ok(()),
                // It ended just now, or nobody can reach it any more.
                Err(error) => end(service, vm, Some(error.to_string())).await,
            }
        }
        Verdict::Leave => take_down(service, vm.id, Plan::Recover).await,
        Verdict::Remove => {
            service.store.set_vm_state(vm.id, VmState::Deleting, "")?;
            lifecycle::remove(service, vm.id, Plan::Recover).await
        }
        Verdict::End => {
            let why = match vm.state {
                VmState::Starting => Some("banger ended while the VM started: start it again".to_owned()),
                VmState::Running | VmState::Paused => start::exit_of(service, vm.id).await,
                _ => None,
            };
            end(service, vm, why).await
        }
    }
}

/// Takes away what a VM had, and the VM itself if it was to go when it stops. `why` it failed, if it did.
async fn end(service: &Arc<Service>, vm: &VmRow, why: Option<String>) -> Result<(), Error> {
    let how = if why.is_some() { VmEvent::Fail } else { VmEvent::Stopped };
    lifecycle::ended(service, vm.id, Plan::Recover, how, why.as_deref().unwrap_or_default()).await?;
    match vm.spec.remove {
        true => lifecycle::remove(service, vm.id, Plan::Recover).await,
        false => Ok(()),
    }
}

/// Connects to a VM that went on without the service.
async fn adopt(service: &Arc<Service>, vm: &VmRow, status: Option<&VmStatus>) -> Result<(), Error> {
    let pid = status.and_then(|status| status.pid).unwrap_or_default();
    let console = reach::console(service, vm.id).await?;
    // The watcher connects to the agent: a guest that does not answer must not hold the service up.
    agree(service, vm).await;
    let live = Live::new(pid, console, None);
    service.machines.of(vm.id).set_live(Some(live.clone()));
    tokio::spawn(lifecycle::watch(service.clone(), vm.id, live));
    tracing::info!(vm = %vm.id, name = %vm.name, pid, "the VM runs on");
    Ok(())
}

/// The service may have been killed between the VM's pause and its row, or the other way round: the monitor knows.
async fn agree(service: &Arc<Service>, vm: &VmRow) {
    let event = match (monitor::is_paused(service, vm.id).await, vm.state) {
        (Ok(true), VmState::Running) => VmEvent::Pause,
        (Ok(false), VmState::Paused) => VmEvent::Resume,
        (Ok(_), _) => return,
        (Err(error), _) => {
            tracing::warn!(vm = %vm.id, %error, "whether a VM is paused is not known");
            return;
        }
    };
    if let Err(error) = lifecycle::enter(service, vm, event, "").await {
        tracing::error!(vm = %vm.id, %error, "a VM is not as it is written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::VmSpec;
    use banger_model::{Bytes, Cpus, ImageId, MachineSize, Restart, Slot, Uid};

    fn vm(state: VmState) -> VmRow {
        let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(512), disk: Bytes::gib(1) };
        VmRow {
            id: VmId::from_bits(1),
            name: "a".parse().unwrap(),
            owner: Uid(1000),
            image: ImageId::from_bits(1),
            kernel: "host".into(),
            spec: VmSpec {
                size,
                remove: false,
                main: true,
                command: Vec::new(),
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
            },
            slot: Slot::try_from(0).unwrap(),
            state,
            error: String::new(),
            accel: None,
            created: 0,
            started: 0,
            has_disk: true,
            boot: Vec::new(),
            exit: None,
            wanted: false,
        }
    }

    #[test]
    fn a_vm_is_adopted_only_when_it_ran_and_lives() {
        for state in VmState::ALL {
            for lives in [true, false] {
                let adopted = verdict(&vm(state), true, lives) == Verdict::Adopt;
                let ran = matches!(state, VmState::Running | VmState::Paused);
                assert_eq!(adopted, ran && lives, "{state} {lives}");
            }
        }
    }

    #[test]
    fn no_state_with_a_process_is_left_as_written() {
        for state in VmState::ALL.into_iter().filter(|state| state.may_have_process()) {
            assert_eq!(verdict(&vm(state), true, false), Verdict::End, "{state}");
        }
    }

    #[test]
    fn what_was_never_finished_is_removed() {
        for state in VmState::ALL {
            assert_eq!(verdict(&vm(state), false, true), Verdict::Remove, "{state}");
        }
        assert_eq!(verdict(&vm(VmState::Deleting), true, false), Verdict::Remove);
    }
}
