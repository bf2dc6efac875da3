//! The one unsafe line: a number that the service manager passed becomes a descriptor.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The descriptor of this number, which sd_listen_fds(3) gave and nobody else has taken.
#[allow(unsafe_code, reason = "the protocol hands over numbers")]
pub(crate) fn passed_descriptor(number: RawFd) -> OwnedFd {
    // SAFETY: the service manager opened it for this process, as LISTEN_PID says, and the caller takes each once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
