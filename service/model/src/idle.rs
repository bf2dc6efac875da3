//! Whether a VM has been idle for so long that it is stopped.
//!
//! Idle is a guest of which nobody wants anything: no command runs in it for somebody, nobody looks at its console, it
//! has no TCP connection with anybody but itself, and its processors do next to nothing.

use std::time::Duration;

/// How a guest is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When that is, on a clock that never goes back.
    pub at: Duration,
    /// For how long its processors have worked since it started, together.
    pub busy: Duration,
    /// Commands, consoles and connections through the service, and TCP connections of the guest.
    pub users: u32,
}

/// Watches a guest.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    limit: Duration,
    last: Option<Sample>,
    since: Option<Duration>,
}

impl Idle {
    /// A guest does nothing when its processors work for less than this share of the time of one: 1/20.
    pub const SHARE: u32 = 20;

    /// Watches for `limit` without use.
    pub fn new(limit: Duration) -> Self {
        Self { limit, last: None, since: None }
    }

    /// Takes a sample; true once the guest has been idle for the limit.
    pub fn observe(&mut self, sample: Sample) -> bool {
        let Some(last) = self.last.replace(sample) else { return false };
        let (time, work) = (sample.at.saturating_sub(last.at), sample.busy.saturating_sub(last.busy));
        let quiet = sample.users == 0 && last.users == 0 && work * Self::SHARE < time;
        let since = match (quiet, self.since) {
            (false, _) => None,
            (true, Some(since)) => Some(since),
            (true, None) => Some(last.at),
        };
        self.since = since;
        since.is_some_and(|since| sample.at.saturating_sub(since) >= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, busy_ms: u64, users: u32) -> Sample {
        Sample { at: Duration::from_secs(at), busy: Duration::from_millis(busy_ms), users }
    }

    /// When, of these samples, the guest counts as idle for 30 seconds.
    fn first(samples: &[Sample]) -> Option<u64> {
        let mut idle = Idle::new(Duration::from_secs(30));
        samples.iter().find(|sample| idle.observe(**sample)).map(|sample| sample.at.as_secs())
    }

    #[test]
    fn a_guest_that_nobody_uses_is_idle_after_the_limit() {
        let quiet: Vec<Sample> = (0..10).map(|n| sample(n * 10, n * 100, 0)).collect();
        assert_eq!(first(&quiet), Some(30));
    }

    #[test]
    fn use_work_and_connections_begin_the_time_anew() {
        let at = |n: u64, used: u64| sample(n * 10, n * 100, u32::from(n == used));
        let used: Vec<Sample> = (0..10).map(|n| at(n, 2)).collect();
        assert_eq!(first(&used), Some(60), "used at 20 s, so idle since 30 s");
        let work = |n: u64| sample(n * 10, n * 100 + if n >= 3 { 1000 } else { 0 }, 0);
        let worked: Vec<Sample> = (0..10).map(work).collect();
        assert_eq!(first(&worked), Some(60), "it worked between 20 s and 30 s");
    }

    #[test]
    fn a_guest_that_works_or_is_used_is_never_idle() {
        let busy: Vec<Sample> = (0..100).map(|n| sample(n * 10, n * 500, 0)).collect();
        assert_eq!(first(&busy), None);
        let used: Vec<Sample> = (0..100).map(|n| sample(n * 10, 0, 1)).collect();
        assert_eq!(first(&used), None);
    }

    #[test]
    fn one_sample_tells_nothing_and_a_guest_that_lies_about_time_does_no_harm() {
        assert_eq!(first(&[sample(1000, 0, 0)]), None);
        let lies = [sample(0, u64::MAX, 0), sample(10, 0, 0), sample(40, 0, 0)];
        assert_eq!(first(&lies), Some(40));
    }
}
