//! Whether a VM that ended is started again, and after which pause.

use crate::error::{ModelError, shorten};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// When a VM that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed: its VMM did, its guest did not come up, or its main process ended with something else than 0.
    OnFailure,
    /// However it ended.
    Always,
}

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Somebody asked for it.
    Asked,
    /// By itself, as it should.
    Clean,
    /// By itself, and not as it should.
    Failed,
}

/// How long a VM that ends again and again waits for its next start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The first pause.
    pub const FIRST: Duration = Duration::from_secs(1);
    /// The longest pause.
    pub const LONGEST: Duration = Duration::from_secs(60);
    /// A VM that ran for so long ended for another reason than the time before.
    pub const LASTED: Duration = Duration::from_secs(10);

    /// The pause after which a VM that ran for `ran` and ended like that is started again; `None` when it is not. What
    /// somebody ended is never started again.
    pub fn after(&mut self, policy: Restart, end: End, ran: Duration) -> Option<Duration> {
        let again = match (policy, end) {
            (_, End::Asked) | (Restart::No, _) | (Restart::OnFailure, End::Clean) => false,
            (Restart::OnFailure, End::Failed) | (Restart::Always, End::Clean | End::Failed) => true,
        };
        self.last = match self.last {
            _ if !again => None,
            Some(last) if ran < Self::LASTED => Some((last * 2).min(Self::LONGEST)),
            _ => Some(Self::FIRST),
        };
        self.last
    }
}

impl Restart {
    /// The word for it on the bus and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Restart {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let all = [Restart::No, Restart::OnFailure, Restart::Always];
        let unknown =
            || ModelError::Word { what: "restart policy (no, on-failure or always)", value: shorten(text) };
        all.into_iter().find(|policy| policy.as_str() == text).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [Restart; 3] = [Restart::No, Restart::OnFailure, Restart::Always];
    const ENDS: [End; 3] = [End::Asked, End::Clean, End::Failed];

    #[test]
    fn who_is_started_again() {
        for policy in POLICIES {
            for end in ENDS {
                let again = Backoff::default().after(policy, end, Duration::ZERO).is_some();
                let expected = matches!(
                    (policy, end),
                    (Restart::OnFailure, End::Failed) | (Restart::Always, End::Clean | End::Failed)
                );
                assert_eq!(again, expected, "{policy} {end:?}");
            }
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_run_that_lasted() {
        let mut backoff = Backoff::default();
        let mut next = |ran: u64| {
            backoff.after(Restart::Always, End::Failed, Duration::from_secs(ran)).unwrap().as_secs()
        };
        let pauses: Vec<u64> = (0..8).map(|_| next(9)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(next(10), 1);
        assert_eq!(next(0), 2);
    }

    #[test]
    fn what_somebody_ended_begins_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.after(Restart::Always, End::Failed, Duration::ZERO);
        }
        assert_eq!(backoff.after(Restart::Always, End::Asked, Duration::ZERO), None);
        assert_eq!(backoff.after(Restart::Always, End::Failed, Duration::ZERO), Some(Backoff::FIRST));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for policy in POLICIES {
            assert_eq!(policy.as_str().parse(), Ok(policy));
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.as_str());
        }
        assert!("unless-stopped".parse::<Restart>().is_err());
    }
}
