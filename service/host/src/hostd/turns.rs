//! One verb at a time on each VM; verbs on different VMs never wait for each other.

use banger_model::VmId;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// Who is being worked on.
#[derive(Debug, Default)]
pub struct Turns {
    busy: Mutex<BTreeSet<VmId>>,
    freed: Condvar,
}

/// The right to work on one VM, until dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    vm: VmId,
}

impl Turns {
    /// Waits until nobody else works on `vm`.
    pub fn take(&self, vm: VmId) -> Turn<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.freed.wait_while(busy, |busy| busy.contains(&vm));
        wait.unwrap_or_else(PoisonError::into_inner).insert(vm);
        Turn { turns: self, vm }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.vm);
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn one_at_a_time_on_each() {
        let turns = Turns::default();
        let (first, second) = (VmId::from_bits(1), VmId::from_bits(2));
        let (told, hear) = mpsc::channel();
        std::thread::scope(|scope| {
            let turn = turns.take(first);
            let _other = turns.take(second);
            scope.spawn(|| {
                let _turn = turns.take(first);
                told.send("second turn").unwrap();
            });
            told.send("first turn").unwrap();
            drop(turn);
        });
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["first turn", "second turn"]);
    }
}
