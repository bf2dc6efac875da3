//! A host for tests: the same rules about order, and nothing behind them.

use crate::{Answer, Host, HostError, NameRouting, Refusal, SnapshotDisk, StartVm, Verb, VmStatus, VmUsage};
use banger_model::{DiskNumber, Firewall, KernelName, MachineSize, NetworkRules, Slot, Subnet, Used, VmId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs::File, os::fd::OwnedFd, path::PathBuf};

/// A host that keeps its VMs in a table.
///
/// Verbs fail as the real ones do when they come in the wrong order, and as scripted by
/// [`FakeHost::fail_next`]. What was asked is in [`FakeHost::calls`], what is left in [`FakeHost::vm`].
#[derive(Debug, Default)]
pub struct FakeHost {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<VmId, FakeVm>,
    kernels: HashMap<String, PathBuf>,
    failures: HashMap<Verb, VecDeque<(Refusal, String)>>,
    calls: Vec<(Verb, Option<VmId>)>,
    used: Vec<Used>,
    pids: u32,
    device_mapper: bool,
    /// The pipe of whoever wants names routed.
    names: Option<OwnedFd>,
}

/// What the fake host holds of a VM.
#[derive(Debug)]
pub struct FakeVm {
    /// The VM's slot.
    pub slot: Slot,
    /// Each disk and whether it is writable, while it would be attached.
    pub disks: BTreeMap<DiskNumber, (File, bool)>,
    /// Whether there would be a TAP.
    pub tap: bool,
    /// What its packets may, while that is allowed.
    pub rules: Option<NetworkRules>,
    /// The VM's size, kernel and initramfs, once started.
    pub started: Option<(MachineSize, File, File)>,
    /// Its pid, once started.
    pub pid: Option<u32>,
    /// How it ended, once it has.
    pub exit: Option<String>,
    /// What it would have written to its standard error.
    pub stderr_tail: String,
}

fn refused(verb: Verb, kind: Refusal, message: impl Into<String>) -> HostError {
    HostError::Refused { verb, kind, message: message.into() }
}

impl FakeHost {
    /// A host without VMs or kernels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next call of `verb` fail before it does anything. Several calls queue up.
    pub fn fail_next(&self, verb: Verb, kind: Refusal, message: &str) {
        self.lock().failures.entry(verb).or_default().push_back((kind, message.into()));
    }

    /// Serves the file at `path` as the kernel of `release`.
    pub fn add_kernel(&self, release: &str, path: impl Into<PathBuf>) {
        self.lock().kernels.insert(release.into(), path.into());
    }

    /// Lets the host use these addresses, and no others.
    pub fn set_used(&self, used: Vec<Used>) {
        self.lock().used = used;
    }

    /// Ends a VM by itself, as a guest that powers off does.
    pub fn exit(&self, vm: VmId, exit: &str, stderr_tail: &str) {
        if let Some(vm) = self.lock().vms.get_mut(&vm) {
            vm.exit = Some(exit.into());
            vm.stderr_tail = stderr_tail.into();
            vm.disks.clear();
            vm.tap = false;
        }
    }

    /// Ends the helper and starts it again: devices that no process has are gone, and so is what it knew of
    /// processes that have ended, and of whoever wanted names routed.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.names = None;
        state.vms.retain(|_, vm| vm.pid.is_some() && vm.exit.is_none());
    }

    /// Every verb that was called, failed ones too, in order.
    pub fn calls(&self) -> Vec<(Verb, Option<VmId>)> {
        self.lock().calls.clone()
    }

    /// Looks at what is held of a VM; `None` if that is nothing.
    pub fn vm<T>(&self, vm: VmId, look: impl FnOnce(&FakeVm) -> T) -> Option<T> {
        self.lock().vms.get(&vm).map(look)
    }

    /// Whether nothing is held of any VM.
    pub fn is_empty(&self) -> bool {
        self.lock().vms.is_empty()
    }

    /// Whether it says that device-mapper can be used. It cannot at first.
    pub fn set_device_mapper(&self, there: bool) {
        self.lock().device_mapper = there;
    }

    fn attach(
        &self,
        verb: Verb,
        (vm, slot): (VmId, Slot),
        disk: DiskNumber,
        (file, writable): (OwnedFd, bool),
    ) -> Answer<'_, ()> {
        self.call(verb, Some(vm), move |state| {
            let held = state.claim(verb, vm, slot)?;
            if held.pid.is_some() {
                return Err(refused(verb, Refusal::WrongState, "the VM has been started"));
            }
            held.disks.entry(disk).or_insert((File::from(file), writable));
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T: Send + 'static>(
        &self,
        verb: Verb,
        vm: Option<VmId>,
        act: impl FnOnce(&mut State) -> Result<T, HostError> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let mut state = self.lock();
            state.calls.push((verb, vm));
            match state.failures.get_mut(&verb).and_then(VecDeque::pop_front) {
                Some((kind, message)) => Err(refused(verb, kind, message)),
                None => act(&mut state),
            }
        })
    }
}

