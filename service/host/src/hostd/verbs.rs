//! The verbs: each checks all that it was given, then acts.

use crate::descriptor;
use crate::disks::{Attached, SECTOR, Snapshot};
use crate::exec_vm::ExecVm;
use crate::fault;
use crate::held::{Disk, HeldDisk, Source, Table};
use crate::process::Process;
use crate::record::Record;
use crate::refused::{Refused, Result, refused};
use crate::system::{Launch, System};
use crate::turns::{Part, Turns};
use banger_host::{PROTOCOL, Refusal, Reply, Request, Verb, VmStatus, packet};
use banger_model::{
    Bytes, DiskNumber, ImageId, Limits, MachineSize, NetworkRules, Origin, Slot, Subnet, Used, VmId,
};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What any host could give a VM; what this one gives is the daemon's policy.
const MOST: Limits = Limits { cpus: 64, memory: Bytes::gib(16 << 10) };

/// More networks than this are not told of: longer routes are what is left out, and the helper itself looks at all of
/// them before it makes a network.
const MOST_NETWORKS: usize = 300;

/// More firewalls than this no host has.
const MOST_FIREWALLS: usize = 32;

/// A page of a listing ends here, in bytes of JSON: the longest entry (with every byte of 2 KiB escaped in
/// six) still fits a packet behind it.
const PAGE: usize = packet::LONGEST / 2;

/// The verbs, over `system`.
#[derive(Debug)]
pub struct Verbs<S> {
    system: S,
    /// Whose disks are taken.
    peer: u32,
    turns: Turns,
    table: Table,
}

impl<S: System> Verbs<S> {
    /// The verbs for the user `peer`.
    pub fn new(system: S, peer: u32) -> Self {
        Self { system, peer, turns: Turns::default(), table: Table::default() }
    }

    /// Takes on a VM that another life of this helper started.
    pub fn adopt(&self, record: &Record, process: Arc<Process>) -> Result<()> {
        self.table.claim(record.vm, record.slot)?;
        self.table.with(record.vm, |held| {
            held.disks = record
                .disks
                .iter()
                .map(|device| (device.disk, HeldDisk { device: *device, open: None }))
                .collect();
            held.process = Some(process);
        });
        self.table.unclaim(record.vm);
        Ok(())
    }

    /// Carries out one request of `caller`. The second result are the descriptors that go with the reply.
    pub fn answer(
        &self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
        caller: u32,
    ) -> (Reply, Vec<OwnedFd>) {
        if descriptors.len() != request.descriptors() {
            let (verb, wanted, got) = (request.verb(), request.descriptors(), descriptors.len());
            let message = format!("{verb} comes with {wanted} descriptors, not {got}");
            return (refused(Refusal::Descriptor, message).into(), Vec::new());
        }
        let _turn = request.vm().map(|vm| self.turns.take(vm, parts(request.verb())));
        let done = |result: Result<()>| result.map(|()| Reply::Done);
        let reply = match request {
            Request::Hello { version } => hello(version),
            Request::OpenHostKernel { release } => {
                let opened = self.system.open_kernel(&release);
                match opened.and_then(|file| descriptor::host_kernel(&file).map(|()| file)) {
                    Ok(file) => return (Reply::Done, vec![file]),
                    Err(failure) => Err(failure),
                }
            }
            Request::ProbeDisks {} => {
                Ok(Reply::Disks { no_device_mapper: self.system.why_no_device_mapper() })
            }
            Request::AttachLoop { vm, slot, disk, writable } => {
                done(self.attach_loop(vm, slot, disk, writable, &descriptors[0], caller))
            }
            Request::AttachSnapshot { vm, slot, image, size } => {
                done(self.attach_snapshot(vm, slot, (image, size), &descriptors, caller))
            }
            Request::DetachDisk { vm, disk } => done(self.detach_disk(vm, disk)),
            Request::ListNetworks {} => self.list_networks(),
            Request::MakeTap { vm, slot, subnet } => done(self.make_tap(vm, slot, subnet)),
            Request::OpenNetwork { vm, rules } => done(self.open_network(vm, rules)),
            Request::CloseNetwork { vm } => done(self.system.close_network(vm)),
            Request::RemoveTap { vm } => done(self.remove_tap(vm)),
            Request::StartVm { vm, slot, size, accel, vmm, manner } => {
                let (writable, tsc_khz, has_vsock) = (Vec::new(), None, false);
                let exec = ExecVm { slot, size, accel, vmm, manner, writable, tsc_khz, has_vsock };
                self.start_vm(vm, exec, &descriptors, caller)
            }
            Request::StopVm { vm } => done(self.stop_vm(vm)),
            Request::BindDns { subnet, port } => match self.system.bind_dns(&subnet, port) {
                Ok(sockets) => return (Reply::Done, sockets),
                Err(failure) => Err(failure),
            },
            Request::RouteDns { subnet, port } => done(self.route_dns(&subnet, port, descriptors.pop())),
            Request::ShowDns {} => {
                let (routing, message) = self.system.show_dns();
                Ok(Reply::Dns { routing, message })
            }
            Request::VmUsage { vm } => self.usage(vm),
            Request::ConnectGuest { vm, port } => match self.connect_guest(vm, port) {
                Ok(socket) => return (Reply::Done, vec![socket]),
                Err(failure) => Err(failure),
            },
            Request::ListVms { after } => Ok(self.list_vms(after)),
        };
        (reply.unwrap_or_else(Reply::from), Vec::new())
    }

