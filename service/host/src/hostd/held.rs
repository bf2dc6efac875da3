//! What is held of each VM.

use crate::disks::{Attached, Device};
use crate::net::Tap;
use crate::process::Process;
use crate::refused::{Result, refused};
use banger_host::Refusal;
use banger_model::{Bytes, DiskNumber, ImageId, Slot, VmId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held of one VM.
#[derive(Debug)]
pub struct Held {
    /// Its slot, which no other VM has meanwhile.
    pub slot: Slot,
    /// Its disks, until they are known to be gone.
    pub disks: BTreeMap<DiskNumber, HeldDisk>,
    /// Its TAP, until it is started.
    pub tap: Option<Arc<Tap>>,
    /// Its process, from its start until it is stopped, alive or not.
    pub process: Option<Arc<Process>>,
    /// How many verbs are about to give it something.
    claims: usize,
}

/// A disk of a VM.
#[derive(Debug)]
pub struct HeldDisk {
    /// What it is made of.
    pub device: Device,
    /// The disk itself, until the VM is started.
    pub open: Option<Arc<Disk>>,
}

/// An attached disk.
#[derive(Debug)]
pub struct Disk {
    /// The device.
    pub attached: Attached,
    /// What it was made of.
    pub source: Source,
}

/// What a disk is to be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Device and inode number of the VM's own file.
    pub file: (u64, u64),
    /// Whether the guest may write.
    pub writable: bool,
    /// Of a snapshot: the image, and the disk's size.
    pub snapshot: Option<(ImageId, Bytes)>,
}

impl Held {
    fn new(slot: Slot) -> Self {
        Self { slot, disks: BTreeMap::new(), tap: None, process: None, claims: 0 }
    }

    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.exit().is_none())
    }

    fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.tap.is_none() && self.process.is_none() && self.claims == 0
    }
}

/// The table. It is never locked for longer than it takes to look.
#[derive(Debug, Default)]
pub struct Table {
    vms: Mutex<BTreeMap<VmId, Held>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Held>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `slot` to `vm`, unless either already belongs to another, and keeps it there until [`Table::unclaim`].
    pub fn claim(&self, vm: VmId, slot: Slot) -> Result<()> {
        let mut vms = self.lock();
        let number = u16::from(slot);
        if let Some(held) = vms.get(&vm).filter(|held| held.slot != slot) {
            let other = u16::from(held.slot);
            return Err(refused(Refusal::SlotTaken, format!("VM {vm} has slot {other}, not {number}")));
        }
        if let Some((other, _)) = vms.iter().find(|(id, held)| **id != vm && held.slot == slot) {
            return Err(refused(Refusal::SlotTaken, format!("slot {number} is VM {other}'s")));
        }
        vms.entry(vm).or_insert_with(|| Held::new(slot)).claims += 1;
        Ok(())
    }

    /// Ends a claim. The slot is given back if nothing is held.
    pub fn unclaim(&self, vm: VmId) {
        self.with(vm, |held| held.claims = held.claims.saturating_sub(1));
        self.forget_if_empty(vm);
    }

    /// Looks at what is held of `vm`, or changes it.
    pub fn with<T>(&self, vm: VmId, act: impl FnOnce(&mut Held) -> T) -> Option<T> {
        self.lock().get_mut(&vm).map(act)
    }

    /// Gives the slot back if nothing else is held, and nobody claims it.
    pub fn forget_if_empty(&self, vm: VmId) {
        let mut vms = self.lock();
        if vms.get(&vm).is_some_and(Held::is_empty) {
            vms.remove(&vm);
        }
    }

    /// Forgets `vm`.
    pub fn forget(&self, vm: VmId) {
        self.lock().remove(&vm);
    }

    /// The VMs after `after`, in order: each with its slot and process.
    pub fn after(&self, after: Option<VmId>) -> Vec<(VmId, Slot, Option<Arc<Process>>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let vms = self.lock();
        vms.range((from, Bound::Unbounded)).map(|(vm, held)| (*vm, held.slot, held.process.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(bits: u64) -> VmId {
        VmId::from_bits(bits)
    }

    fn slot(number: u16) -> Slot {
        Slot::try_from(number).unwrap()
    }

    #[test]
    fn a_slot_is_one_vms() {
        let table = Table::default();
        assert_eq!(table.claim(vm(1), slot(5)), Ok(()));
        assert_eq!(table.claim(vm(1), slot(5)), Ok(()), "again");
        assert_eq!(table.claim(vm(1), slot(6)).unwrap_err().kind, Refusal::SlotTaken);
        assert_eq!(table.claim(vm(2), slot(5)).unwrap_err().kind, Refusal::SlotTaken);
        assert_eq!(table.claim(vm(2), slot(6)), Ok(()));
        table.unclaim(vm(1));
        assert_eq!(table.claim(vm(3), slot(5)).unwrap_err().kind, Refusal::SlotTaken, "claimed twice");
        table.unclaim(vm(1));
        assert_eq!(table.claim(vm(3), slot(5)), Ok(()));
    }

    #[test]
    fn what_is_held_is_not_forgotten() {
        let table = Table::default();
        table.claim(vm(1), slot(1)).unwrap();
        let device = Device { disk: DiskNumber::ROOT, loop_number: 0, snapshot: false };
        table.with(vm(1), |held| held.disks.insert(DiskNumber::ROOT, HeldDisk { device, open: None }));
        table.unclaim(vm(1));
        assert!(table.with(vm(1), |held| held.disks.clear()).is_some());
        table.forget_if_empty(vm(1));
        assert!(table.with(vm(1), |_| ()).is_none());
    }

    #[test]
    fn pages_follow_each_other() {
        let table = Table::default();
        for bits in [3, 1, 2] {
            table.claim(vm(bits), slot(u16::try_from(bits).unwrap())).unwrap();
        }
        let ids = |after| table.after(after).into_iter().map(|(vm, ..)| vm).collect::<Vec<_>>();
        assert_eq!(ids(None), [vm(1), vm(2), vm(3)]);
        assert_eq!(ids(Some(vm(1))), [vm(2), vm(3)]);
        assert!(ids(Some(vm(3))).is_empty());
    }
}
