//! Descriptors that the service manager keeps while the service is not there (systemd.service(5),
//! `FileDescriptorStoreMax=`). They last as long as the unit is started or restarted, and no longer than the host is up.

use crate::ioctl;
use sd_notify::{NotifyState, notify, notify_with_fds};
use std::{
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Hands a copy of a descriptor to the service manager under this name (at most 255 characters, no colon). Without
/// one, nobody keeps it.
pub fn keep(name: &str, fd: BorrowedFd<'_>) {
    tell(notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd]));
}

/// Has the service manager let go of what it keeps under this name.
pub fn forget(name: &str) {
    tell(notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]));
}

/// What the service manager kept since the service was last there, by name. Empty after the first call: each descriptor
/// has one owner. To be called before any other descriptor can have been closed.
pub fn kept() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed.map(|(number, name)| (name, ioctl::passed_descriptor(number))).collect(),
        Err(error) => {
            tracing::warn!(%error, "the service manager passed descriptors that cannot be understood");
            Vec::new()
        }
    }
}

fn tell(told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager about a descriptor");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_where_nobody_keeps_it() {
        let file = tempfile::tempfile().unwrap();
        keep("image-1", std::os::fd::AsFd::as_fd(&file));
        forget("image-1");
        assert!(kept().is_empty() && kept().is_empty());
    }
}
