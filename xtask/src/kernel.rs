//! A kernel as its distribution publishes it, for the tests: the packages of the machine's own distribution, fetched
//! once and kept.

use crate::{
    machine,
    packages::{self, kernel_package},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The packages that a kernel with its modules is made of: one for Debian, two for Ubuntu.
///
/// # Errors
/// When they cannot be fetched.
pub fn packages() -> Result<Vec<PathBuf>> {
    let meta = kernel_package()?;
    let image = match depends(meta) {
        Ok(image) => image,
        // The machine may know no packages yet.
        Err(_) => {
            packages::update()?;
            depends(meta)?
        }
    };
    let release = image.trim_start_matches("linux-image-");
    let folder = machine::cache()?.join(format!("kernel-{release}"));
    if !folder.is_dir() {
        let mut names = vec![image.clone()];
        names.extend(Some(format!("linux-modules-{release}")).filter(|name| is_known(name)));
        eprintln!("fetching {}, once", names.join(" "));
        let part = folder.with_extension("part");
        fs::create_dir_all(&part).context("cannot make a folder for packages")?;
        let mut download = Command::new("/usr/bin/apt-get");
        download.args(["-qq", "download"]).args(&names).current_dir(&part).stdin(Stdio::null());
        if machine::run(&mut download).is_err() {
            // What the lists name may have been replaced.
            packages::update()?;
            machine::run(&mut download)?;
        }
        fs::rename(&part, &folder).context("cannot name the folder of packages")?;
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).context("cannot read the folder of packages")? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

/// The kernel's package that a metapackage stands for.
fn depends(meta: &str) -> Result<String> {
    let mut command = Command::new("/usr/bin/apt-cache");
    let text = banger_harness::output(command.args(["depends", meta]))?;
    let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let image = names.find(|name| name.starts_with("linux-image-")).map(str::to_owned);
    image.with_context(|| format!("{meta} depends on no kernel"))
}

fn is_known(name: &str) -> bool {
    let mut command = Command::new("/usr/bin/apt-cache");
    let shown = command.args(["show", name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    shown.is_ok_and(|status| status.success())
}

/// Where the private host of the tests has them.
pub fn installed() -> Result<std::collections::BTreeMap<PathBuf, PathBuf>> {
    let packages = packages()?;
    ensure!(!packages.is_empty(), "no kernel package was fetched");
    let place = |(number, file)| (PathBuf::from(format!("/usr/lib/banger/test-kernel-{number}.deb")), file);
    Ok(packages.into_iter().enumerate().map(place).collect())
}
