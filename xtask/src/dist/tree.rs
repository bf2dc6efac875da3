//! The files of an installation, where a package puts them.

use crate::{
    cargo::Programs,
    machine::{self, root},
};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Files that are in the checkout as they are installed: where they are, and where they go.
const FILES: &[(&str, &str)] = &[
    ("dbus/org.banger.Manager.conf", "usr/share/dbus-1/system.d/org.banger.Manager.conf"),
    ("dbus/org.banger.Manager.service", "usr/share/dbus-1/system-services/org.banger.Manager.service"),
    ("polkit/org.banger.manager.policy", "usr/share/polkit-1/actions/org.banger.manager.policy"),
    ("packaging/udev/60-banger.rules", "usr/lib/udev/rules.d/60-banger.rules"),
    ("LICENSE", "usr/share/doc/banger/LICENSE"),
    ("README.md", "usr/share/doc/banger/README.md"),
    ("packaging/man/bangerd.8", "usr/share/man/man8/bangerd.8"),
    ("packaging/man/banger-hostd.8", "usr/share/man/man8/banger-hostd.8"),
];

/// Folders whose files are installed as they are: where they are, and where they go.
const FOLDERS: &[(&str, &str)] = &[
    ("dbus/xml", "usr/share/dbus-1/interfaces"),
    ("systemd/units", "usr/lib/systemd/system"),
    ("systemd/units/sysusers.d", "usr/lib/sysusers.d"),
    ("systemd/units/tmpfiles.d", "usr/lib/tmpfiles.d"),
];

/// The shells that there are completions for, and where each looks.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/banger"),
    ("zsh", "usr/share/zsh/site-functions/_banger"),
    ("fish", "usr/share/fish/vendor_completions.d/banger.fish"),
];

/// Puts all of it under `tree`.
pub fn install(programs: &Programs, tree: &Path) -> Result<()> {
    for (source, target) in [
        (&programs.banger, "usr/bin/banger"),
        (&programs.bangerd, "usr/libexec/bangerd"),
        (&programs.hostd, "usr/libexec/banger-hostd"),
        (&programs.guest, "usr/lib/banger/banger-guest"),
    ] {
        let target = tree.join(target);
        put(source, &target, 0o755)?;
        // Symbols are of no use without the sources, and ten times as large.
        machine::run(Command::new("/usr/bin/strip").arg("--strip-unneeded").arg(&target))?;
    }
    for (source, target) in FILES {
        put(&root().join(source), &tree.join(target), 0o644)?;
    }
    for (folder, target) in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).with_context(|| format!("cannot read {folder}"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                put(&entry.path(), &tree.join(target).join(entry.file_name()), 0o644)?;
            }
        }
    }
    for (shell, target) in COMPLETIONS {
        let script = banger_harness::output(Command::new(&programs.banger).args(["completion", shell]))?;
        let path = tree.join(target);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, script)?;
    }
    let manual = tree.join("usr/share/man/man1");
    fs::create_dir_all(&manual)?;
    machine::run(Command::new(&programs.banger).arg("manual").arg(&manual))?;
    compress_manual(tree)
}

/// Pages of the manual are kept compressed, the same each time (Debian Policy 12.1).
fn compress_manual(tree: &Path) -> Result<()> {
    for section in ["usr/share/man/man1", "usr/share/man/man8"] {
        let pages: Vec<PathBuf> = fs::read_dir(tree.join(section))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()?;
        machine::run(Command::new("/usr/bin/gzip").args(["-9n", "--"]).args(pages))?;
    }
    Ok(())
}

/// Copies a file to where it belongs.
pub fn put(source: &Path, target: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot install {} as {}", source.display(), target.display());
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).with_context(what)?;
    fs::copy(source, target).with_context(what)?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).with_context(what)
}
