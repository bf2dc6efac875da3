//! How often one source may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Queries in a second that one VM may send for long, and at once after having been silent.
pub const RATE: f64 = 1000.0;

/// So many sources are told apart. A VM can send from more addresses than that: then all begin anew, which lets a few
/// more through and costs no memory.
const SOURCES: usize = 8192;

/// A bucket for each source, which fills with time.
#[derive(Debug, Default)]
pub struct Limiter {
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    seen: Instant,
}

impl Limiter {
    /// Whether `source` may ask once more, `now`.
    pub fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= SOURCES && !self.buckets.contains_key(&source) {
            self.buckets.clear();
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { left: RATE, seen: now });
        let passed = now.saturating_duration_since(bucket.seen).as_secs_f64();
        bucket.left = (bucket.left + passed * RATE).min(RATE);
        bucket.seen = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_gets_its_share_and_others_theirs() {
        let (mut limiter, begin) = (Limiter::default(), Instant::now());
        let (flood, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let admitted = (0..10_000).filter(|_| limiter.admit(flood, begin)).count();
        assert_eq!(admitted, 1000);
        assert!(limiter.admit(other, begin));
        let later = begin + Duration::from_millis(100);
        let again = (0..10_000).filter(|_| limiter.admit(flood, later)).count();
        assert!((99..=101).contains(&again), "{again}");
    }

    #[test]
    fn sources_without_number_take_no_memory() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for number in 0..100_000_u128 {
            limiter.admit(IpAddr::V6(number.into()), now);
        }
        assert!(limiter.buckets.len() <= SOURCES);
    }
}