impl State {
    fn claim(&mut self, verb: Verb, vm: VmId, slot: Slot) -> Result<&mut FakeVm, HostError> {
        let other = self.vms.iter().any(|(id, other)| (*id == vm) != (other.slot == slot));
        if other {
            return Err(refused(verb, Refusal::SlotTaken, "the slot is taken"));
        }
        Ok(self.vms.entry(vm).or_insert_with(|| FakeVm {
            slot,
            disks: BTreeMap::new(),
            tap: false,
            rules: None,
            started: None,
            pid: None,
            exit: None,
            stderr_tail: String::new(),
        }))
    }

    fn forget_if_empty(&mut self, vm: VmId) {
        self.vms.retain(|id, held| *id != vm || !held.disks.is_empty() || held.tap || held.pid.is_some());
    }
}

impl FakeVm {
    fn unless_running(&self, verb: Verb) -> Result<(), HostError> {
        if self.pid.is_some() && self.exit.is_none() {
            return Err(refused(verb, Refusal::WrongState, "the VM runs: stop it first"));
        }
        Ok(())
    }
}

impl Host for FakeHost {
    fn hello(&self) -> Answer<'_, ()> {
        self.call(Verb::Hello, None, |_| Ok(()))
    }

    fn open_host_kernel(&self, release: KernelName) -> Answer<'_, File> {
        let verb = Verb::OpenHostKernel;
        self.call(verb, None, move |state| {
            let missing = || refused(verb, Refusal::NotFound, format!("there is no kernel {release}"));
            let path = state.kernels.get(&release.to_string()).ok_or_else(missing)?;
            File::open(path).map_err(|error| refused(verb, Refusal::System, error.to_string()))
        })
    }

    fn probe_disks(&self) -> Answer<'_, Option<String>> {
        self.call(Verb::ProbeDisks, None, |state| {
            Ok((!state.device_mapper).then(|| "this host only pretends".to_owned()))
        })
    }

    fn attach_loop(
        &self,
        vm: VmId,
        slot: Slot,
        disk: DiskNumber,
        writable: bool,
        file: OwnedFd,
    ) -> Answer<'_, ()> {
        self.attach(Verb::AttachLoop, (vm, slot), disk, (file, writable))
    }

    fn attach_snapshot(&self, vm: VmId, slot: Slot, snapshot: SnapshotDisk) -> Answer<'_, ()> {
        self.attach(Verb::AttachSnapshot, (vm, slot), DiskNumber::ROOT, (snapshot.cow, true))
    }

    fn detach_disk(&self, vm: VmId, disk: DiskNumber) -> Answer<'_, ()> {
        self.call(Verb::DetachDisk, Some(vm), move |state| {
            if let Some(held) = state.vms.get_mut(&vm) {
                held.unless_running(Verb::DetachDisk)?;
                held.disks.remove(&disk);
            }
            state.forget_if_empty(vm);
            Ok(())
        })
    }

    fn list_networks(&self) -> Answer<'_, (Vec<Used>, Vec<Firewall>)> {
        self.call(Verb::ListNetworks, None, |state| Ok((state.used.clone(), Vec::new())))
    }

    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Answer<'_, ()> {
        self.call(Verb::OpenNetwork, Some(vm), move |state| match state.vms.get_mut(&vm) {
            Some(held) if held.tap => {
                held.rules = Some(rules);
                Ok(())
            }
            _ => Err(refused(Verb::OpenNetwork, Refusal::WrongState, "it has no TAP")),
        })
    }

    fn close_network(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Verb::CloseNetwork, Some(vm), move |state| {
            if let Some(held) = state.vms.get_mut(&vm) {
                held.rules = None;
            }
            Ok(())
        })
    }

    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Answer<'_, ()> {
        self.call(Verb::MakeTap, Some(vm), move |state| {
            if let Some(conflict) = subnet.conflict(&state.used) {
                return Err(refused(Verb::MakeTap, Refusal::Conflict, conflict.to_string()));
            }
            let held = state.claim(Verb::MakeTap, vm, slot)?;
            if held.pid.is_some() {
                return Err(refused(Verb::MakeTap, Refusal::WrongState, "the VM has been started"));
            }
            held.tap = true;
            Ok(())
        })
    }

    fn remove_tap(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Verb::RemoveTap, Some(vm), move |state| {
            if let Some(held) = state.vms.get_mut(&vm) {
                held.unless_running(Verb::RemoveTap)?;
                held.tap = false;
            }
            state.forget_if_empty(vm);
            Ok(())
        })
    }

    fn start_vm(&self, start: StartVm) -> Answer<'_, u32> {
        let verb = Verb::StartVm;
        self.call(verb, Some(start.vm), move |state| {
            state.pids += 1;
            let pid = 1000 + state.pids;
            let held = state.vms.get_mut(&start.vm).filter(|held| held.slot == start.slot);
            match held {
                Some(held)
                    if held.pid.is_none() && held.tap && held.disks.contains_key(&DiskNumber::ROOT) =>
                {
                    held.started = Some((start.size, start.kernel.into(), start.initrd.into()));
                    held.pid = Some(pid);
                    Ok(pid)
                }
                _ => Err(refused(verb, Refusal::WrongState, "it runs, or has no disk or TAP")),
            }
        })
    }

    fn stop_vm(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Verb::StopVm, Some(vm), move |state| {
            state.vms.remove(&vm);
            Ok(())
        })
    }

    fn bind_dns(&self, _: Subnet, _: u16) -> Answer<'_, Vec<OwnedFd>> {
        self.call(Verb::BindDns, None, |_| Ok(Vec::new()))
    }

    fn route_dns(&self, _: Subnet, _: u16, owner: OwnedFd) -> Answer<'_, ()> {
        self.call(Verb::RouteDns, None, |state| {
            state.names = Some(owner);
            Ok(())
        })
    }

    fn show_dns(&self) -> Answer<'_, (NameRouting, String)> {
        self.call(Verb::ShowDns, None, |state| match state.names {
            Some(_) => Ok((NameRouting::Routed, String::new())),
            None => Ok((NameRouting::Off, String::new())),
        })
    }

    fn vm_usage(&self, vm: VmId) -> Answer<'_, VmUsage> {
        self.call(Verb::VmUsage, Some(vm), move |state| {
            match state.vms.get(&vm).is_some_and(|held| held.pid.is_some() && held.exit.is_none()) {
                true => Ok(VmUsage::default()),
                false => Err(refused(Verb::VmUsage, Refusal::WrongState, "the VM does not run")),
            }
        })
    }

    fn connect_guest(&self, vm: VmId, _port: u32) -> Answer<'_, OwnedFd> {
        self.call(Verb::ConnectGuest, Some(vm), |_| {
            Err(refused(Verb::ConnectGuest, Refusal::WrongState, "nobody listens there"))
        })
    }

    fn list_vms(&self) -> Answer<'_, Vec<VmStatus>> {
        self.call(Verb::ListVms, None, |state| {
            let status = |(vm, held): (&VmId, &FakeVm)| VmStatus {
                vm: *vm,
                slot: held.slot,
                pid: held.pid,
                running: held.pid.is_some() && held.exit.is_none(),
                exit: held.exit.clone(),
                stderr_tail: held.stderr_tail.clone(),
            };
            Ok(state.vms.iter().map(status).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VmmKind;
    use banger_model::{Accel, Bytes, Cpus};

    const VM: VmId = VmId::from_bits(1);

    fn nothing() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn slot(number: u16) -> Slot {
        Slot::try_from(number).unwrap()
    }

    fn subnet() -> Subnet {
        Subnet::choose(None, &[], 1).unwrap()
    }

    fn start() -> StartVm {
        StartVm {
            vm: VM,
            slot: slot(1),
            size: MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::gib(1) },
            accel: Accel::Tcg,
            vmm: VmmKind::Qemu,
            manner: crate::Manner::default(),
            snapshot: None,
            kernel: nothing(),
            initrd: nothing(),
        }
    }

    #[tokio::test]
    async fn it_keeps_the_real_ones_order() {
        let host = FakeHost::new();
        let kind = |result: Result<u32, HostError>| result.unwrap_err().refusal();
        assert_eq!(kind(host.start_vm(start()).await), Some(Refusal::WrongState));
        host.attach_loop(VM, slot(1), DiskNumber::ROOT, true, nothing()).await.unwrap();
        host.make_tap(VM, slot(1), subnet()).await.unwrap();
        let other = VmId::from_bits(2);
        assert_eq!(
            host.make_tap(other, slot(1), subnet()).await.unwrap_err().refusal(),
            Some(Refusal::SlotTaken)
        );
        let pid = host.start_vm(start()).await.unwrap();
        assert_eq!(kind(host.start_vm(start()).await), Some(Refusal::WrongState));
        assert_eq!(
            host.detach_disk(VM, DiskNumber::ROOT).await.unwrap_err().refusal(),
            Some(Refusal::WrongState)
        );
        host.exit(VM, "exit code 0", "bye");
        let [status] = &host.list_vms().await.unwrap()[..] else { panic!("not one VM") };
        assert_eq!((status.pid, status.running, status.stderr_tail.as_str()), (Some(pid), false, "bye"));
        host.stop_vm(VM).await.unwrap();
        host.stop_vm(VM).await.unwrap();
        assert!(host.is_empty());
    }

    #[tokio::test]
    async fn it_fails_as_told() {
        let host = FakeHost::new();
        host.fail_next(Verb::MakeTap, Refusal::System, "no");
        let error = host.make_tap(VM, slot(1), subnet()).await.unwrap_err();
        assert_eq!((error.refusal(), error.to_string().as_str()), (Some(Refusal::System), "no"));
        assert!(host.is_empty());
        host.make_tap(VM, slot(1), subnet()).await.unwrap();
        assert_eq!(host.vm(VM, |vm| vm.tap), Some(true));
        assert_eq!(host.calls(), [(Verb::MakeTap, Some(VM)); 2]);
    }
}
