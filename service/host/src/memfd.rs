//! Bytes that nobody can change any more.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{fs::File, io, os::fd::OwnedFd};

/// The seals that the helper asks of a kernel and an initramfs: nobody writes, shrinks, grows or unseals it.
pub const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// A sealed memfd with what `fill` writes into it, as [`crate::Host::start_vm`] wants its kernel and initramfs.
/// `name` shows in /proc only.
///
/// # Errors
/// `fill`'s, or memfd_create(2)'s and fcntl(2)'s own.
pub fn seal(name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    fill(&mut file)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}