    fn route_dns(&self, subnet: &Subnet, port: u16, owner: Option<OwnedFd>) -> Result<()> {
        let owner = owner.ok_or_else(|| refused(Refusal::Descriptor, "there is no pipe"))?;
        descriptor::pipe(&owner)?;
        self.system.route_dns(subnet, port, owner)
    }

    fn attach_loop(
        &self,
        vm: VmId,
        slot: Slot,
        disk: DiskNumber,
        writable: bool,
        file: &OwnedFd,
        caller: u32,
    ) -> Result<()> {
        let (identity, _) = descriptor::disk("the disk's descriptor", file, writable, &[self.peer, caller])?;
        let source = Source { file: identity, writable, snapshot: None };
        self.attach(vm, slot, disk, source, || self.system.attach_loop(vm, disk, file.as_fd(), writable))
    }

    fn attach_snapshot(
        &self,
        vm: VmId,
        slot: Slot,
        (image, size): (ImageId, Bytes),
        descriptors: &[OwnedFd],
        caller: u32,
    ) -> Result<()> {
        let owners = [self.peer, caller];
        let [rootfs, cow] = descriptors else {
            return Err(refused(Refusal::Descriptor, "a snapshot takes two descriptors"));
        };
        let (identity, length) = descriptor::disk("the image's descriptor", rootfs, false, &owners)?;
        let (file, _) = descriptor::disk("the disk's descriptor", cow, true, &owners)?;
        if size < length || size > Limits::MOST_DISK || size.0 % SECTOR != 0 {
            let message = format!("a disk of {} bytes for an image of {}", size.0, length.0);
            return Err(refused(Refusal::Range, message));
        }
        let source = Source { file, writable: true, snapshot: Some((image, size)) };
        let (rootfs, cow) = (rootfs.as_fd(), cow.as_fd());
        let snapshot = Snapshot { image, rootfs, identity, length, cow, size };
        self.attach(vm, slot, DiskNumber::ROOT, source, || self.system.attach_snapshot(vm, &snapshot))
    }

    /// Gives a VM a disk, unless it has that one already.
    fn attach(
        &self,
        vm: VmId,
        slot: Slot,
        disk: DiskNumber,
        source: Source,
        attach: impl FnOnce() -> Result<Attached>,
    ) -> Result<()> {
        self.table.claim(vm, slot)?;
        let done = self.unless_started(vm).and_then(|()| {
            let held = self.table.with(vm, |held| {
                let there = held.disks.get(&disk)?;
                Some(there.open.as_ref().is_some_and(|open| open.source == source))
            });
            match held.flatten() {
                Some(true) => Ok(()),
                Some(false) => Err(refused(Refusal::WrongState, format!("VM {vm} has another disk {disk}"))),
                None => {
                    let attached = attach()?;
                    let device = attached.device;
                    let open = Some(Arc::new(Disk { attached, source }));
                    self.table.with(vm, |held| held.disks.insert(disk, HeldDisk { device, open }));
                    Ok(())
                }
            }
        });
        self.table.unclaim(vm);
        done
    }

    fn detach_disk(&self, vm: VmId, disk: DiskNumber) -> Result<()> {
        self.unless_running(vm)?;
        let left = self.let_disk_go(vm, disk);
        self.table.forget_if_empty(vm);
        left
    }

