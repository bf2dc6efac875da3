//! Leaving the initramfs.

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{FsType, TMPFS_MAGIC, statfs},
    unistd::{chdir, chroot},
};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// `RAMFS_MAGIC` (statfs(2)).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Makes `new` the root of everything and frees what the initramfs held (as switch_root(8) does).
pub fn switch_root(new: &str) -> io::Result<()> {
    let none: Option<&str> = None;
    chdir(new)?;
    let kind = statfs("/")?.filesystem_type();
    if kind == RAMFS_MAGIC || kind == TMPFS_MAGIC {
        empty(Path::new("/"), fs::metadata("/")?.dev());
    }
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Removes everything on this device below `folder`. What cannot be removed only costs memory.
fn empty(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            empty(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
