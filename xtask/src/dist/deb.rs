//! The package for Debian and Ubuntu (deb(5), Debian Policy).

use super::{DESCRIPTION, SUMMARY, VERSION, files, tree};
use crate::{
    cargo::Programs,
    machine::{self, os_release, root},
};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What there must be beside the libraries that the programs name themselves.
const DEPENDS: &[&str] = &[
    "default-dbus-system-bus | dbus-system-bus",
    "init-system-helpers",
    "nftables",
    "passwd",
    "polkitd",
    "qemu-system-x86",
    "systemd",
];
/// What makes it better, and changes the host too much to come along unasked.
const SUGGESTS: &[&str] = &["libnss-resolve", "systemd-resolved"];
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Builds `banger_VERSION_ARCH.deb` in `folder`.
///
/// # Errors
/// When a file is missing, or a tool of dpkg's fails.
pub fn build(programs: &Programs, folder: &Path) -> Result<PathBuf> {
    let stage = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tree = stage.path().join("banger");
    tree::install(programs, &tree)?;
    // The licence has its place, and a common one is not repeated (Debian Policy 12.5).
    let doc = tree.join("usr/share/doc/banger");
    fs::rename(doc.join("LICENSE"), doc.join("copyright")).context("the licence is missing")?;

    let control = tree.join("DEBIAN");
    let architecture = machine_architecture();
    fs::create_dir_all(&control)?;
    fs::write(control.join("md5sums"), md5sums(&tree)?)?;
    for script in SCRIPTS {
        tree::put(&root().join("packaging/deb").join(script), &control.join(script), 0o755)?;
    }
    let depends =
        libraries(stage.path(), &tree)?.into_iter().chain(DEPENDS.iter().map(|name| (*name).to_owned()));
    let fields = [
        ("Package", "banger".to_owned()),
        ("Version", VERSION.to_owned()),
        ("Architecture", architecture.to_owned()),
        ("Maintainer", "The banger developers <banger@localhost>".to_owned()),
        ("Section", "admin".to_owned()),
        ("Priority", "optional".to_owned()),
        ("Installed-Size", installed_kib(&tree)?.to_string()),
        ("Depends", depends.collect::<Vec<_>>().join(", ")),
        ("Suggests", SUGGESTS.join(", ")),
        ("Description", format!("{SUMMARY}\n {DESCRIPTION}")),
    ];
    let text: String = fields.iter().map(|(field, value)| format!("{field}: {value}\n")).collect();
    fs::write(control.join("control"), text)?;
    set_modes(&tree)?;

    let package = folder.join(format!("banger_{VERSION}_{architecture}.deb"));
    let mut build = Command::new("/usr/bin/dpkg-deb");
    build.args(["--root-owner-group", "-Zzstd", "-z3", "--build"]).arg(&tree).arg(&package);
    build.env("SOURCE_DATE_EPOCH", "0").stdout(std::process::Stdio::null());
    machine::run(&mut build)?;
    Ok(package)
}

fn machine_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Folders are everybody's to read, whatever the umask of whoever builds.
fn set_modes(tree: &Path) -> Result<()> {
    let folders = banger_harness::output(Command::new("/usr/bin/find").arg(tree).args(["-type", "d"]))?;
    for folder in folders.lines() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    for file in files(&tree.join("DEBIAN"))?.iter().filter(|file| !SCRIPTS.contains(&file.as_str())) {
        fs::set_permissions(tree.join("DEBIAN").join(file), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn md5sums(tree: &Path) -> Result<String> {
    let mut sums = Command::new("/usr/bin/md5sum");
    let names = files(tree)?.into_iter().filter(|file| !file.starts_with("DEBIAN/"));
    Ok(banger_harness::output(sums.current_dir(tree).arg("--").args(names))?)
}

fn installed_kib(tree: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in files(tree)? {
        bytes += fs::metadata(tree.join(file))?.len();
    }
    Ok(bytes.div_ceil(1024))
}

/// What the programs link to, as dpkg-shlibdeps(1) tells it.
fn libraries(stage: &Path, tree: &Path) -> Result<Vec<String>> {
    // It looks for a source package around it.
    fs::create_dir_all(stage.join("debian"))?;
    fs::write(stage.join("debian/control"), "Source: banger\n\nPackage: banger\nArchitecture: any\n")?;
    let mut ask = Command::new("/usr/bin/dpkg-shlibdeps");
    ask.current_dir(stage).arg("-O").arg("--warnings=0");
    for program in ["usr/bin/banger", "usr/libexec/bangerd", "usr/libexec/banger-hostd"] {
        ask.arg("-e").arg(tree.join(program));
    }
    let told = banger_harness::output(&mut ask)?;
    let list = told.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    let list = list.with_context(|| format!("dpkg-shlibdeps says {told:?} on {:?}", os_release("ID")))?;
    Ok(list.split(", ").map(str::to_owned).collect())
}
