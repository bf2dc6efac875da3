//! How many connections there are, in all and from one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at once.
pub const ALL: usize = 128;

/// Connections at once from one address.
pub const EACH: usize = 16;

/// The connections that there are.
#[derive(Debug, Default)]
pub struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection, until dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

impl Places {
    /// A place for a connection from `source`; none when there are as many as there may be.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        let own = taken.get(&source).copied().unwrap_or_default();
        if own >= EACH || taken.values().sum::<usize>() >= ALL {
            return None;
        }
        taken.insert(source, own + 1);
        Some(Place { places: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_take_all() {
        let places = Arc::new(Places::default());
        let source = |number: u8| IpAddr::from([10, 0, 0, number]);
        let mut held: Vec<Place> = std::iter::from_fn(|| places.take(source(0))).collect();
        assert_eq!(held.len(), EACH);
        assert!(places.take(source(1)).is_some());
        held.pop();
        assert!(places.take(source(0)).is_some());
    }

    #[test]
    fn all_together_are_bounded_and_given_back() {
        let places = Arc::new(Places::default());
        let held: Vec<Place> =
            (0..=255).filter_map(|number| places.take(IpAddr::from([10, 0, 0, number]))).collect();
        assert_eq!(held.len(), ALL);
        drop(held);
        assert!(places.lock().is_empty());
    }
}
