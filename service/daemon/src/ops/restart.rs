//! VMs that start by themselves: with the host, and again after they ended.

use super::{choose::boot_id, lifecycle};
use crate::{
    error::Error,
    jobs::{Job, NewJob},
    machines::lock,
    service::Service,
    store::VmRow,
};
use banger_agent::ExitStatus;
use banger_dbus::Dict;
use banger_model::{Backoff, End, JobKind, Restart, VmId, VmState};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// The fact under which the boot of the host is remembered on which VMs were last started with it.
const BOOT: &str = "boot";

/// How many VMs start with the host at a time: it has other things to do then, too.
const AT_ONCE: usize = 4;

/// How a VM ended, by its monitor's failure, its main process and whether anybody wanted it.
pub fn end_of(wanted: bool, failure: Option<&str>, exit: Option<ExitStatus>) -> End {
    match (wanted, failure, exit) {
        (false, ..) => End::Asked,
        (true, None, None | Some(ExitStatus::Code(0))) => End::Clean,
        (true, ..) => End::Failed,
    }
}

/// Starts a VM again that ended after it ran for `ran`, if its policy wants that, after a pause.
pub fn after_end(service: &Arc<Service>, vm: &VmRow, end: End, ran: Duration) {
    let machine = service.machines.of(vm.id);
    let pause = lock(&machine.backoff).after(vm.spec.restart, end, ran);
    if let Some(pause) = pause {
        tracing::info!(vm = %vm.id, name = %vm.name, seconds = pause.as_secs(), "the VM starts again");
        start_after(service, vm.id, pause);
    }
}

fn start_after(service: &Arc<Service>, id: VmId, pause: Duration) {
    let (service, cancel) = (service.clone(), service.machines.of(id).new_retry());
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Somebody wants something else of it by now.
            () = cancel.cancelled() => return,
        }
        let Ok(vm) = service.vm(id) else { return };
        match start(&service, &vm).await {
            Ok(()) | Err(banger_dbus::Error::Cancelled(_)) => {}
            Err(error) => {
                tracing::warn!(vm = %id, %error, "the VM did not start again");
                after_end(&service, &vm, End::Failed, Duration::ZERO);
            }
        }
    });
}

/// Starts a VM as a job of its owner's, and waits for that.
async fn start(service: &Arc<Service>, vm: &VmRow) -> Result<(), banger_dbus::Error> {
    let (working, id) = (service.clone(), vm.id);
    let new =
        NewJob { kind: JobKind::StartVm, subject: vm.name.to_string(), owner: vm.owner, cancellable: true };
    let work =
        |job: Arc<Job>| async move { lifecycle::start(&working, id, &job).await.map(|()| Dict::new()) };
    service.jobs.start(new, work).await?.wait().await.map(drop)
}

/// What starts by itself when the service does. On a new boot of the host that is every VM with `autostart`, also one
/// that was stopped before; on the same boot, those whose pause was cut short by the service's end.
///
/// # Errors
/// When the database fails.
pub async fn with_the_service(service: &Arc<Service>) -> Result<(), Error> {
    let boot = boot_id();
    let same = service.store.fact(BOOT)?.as_deref() == Some(boot.as_str());
    let vms = service.store.vms()?.into_iter().filter(|vm| begins(vm, same));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for vm in vms {
        if same {
            start_after(service, vm.id, Backoff::FIRST);
            continue;
        }
        let (service, places) = (service.clone(), places.clone());
        tokio::spawn(async move {
            let _place = places.acquire_owned().await;
            tracing::info!(vm = %vm.id, name = %vm.name, "the VM starts with the host");
            if let Err(error) = start(&service, &vm).await {
                tracing::warn!(vm = %vm.id, %error, "a VM did not start with the host");
                after_end(&service, &vm, End::Failed, Duration::ZERO);
            }
        });
    }
    Ok(service.store.remember(BOOT, &boot)?)
}

/// Whether a VM starts with the service; `same` on a boot of the host on which the service ran before.
fn begins(vm: &VmRow, same: bool) -> bool {
    let failed = vm.state == VmState::Failed || !matches!(vm.exit, None | Some(ExitStatus::Code(0)));
    match (same, vm.spec.restart) {
        _ if vm.state.may_have_process() || vm.state == VmState::Deleting => false,
        (false, _) => vm.spec.autostart,
        (true, Restart::No) => false,
        (true, Restart::OnFailure) => vm.wanted && failed,
        (true, Restart::Always) => vm.wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;

    #[test]
    fn an_end_is_what_somebody_wanted_or_what_came_of_it() {
        let (zero, one, killed) = (ExitStatus::Code(0), ExitStatus::Code(1), ExitStatus::Signal(9));
        for (wanted, failure, exit, end) in [
            (false, Some("signal 9"), Some(killed), End::Asked),
            (true, None, None, End::Clean),
            (true, None, Some(zero), End::Clean),
            (true, None, Some(one), End::Failed),
            (true, None, Some(killed), End::Failed),
            (true, Some("signal 9"), None, End::Failed),
            (true, Some("signal 9"), Some(zero), End::Failed),
        ] {
            assert_eq!(end_of(wanted, failure, exit), end, "{wanted} {failure:?} {exit:?}");
        }
    }

    #[tokio::test]
    async fn what_starts_with_the_service() {
        let bench = bench().await;
        let id = bench.add_vm("a", VmState::Stopped);
        let row = bench.service.vm(id).unwrap();
        let vm = |state, autostart, restart, wanted, exit| {
            let mut vm = VmRow { state, wanted, exit, ..row.clone() };
            (vm.spec.autostart, vm.spec.restart) = (autostart, restart);
            vm
        };
        let (stopped, failed) = (VmState::Stopped, VmState::Failed);
        // After a boot of the host, only autostart counts, and not what was wanted before.
        assert!(begins(&vm(stopped, true, Restart::No, false, None), false));
        assert!(!begins(&vm(stopped, false, Restart::Always, true, None), false));
        // On the same boot, only what was waiting for its pause.
        assert!(!begins(&vm(stopped, true, Restart::No, true, None), true));
        assert!(begins(&vm(stopped, false, Restart::Always, true, None), true));
        assert!(!begins(&vm(stopped, false, Restart::Always, false, None), true), "somebody stopped it");
        assert!(!begins(&vm(stopped, false, Restart::OnFailure, true, None), true));
        assert!(begins(&vm(failed, false, Restart::OnFailure, true, None), true));
        let one = Some(ExitStatus::Code(1));
        assert!(begins(&vm(stopped, false, Restart::OnFailure, true, one), true));
        assert!(!begins(&vm(VmState::Running, true, Restart::Always, true, None), false), "it runs");
    }
}
