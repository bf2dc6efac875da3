//! What may pass, and how long to wait for it.

use crate::ImageError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest `Retry-After` that is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait between attempts that banger chooses itself.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again will not help.
    Final(ImageError),
    /// It may, after a while.
    Passing { error: ImageError, wait: Option<Duration> },
}

impl Failure {
    /// The error alone.
    pub(crate) fn into_error(self) -> ImageError {
        match self {
            Failure::Final(error) | Failure::Passing { error, .. } => error,
        }
    }
}

/// How long to wait before attempt number `attempt` + 2, when the first wait is `first`: each further one is twice as
/// long, unless the registry said how long in `wait`.
pub(crate) fn backoff(first: Duration, attempt: u32, wait: Option<Duration>) -> Duration {
    let own = first.saturating_mul(1 << attempt.min(16)).min(LONGEST_BACKOFF);
    wait.map_or(own, |wait| wait.min(LONGEST_WAIT))
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // A date that has passed means now.
        Err(_) => date(text).map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

/// A date in the one form that servers may write, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let number = |word: &str, most: u64| word.parse().ok().filter(|n: &u64| *n <= most);
    let day = number(words.next()?, 31).filter(|day| *day > 0)?;
    let month = words.next().and_then(|word| MONTHS.iter().position(|name| *name == word))? as u64;
    let year = number(words.next()?, 9999).filter(|year| *year >= 1970)?;
    let mut clock = words.next()?.split(':');
    let hour = number(clock.next()?, 23)?;
    let minute = number(clock.next()?, 59)?;
    let second = number(clock.next()?, 60)?;
    if words.next() != Some("GMT") {
        return None;
    }
    let seconds = days(year, month + 1, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days since 1970 of a date, its month and day counted from 1.
pub(crate) fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // With years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_what_date_says() {
        // `date -u -d @N '+%a, %d %b %Y %H:%M:%S GMT'`
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Sat, 21 Nov 2026 10:30:00 GMT", 1_795_257_000),
        ] {
            assert_eq!(date(text), Some(at(seconds)), "{text}");
        }
        for bad in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nvo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_registry_says_how_long() {
        let now = at(784_111_777);
        let after = |text: &str| retry_after(text, now);
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:49 GMT"), Some(Duration::from_secs(12)));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "it has passed");
        assert_eq!((after("soon"), after("-3"), after("")), (None, None, None));
    }

    #[test]
    fn waits_grow_and_have_an_end() {
        let first = Duration::from_millis(200);
        let waits: Vec<u128> = (0..8).map(|n| backoff(first, n, None).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff(first, u32::MAX, None), LONGEST_BACKOFF);
        let told = |seconds| backoff(first, 0, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!((told(0), told(42), told(u64::MAX)), (0, 42, 60));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,40}|[A-Z][a-z]{2}, [0-9]{1,3} (Jan|Feb|Dec|x) [0-9]{1,6} [0-9]{1,3}:[0-9]{1,3}:[0-9]{1,20} GMT|[0-9]{1,30})") {
            let _ = retry_after(&text, SystemTime::now());
        }
    }
}
