//! What a VM takes, and how its guest is.

use crate::{error::Error, machines::lock, monitor, service::Service, store::VmRow};
use banger_dbus::VmStats;
use banger_model::Bytes;
use std::time::Instant;

/// Measures a VM that runs. What cannot be had at the moment is left out.
///
/// # Errors
/// [`Error::NotRunning`], and the helper's.
pub async fn stats(service: &Service, vm: &VmRow) -> Result<VmStats, Error> {
    let machine = service.machines.of(vm.id);
    let stopped = || Error::NotRunning { name: vm.name.to_string(), state: vm.state };
    let live = machine.live().ok_or_else(stopped)?;
    // A paused guest does not answer, and is not waited for.
    let paused = vm.state == banger_model::VmState::Paused;
    let figures = async { if paused { None } else { live.figures().await } };
    let (usage, disk, figures) =
        tokio::join!(service.host.vm_usage(vm.id), monitor::disk_traffic(service, vm.id), figures);
    let usage = usage?;
    let disk = disk.ok();
    let now = Instant::now();
    let before = lock(&machine.looked).replace((now, usage.cpu_us));
    Ok(VmStats {
        id: vm.id,
        name: vm.name.to_string(),
        cpu_time: usage.cpu_us,
        memory: Bytes(usage.memory),
        received: Bytes(usage.received),
        sent: Bytes(usage.sent),
        cpu_permille: before.and_then(|(then, cpu_us)| share(now - then, usage.cpu_us.checked_sub(cpu_us)?)),
        read: disk.map(|disk| Bytes(disk.read)),
        written: disk.map(|disk| Bytes(disk.written)),
        guest_uptime: figures.as_ref().map(|it| it.uptime_ms),
        guest_busy: figures.as_ref().map(|it| it.busy_ms),
        guest_memory: figures.as_ref().map(|it| Bytes(it.memory)),
        guest_memory_available: figures.as_ref().map(|it| Bytes(it.memory_available)),
        guest_disk: figures.as_ref().map(|it| Bytes(it.disk)),
        guest_disk_available: figures.as_ref().map(|it| Bytes(it.disk_available)),
        guest_tasks: figures.as_ref().map(|it| it.tasks),
        guest_connections: figures.as_ref().map(|it| it.connections),
    })
}

/// Thousandths of one processor's time; `None` for no time at all.
fn share(time: std::time::Duration, worked_us: u64) -> Option<u32> {
    let time = u64::try_from(time.as_micros()).ok().filter(|time| *time > 0)?;
    u32::try_from(worked_us.saturating_mul(1000) / time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_share_is_of_one_processor() {
        assert_eq!(share(Duration::from_secs(1), 250_000), Some(250));
        assert_eq!(share(Duration::from_secs(2), 4_000_000), Some(2000));
        assert_eq!(share(Duration::ZERO, 1), None);
        assert!(share(Duration::from_nanos(1000), u64::MAX).is_none());
    }
}
