//! The initramfs: the guest's init, the modules and nothing else, so that any kernel boots any image.
//!
//! It is not compressed: it is small, and unpacking under emulation costs more than it saves.

use crate::{Compression, KernelError, Modules, cpio::Archive};

/// The biggest guest program, in bytes.
const MOST_GUEST: u64 = 64 << 20;
/// The biggest initrd that a user may give, in bytes.
const MOST_INITRD: u64 = 256 << 20;
/// Folders that init mounts on or moves to.
const FOLDERS: [&str; 6] = ["dev", "proc", "sys", "run", "newroot", "modules"];

/// Packs the modules and `guest`, an executable that becomes `/init`, as a newc cpio archive. `/modules/order`
/// lists the modules' files, one name per line, in the order of loading. The same input gives the same bytes,
/// and their number is a multiple of 512, so that [`settings_archive`]'s can be put behind them.
///
/// # Errors
/// [`KernelError::Guest`] when `guest` is not an ELF file.
pub fn build_initramfs(modules: &Modules, guest: &[u8]) -> Result<Vec<u8>, KernelError> {
    if !guest.starts_with(b"\x7fELF") {
        return Err(KernelError::Guest { why: "it is not an ELF file".into() });
    }
    if guest.len() as u64 > MOST_GUEST {
        return Err(KernelError::TooBig { size: guest.len() as u64, most: MOST_GUEST });
    }
    let modules = modules.as_slice();
    let size: usize = modules.iter().map(|module| module.data.len() + 256).sum();
    let mut archive = Archive::new(size + guest.len() + 4096);
    for folder in FOLDERS {
        archive.directory(folder, 0o755);
    }
    // The kernel opens it for init's standard input, output and error.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.file("init", 0o755, guest);
    let mut order = String::new();
    for (number, module) in modules.iter().enumerate() {
        let file = format!("{number:02}-{}.ko", module.name);
        archive.file(&format!("modules/{file}"), 0o644, &module.data);
        order += &file;
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// An archive that holds `settings` as `/settings.json`, readable by root alone. It goes behind an initramfs.
pub fn settings_archive(settings: &[u8]) -> Vec<u8> {
    let mut archive = Archive::new(settings.len() + 512);
    archive.file("settings.json", 0o400, settings);
    archive.finish()
}

/// Puts `initramfs` behind an initrd that the user gave: the kernel unpacks both, and ours wins where both have
/// a file, `/init` first of all.
///
/// # Errors
/// [`KernelError::NotAnInitrd`] when `initrd` is neither a cpio archive nor packed, or is too big.
pub fn join_archives(initrd: Vec<u8>, initramfs: &[u8]) -> Result<Vec<u8>, KernelError> {
    let size = initrd.len() as u64;
    let cpio = initrd.starts_with(b"070701") || initrd.starts_with(b"070702");
    if size > MOST_INITRD {
        return Err(KernelError::NotAnInitrd {
            why: format!("it has {size} bytes, more than {MOST_INITRD}"),
        });
    }
    if !cpio && Compression::detect(&initrd).is_none() {
        return Err(KernelError::NotAnInitrd { why: "it is neither a cpio archive nor a packed one".into() });
    }
    let mut joined = initrd;
    // The next archive starts at a multiple of 4; at least 4 zeros end an LZ4 stream for the kernel.
    joined.resize((joined.len() + 4).next_multiple_of(512), 0);
    joined.extend_from_slice(initramfs);
    Ok(joined)
}
