//! One verb at a time on each part of a VM; verbs on different VMs, or on different parts of one, never wait for each
//! other.

use banger_model::VmId;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// A part of a VM on which one verb at a time works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its disks.
    Disks,
    /// Its TAP, and what its packets may.
    Network,
}

impl Part {
    /// All of a VM.
    pub const ALL: &[Part] = &[Part::Disks, Part::Network];
}

/// Who is being worked on.
#[derive(Debug, Default)]
pub struct Turns {
    busy: Mutex<BTreeSet<(VmId, Part)>>,
    freed: Condvar,
}

/// The right to work on parts of one VM, until dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    vm: VmId,
    parts: &'static [Part],
}

impl Turns {
    /// Waits until nobody else works on these parts of `vm`.
    pub fn take(&self, vm: VmId, parts: &'static [Part]) -> Turn<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let is_busy = |busy: &mut BTreeSet<_>| parts.iter().any(|part| busy.contains(&(vm, *part)));
        let wait = self.freed.wait_while(busy, is_busy);
        wait.unwrap_or_else(PoisonError::into_inner).extend(parts.iter().map(|part| (vm, *part)));
        Turn { turns: self, vm, parts }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.turns.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for part in self.parts {
            busy.remove(&(self.vm, *part));
        }
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn one_at_a_time_on_each_part() {
        let turns = Turns::default();
        let (first, second) = (VmId::from_bits(1), VmId::from_bits(2));
        let (told, hear) = mpsc::channel();
        std::thread::scope(|scope| {
            let turn = turns.take(first, &[Part::Disks]);
            let network = turns.take(first, &[Part::Network]);
            let _other = turns.take(second, Part::ALL);
            scope.spawn(|| {
                let _turn = turns.take(first, Part::ALL);
                told.send("all").unwrap();
            });
            drop(network);
            told.send("disks").unwrap();
            drop(turn);
        });
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["disks", "all"]);
    }
}
