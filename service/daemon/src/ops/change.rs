//! Changing what a VM is: its size, its name, when it starts and stops by itself.

use super::network;
use crate::{
    error::Error,
    service::Service,
    store::{VmRow, VmSpec},
};
use banger_model::{Bytes, Cpus, NetworkMode, PublishedPort, Restart, VmId, VmName};
use std::{sync::Arc, time::Duration};

/// How long an operation that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time without use after which a VM can be stopped, in seconds: a year.
const MOST_IDLE: u32 = 365 * 24 * 3600;

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Its name.
    pub name: Option<VmName>,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// The disk, which only grows.
    pub disk: Option<Bytes>,
    /// Whether it starts with the host.
    pub autostart: Option<bool>,
    /// Whether it starts again when it ended.
    pub restart: Option<Restart>,
    /// Seconds without use after which it is stopped; 0 for never.
    pub idle_stop: Option<u32>,
    /// Whether it goes by itself when it stops.
    pub remove: Option<bool>,
    /// Which other VMs it reaches.
    pub network: Option<NetworkMode>,
    /// Whether it reaches beyond the host.
    pub nat: Option<bool>,
    /// Its ports that others reach: all of them.
    pub ports: Option<Vec<PublishedPort>>,
}

impl Change {
    /// What the VM is after the change, and the words for what takes effect at its next start.
    fn apply(&self, vm: &VmRow) -> (VmName, VmSpec, Vec<&'static str>) {
        let (name, mut spec) = (self.name.clone().unwrap_or_else(|| vm.name.clone()), vm.spec.clone());
        spec.size.cpus = self.cpus.map_or(spec.size.cpus, Cpus);
        spec.size.memory = self.memory.unwrap_or(spec.size.memory);
        spec.size.disk = self.disk.unwrap_or(spec.size.disk);
        spec.autostart = self.autostart.unwrap_or(spec.autostart);
        spec.restart = self.restart.unwrap_or(spec.restart);
        spec.idle_stop = self.idle_stop.unwrap_or(spec.idle_stop);
        spec.remove = self.remove.unwrap_or(spec.remove);
        let rules = &mut spec.network;
        rules.mode = self.network.unwrap_or(rules.mode);
        rules.nat = self.nat.unwrap_or(rules.nat);
        rules.ports = self.ports.clone().unwrap_or_else(|| std::mem::take(&mut rules.ports));
        let reaches = |spec: &VmSpec| (spec.network.mode, spec.network.nat);
        let elsewhere = reaches(&spec) != reaches(&vm.spec);
        let (old, new) = (vm.spec.size, spec.size);
        let later = [
            // The guest's own idea of its name.
            ("name", name != vm.name),
            ("cpus", new.cpus != old.cpus),
            ("memory", new.memory != old.memory),
            ("disk", new.disk != old.disk),
            // Its packets may at once what they are to; whom the guest asks for names is settled when it boots.
            ("name-servers", elsewhere),
        ];
        let later = later.into_iter().filter(|(_, other)| *other && vm.state.may_have_process());
        (name, spec, later.map(|(word, _)| word).collect())
    }
}

/// Checks what does not depend on the host.
///
/// # Errors
/// [`Error::Spec`].
pub fn check(spec: &VmSpec) -> Result<(), Error> {
    if spec.remove && spec.restart != Restart::No {
        return Err(Error::Spec(
            "a VM that is deleted when it stops cannot start again: leave out remove or restart".into(),
        ));
    }
    if spec.idle_stop > MOST_IDLE {
        return Err(Error::Spec(format!(
            "idle-stop is {}, outside 0 to {MOST_IDLE} seconds",
            spec.idle_stop
        )));
    }
    Ok(())
}

