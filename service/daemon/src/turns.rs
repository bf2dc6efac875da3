//! Locks by name, so that of several operations on one thing each has its turn.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Locks that exist for as long as somebody holds or awaits them.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// The lock of this name.
    pub fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        match turns.get(name).and_then(Weak::upgrade) {
            Some(turn) => turn,
            None => {
                let turn = Arc::default();
                turns.insert(name.to_owned(), Arc::downgrade(&turn));
                turn
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_lock_and_it_goes_with_its_users() {
        let turns = Turns::default();
        let (a, again, b) = (turns.turn("a"), turns.turn("a"), turns.turn("b"));
        let held = a.try_lock().unwrap();
        assert!(again.try_lock().is_err());
        assert!(b.try_lock().is_ok());
        drop(held);
        drop((a, again, b));
        turns.turn("c");
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
