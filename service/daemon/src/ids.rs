//! Fresh ids.

use crate::error::Error;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// 64 bits from the kernel's random source.
///
/// # Errors
/// [`Error::Internal`] when there is none, which Linux does not let happen.
pub fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Internal(format!("no random numbers: {error}")))
}

/// 64 bits that grow from call to call and from run to run: milliseconds since 1970, then random bits.
///
/// # Errors
/// As [`random`].
pub fn ascending() -> Result<u64, Error> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // 44 bits of milliseconds last until the year 2527; 20 random bits keep an id from being guessed.
    let fresh = (now().millis & 0xfff_ffff_ffff) << 20 | (random()? & 0xf_ffff);
    let next = |last: u64| Some(fresh.max(last + 1));
    match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(last) | Err(last) => Ok(fresh.max(last + 1)),
    }
}

/// The time, as the database keeps it.
pub struct Now {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds of the next one.
    pub nanoseconds: u32,
    millis: u64,
}

/// What the clock says; 1970 when it is set before that.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
        millis: since.as_millis() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_ids_ascend() {
        let ids: Vec<u64> = (0..1000).map(|_| ascending().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
