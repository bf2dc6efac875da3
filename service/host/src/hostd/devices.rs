//! Devices that the kernel removes some time after their last user has closed them.

use std::io;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a device whose last user is gone.
const SETTLE: Duration = Duration::from_secs(5);

/// The kernel tells nobody when a device is gone, so it is asked until then.
pub fn await_gone(what: &str, gone: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + SETTLE;
    while !gone()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} is still in use")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
