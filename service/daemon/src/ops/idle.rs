//! Stopping VMs of which nobody wants anything any more.

use super::lifecycle::{self, Stop};
use crate::{
    jobs::{Job, NewJob},
    machines::Live,
    service::Service,
};
use banger_dbus::Dict;
use banger_model::{Idle, JobKind, Sample, VmId, VmState};
use std::{sync::Arc, time::Duration};

/// Shortest and longest time between two looks at a guest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// Looks at a guest now and then, and stops it when it has been idle for as long as its VM is told. Never returns.
pub async fn watch(service: &Arc<Service>, id: VmId, live: &Arc<Live>) {
    let machine = service.machines.of(id);
    let mut changes = machine.changes();
    let mut watched: Option<(u32, Idle)> = None;
    loop {
        let Ok(vm) = service.vm(id) else { return std::future::pending().await };
        let limit = Duration::from_secs(vm.spec.idle_stop.into());
        if limit.is_zero() || vm.state != VmState::Running {
            watched = None;
            let _ = changes.changed().await;
            continue;
        }
        let idle = match &mut watched {
            Some((seconds, idle)) if *seconds == vm.spec.idle_stop => idle,
            other => &mut other.insert((vm.spec.idle_stop, Idle::new(limit))).1,
        };
        if let Some(figures) = live.figures().await {
            let users = live.users().saturating_add(figures.connections);
            let busy = Duration::from_millis(figures.busy_ms);
            if idle.observe(Sample { at: live.since.elapsed(), busy, users }) {
                watched = None;
                tracing::info!(vm = %id, name = %vm.name, seconds = limit.as_secs(), "stopping an idle VM");
                stop(service, id, vm.name.to_string(), vm.owner).await;
            }
        }
        let pause = (limit / 4).clamp(SHORTEST, LONGEST);
        let _ = tokio::time::timeout(pause, changes.changed()).await;
    }
}

async fn stop(service: &Arc<Service>, id: VmId, subject: String, owner: banger_model::Uid) {
    let how = Stop { patience: Duration::from_secs(service.config.timeouts.stop), force: false, keep: false };
    let working = service.clone();
    let new = NewJob { kind: JobKind::StopVm, subject, owner, cancellable: false };
    let work =
        |job: Arc<Job>| async move { lifecycle::stop(&working, id, how, &job).await.map(|()| Dict::new()) };
    if let Err(error) = service.jobs.start(new, work).await {
        tracing::warn!(vm = %id, %error, "an idle VM was not stopped");
    }
}
