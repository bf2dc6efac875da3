//! What makepkg(8) needs for Arch Linux: a PKGBUILD over the release's archive, and its install script.

use super::{SUMMARY, VERSION, tree};
use crate::machine::root;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Writes `PKGBUILD` and `banger.install` into `folder`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write(archive: &Path, folder: &Path) -> Result<PathBuf> {
    let sum = Sha256::digest(fs::read(archive).context("cannot read the release's archive")?);
    let sum = sum.iter().fold(String::new(), |mut text, byte| {
        // A text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let template = fs::read_to_string(root().join("packaging/arch/PKGBUILD"))?;
    let filled =
        template.replace("@VERSION@", VERSION).replace("@SUMMARY@", SUMMARY).replace("@SHA256@", &sum);
    let path = folder.join("PKGBUILD");
    fs::write(&path, filled)?;
    tree::put(&root().join("packaging/arch/banger.install"), &folder.join("banger.install"), 0o644)?;
    Ok(path)
}