    /// What can be in the way: the host's own addresses, and routes to private networks, as many as fit.
    fn list_networks(&self) -> Result<Reply> {
        let (mut used, firewalls) = self.system.networks()?;
        used.sort_by_key(|one: &Used| (one.origin == Origin::Route, one.network.prefix()));
        used.dedup();
        used.truncate(MOST_NETWORKS);
        Ok(Reply::Networks { used, firewalls: firewalls.into_iter().take(MOST_FIREWALLS).collect() })
    }

    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Result<()> {
        rules.check().map_err(|error| refused(Refusal::Range, error.to_string()))?;
        self.system.open_network(vm, rules)
    }

    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Result<()> {
        self.table.claim(vm, slot)?;
        let done = self.unless_started(vm).and_then(|()| {
            if self.table.with(vm, |held| held.tap.is_some()) == Some(true) {
                return Ok(());
            }
            let tap = self.system.make_tap(vm, slot, subnet)?;
            self.table.with(vm, |held| held.tap = Some(Arc::new(tap)));
            Ok(())
        });
        self.table.unclaim(vm);
        done
    }

    fn remove_tap(&self, vm: VmId) -> Result<()> {
        self.unless_running(vm)?;
        let left = self.let_tap_go(vm);
        self.table.forget_if_empty(vm);
        left
    }

    fn start_vm(&self, vm: VmId, mut exec: ExecVm, descriptors: &[OwnedFd], caller: u32) -> Result<Reply> {
        let [kernel, initrd, rest @ ..] = descriptors else {
            return Err(refused(Refusal::Descriptor, "a VM needs a kernel and an initramfs"));
        };
        check_size(&exec.size)?;
        if !exec.vmm.vmm().runs_on(exec.accel) {
            let message = format!("{} does not run guests on {}", exec.vmm, exec.accel);
            return Err(refused(Refusal::Range, message));
        }
        if let Some(folder) = rest.first() {
            descriptor::folder("the snapshot's folder", folder, &[self.peer, caller])?;
        }
        descriptor::boot_file("the kernel's descriptor", kernel)?;
        descriptor::boot_file("the initramfs's descriptor", initrd)?;
        self.unless_started(vm)?;
        let wrong = |why: &str| refused(Refusal::WrongState, format!("VM {vm} {why}"));
        let held = self.table.with(vm, |held| {
            let disks: Vec<Arc<Disk>> = held.disks.values().filter_map(|disk| disk.open.clone()).collect();
            let has_root = held.disks.contains_key(&DiskNumber::ROOT);
            (held.slot, has_root.then_some(disks), held.tap.clone())
        });
        let (slot, disks, tap) = held.ok_or_else(|| wrong("has neither a disk nor a TAP"))?;
        if slot != exec.slot {
            return Err(refused(Refusal::SlotTaken, format!("VM {vm} has slot {}", u16::from(slot))));
        }
        let disks = disks.ok_or_else(|| wrong("has no disk"))?;
        let tap = tap.ok_or_else(|| wrong("has no TAP"))?;
        exec.writable = disks.iter().map(|disk| disk.source.writable).collect();

        let process = self.system.launch(&Launch {
            vm,
            exec,
            kernel: kernel.as_fd(),
            initrd: initrd.as_fd(),
            snapshot: rest.first().map(AsFd::as_fd),
            disks: disks.iter().map(|disk| &disk.attached).collect(),
            tap: &tap,
        })?;
        let pid = process.pid;
        // The devices are the process's own from here on: they go when it does.
        self.table.with(vm, |held| {
            held.process = Some(process);
            held.disks.values_mut().for_each(|disk| disk.open = None);
            held.tap = None;
        });
        Ok(Reply::Started { pid })
    }

    fn stop_vm(&self, vm: VmId) -> Result<()> {
        let process = self.table.with(vm, |held| held.process.clone()).flatten();
        if let Some(process) = process {
            // While it lives, nothing of it can be taken away.
            process.end().map_err(|error| refused(Refusal::Rollback, error.to_string()))?;
        }
        fault::come(Verb::StopVm, "ended", Some(vm));
        let remove = |error: std::io::Error| refused(Refusal::Rollback, error.to_string());
        let disks = self.table.with(vm, |held| held.disks.keys().copied().collect::<Vec<_>>());
        let mut steps: Vec<Result<()>> =
            disks.unwrap_or_default().into_iter().map(|disk| self.let_disk_go(vm, disk)).collect();
        steps.push(self.let_tap_go(vm));
        steps.push(self.system.remove_folder(vm).map_err(remove));
        let left: Vec<String> =
            steps.into_iter().filter_map(|step| step.err()).map(|failure| failure.message).collect();
        if !left.is_empty() {
            return Err(refused(Refusal::Rollback, left.join("; ")));
        }
        self.table.forget(vm);
        Ok(())
    }

