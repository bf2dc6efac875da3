//! `cargo xtask dist`: what a package would install, as one archive.

use crate::{
    cargo::{self, Profile},
    machine::{self, root},
    packages::{self, Purpose},
};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode},
};

/// Files that are in the checkout as they are installed: where they are, and where they go.
const FILES: &[(&str, &str)] = &[
    ("dbus/org.banger.Manager.conf", "usr/share/dbus-1/system.d/org.banger.Manager.conf"),
    ("dbus/org.banger.Manager.service", "usr/share/dbus-1/system-services/org.banger.Manager.service"),
    ("polkit/org.banger.manager.policy", "usr/share/polkit-1/actions/org.banger.manager.policy"),
    ("packaging/udev/60-banger.rules", "usr/lib/udev/rules.d/60-banger.rules"),
    ("LICENSE", "usr/share/doc/banger/LICENSE"),
    ("README.md", "usr/share/doc/banger/README.md"),
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

/// Builds and writes `dist/banger-VERSION-ARCH.tar.zst`. The same sources give the same archive.
pub fn run() -> Result<ExitCode> {
    packages::install(&[Purpose::Build, Purpose::Dist])?;
    let programs = cargo::build(Profile::Release)?;
    let name = format!("banger-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dist = root().join("dist");
    let stage = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tree = stage.path().join(&name);

    for (source, target) in [
        (&programs.banger, "usr/bin/banger"),
        (&programs.bangerd, "usr/libexec/bangerd"),
        (&programs.hostd, "usr/libexec/banger-hostd"),
        (&programs.guest, "usr/lib/banger/banger-guest"),
    ] {
        put(source, &tree.join(target), 0o755)?;
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

    fs::create_dir_all(&dist)?;
    let archive = dist.join(format!("{name}.tar.zst"));
    let mut tar = Command::new("/usr/bin/tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "--mtime=@0"]);
    tar.args(["--use-compress-program=/usr/bin/zstd -q -19 -T0", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(stage.path());
    machine::run(tar.arg(&name))?;
    println!("{}", archive.display());
    Ok(ExitCode::SUCCESS)
}

fn put(source: &Path, target: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot install {} as {}", source.display(), target.display());
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).with_context(what)?;
    fs::copy(source, target).with_context(what)?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).with_context(what)
}