/// Changes a VM; gives the words for what takes effect at its next start.
///
/// # Errors
/// What is not possible, [`crate::store::StoreError::Taken`], or [`Error::Busy`] while something else is done with it.
pub async fn change(service: &Arc<Service>, id: VmId, change: &Change) -> Result<Vec<&'static str>, Error> {
    let machine = service.machines.of(id);
    let turn = tokio::time::timeout(PATIENCE, machine.turn.lock()).await;
    let _turn = turn.map_err(|_| Error::Busy { what: "VM" })?;
    let vm = service.vm(id)?;
    let (name, spec, later) = change.apply(&vm);
    // A disk that shrank would lose what is at its end.
    service.limits.check(&spec.size, vm.spec.size.disk)?;
    check(&spec)?;
    network::with(service, &vm, &spec.network, || service.store.change_vm(id, &name, &spec)).await?;
    if name != vm.name {
        service.vm_renamed(id).await;
    }
    service.vm_changed(id).await;
    machine.changed();
    Ok(later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, SIZE, bench};
    use banger_model::VmState;

    async fn try_to(bench: &Bench, id: VmId, wanted: Change) -> Result<Vec<&'static str>, Error> {
        change(&bench.service, id, &wanted).await
    }

    #[tokio::test]
    async fn what_needs_a_start_says_so_and_only_when_it_runs() {
        let bench = bench().await;
        let wanted = Change {
            name: Some("b".parse().unwrap()),
            cpus: Some(2),
            memory: Some(Bytes::mib(256)),
            disk: Some(Bytes(SIZE.0 * 2)),
            autostart: Some(true),
            restart: Some(Restart::Always),
            idle_stop: Some(60),
            remove: None,
            network: Some(NetworkMode::Shared),
            nat: Some(true),
            ports: Some(vec!["8080:80".parse().unwrap()]),
        };
        for (state, later) in [
            (VmState::Stopped, &[][..]),
            (VmState::Running, &["name", "cpus", "memory", "disk", "name-servers"][..]),
        ] {
            let id = bench.add_vm("a", state);
            if state == VmState::Running {
                let slot = bench.service.vm(id).unwrap().slot;
                bench.service.host.make_tap(id, slot, bench.service.subnet()).await.unwrap();
            }
            assert_eq!(try_to(&bench, id, wanted.clone()).await.unwrap(), later, "{state}");
            let vm = bench.service.vm(id).unwrap();
            assert_eq!((vm.name.as_str(), vm.spec.size.cpus.0, vm.spec.size.disk.0), ("b", 2, SIZE.0 * 2));
            assert!(vm.spec.network.nat && vm.spec.network.ports.len() == 1);
            assert!(vm.spec.autostart && vm.spec.restart == Restart::Always && vm.spec.idle_stop == 60);
            assert_eq!(try_to(&bench, id, wanted.clone()).await.unwrap(), [""; 0], "again: nothing is other");
            bench.service.store.remove_vm(id).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_not_possible_changes_nothing() {
        let bench = bench().await;
        bench.add_vm("taken", VmState::Stopped);
        let id = bench.add_vm("a", VmState::Stopped);
        let before = bench.service.vm(id).unwrap();
        for wanted in [
            Change { name: Some("taken".parse().unwrap()), cpus: Some(2), ..Change::default() },
            Change { cpus: Some(0), ..Change::default() },
            Change { cpus: Some(5), ..Change::default() },
            Change { memory: Some(Bytes::mib(1)), ..Change::default() },
            Change { memory: Some(Bytes(u64::MAX)), ..Change::default() },
            Change { disk: Some(Bytes(SIZE.0 - 1)), ..Change::default() },
            Change { idle_stop: Some(u32::MAX), ..Change::default() },
            Change { remove: Some(true), restart: Some(Restart::Always), ..Change::default() },
        ] {
            assert!(try_to(&bench, id, wanted.clone()).await.is_err(), "{wanted:?}");
            let after = bench.service.vm(id).unwrap();
            assert_eq!((&after.name, &after.spec), (&before.name, &before.spec), "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn a_disk_grows_and_never_shrinks() {
        let bench = bench().await;
        let id = bench.add_vm("a", VmState::Stopped);
        let length = || std::fs::metadata(bench.service.vm_folder(id).join("disk.img")).unwrap().len();
        let mut vm = bench.service.vm(id).unwrap();
        for (size, expected) in [(SIZE.0 * 3, SIZE.0 * 3), (SIZE.0, SIZE.0 * 3)] {
            vm.spec.size.disk = Bytes(size);
            bench.service.disk(&vm).be_there(&bench.service, &vm, &bench.job().await).await.unwrap();
            assert_eq!(length(), expected);
        }
    }
}