    fn connect_guest(&self, vm: VmId, port: u32) -> Result<OwnedFd> {
        let wrong = |why: String| refused(Refusal::WrongState, format!("VM {vm} {why}"));
        let slot = self.table.with(vm, |held| held.is_running().then_some(held.slot)).flatten();
        let slot = slot.ok_or_else(|| wrong("does not run".into()))?;
        self.system.connect_guest(slot.cid(), port).map_err(|error| wrong(format!("is not reached: {error}")))
    }

    fn usage(&self, vm: VmId) -> Result<Reply> {
        let gone = || refused(Refusal::WrongState, format!("VM {vm} does not run"));
        let held = self.table.with(vm, |held| held.process.clone());
        let Some(process) = held.flatten() else { return Err(gone()) };
        let usage = self.system.usage(vm, process.pid);
        // While it lives its number is nobody else's.
        match (process.exit(), usage) {
            (None, Ok(usage)) => Ok(Reply::Usage { usage }),
            _ => Err(gone()),
        }
    }

    fn list_vms(&self, after: Option<VmId>) -> Reply {
        let mut room = PAGE;
        let mut vms = Vec::new();
        for (vm, slot, process) in self.table.after(after) {
            let exit = process.as_ref().and_then(|process| process.exit());
            let status = VmStatus {
                vm,
                slot,
                pid: process.as_ref().map(|process| process.pid),
                running: process.is_some() && exit.is_none(),
                exit,
                stderr_tail: process.map(|_| self.system.stderr_tail(vm)).unwrap_or_default(),
            };
            let length = serde_json::to_vec(&status).map_or(PAGE, |json| json.len());
            if length > room && !vms.is_empty() {
                return Reply::Vms { vms, more: true };
            }
            room = room.saturating_sub(length + 1);
            vms.push(status);
        }
        Reply::Vms { vms, more: false }
    }

    fn let_disk_go(&self, vm: VmId, disk: DiskNumber) -> Result<()> {
        let device = self.table.with(vm, |held| {
            let held = held.disks.get_mut(&disk)?;
            held.open = None;
            Some(held.device)
        });
        let Some(device) = device.flatten() else { return Ok(()) };
        let gone = self.system.await_disk_gone(vm, &device);
        gone.map_err(|error| refused(Refusal::Rollback, error.to_string()))?;
        self.table.with(vm, |held| held.disks.remove(&disk));
        Ok(())
    }

    fn let_tap_go(&self, vm: VmId) -> Result<()> {
        if self.table.with(vm, |held| held.tap = None).is_none() {
            return Ok(());
        }
        let gone = self.system.await_tap_gone(vm);
        gone.map_err(|error| refused(Refusal::Rollback, error.to_string()))
    }

    fn unless_started(&self, vm: VmId) -> Result<()> {
        match self.table.with(vm, |held| held.process.is_some()) {
            Some(true) => {
                Err(refused(Refusal::WrongState, format!("VM {vm} has been started: stop it first")))
            }
            _ => Ok(()),
        }
    }

    fn unless_running(&self, vm: VmId) -> Result<()> {
        match self.table.with(vm, |held| held.is_running()) {
            Some(true) => Err(refused(Refusal::WrongState, format!("VM {vm} runs: stop it first"))),
            _ => Ok(()),
        }
    }
}

/// The parts of a VM that a verb works on.
fn parts(verb: Verb) -> &'static [Part] {
    match verb {
        Verb::AttachLoop | Verb::AttachSnapshot | Verb::DetachDisk => &[Part::Disks],
        Verb::MakeTap | Verb::OpenNetwork | Verb::CloseNetwork | Verb::RemoveTap => &[Part::Network],
        // It changes nothing, and may take a while.
        Verb::ConnectGuest => &[],
        _ => Part::ALL,
    }
}

fn hello(version: u32) -> Result<Reply> {
    if version == PROTOCOL {
        return Ok(Reply::Hello { version: PROTOCOL });
    }
    Err(refused(
        Refusal::Malformed,
        format!(
            "banger-hostd speaks version {PROTOCOL}, its caller {version}: restart both after an upgrade"
        ),
    ))
}

fn check_size(size: &MachineSize) -> Result<()> {
    MOST.check(size, Bytes(0)).map_err(|error| Refused { kind: Refusal::Range, message: error.to_string() })
}

#[cfg(test)]
mod tests;
