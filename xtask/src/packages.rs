//! The Debian and Ubuntu packages that a command needs, installed when they are missing.

use crate::machine;
use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

/// What packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building.
    Build,
    /// A private host that runs VMs.
    Host,
    /// Making images.
    Images,
    /// The tests.
    Test,
    /// The benchmarks' peers.
    Bench,
    /// The fuzzer, which is written in C++.
    Fuzz,
    /// Making a release.
    Dist,
    /// A whole Debian in a VM.
    System,
}

/// A package is there when its file is: quicker to see than asking dpkg, and right for what was built by hand.
struct Package {
    purpose: Purpose,
    name: &'static str,
    file: &'static str,
}

const fn package(purpose: Purpose, name: &'static str, file: &'static str) -> Package {
    Package { purpose, name, file }
}

const PACKAGES: &[Package] = &[
    package(Purpose::Build, "gcc", "/usr/bin/gcc"),
    package(Purpose::Build, "libc6-dev", "/usr/include/stdio.h"),
    package(Purpose::Host, "qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    package(Purpose::Host, "dbus", "/usr/bin/dbus-daemon"),
    package(Purpose::Host, "dbus", "/usr/bin/dbus-send"),
    package(Purpose::Host, "polkitd", "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"),
    package(Purpose::Host, "docker-registry", "/usr/bin/docker-registry"),
    package(Purpose::Host, "iproute2", "/usr/sbin/ip"),
    package(Purpose::Host, "nftables", "/usr/sbin/nft"),
    package(Purpose::Images, "ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    package(Purpose::Images, "mmdebstrap", "/usr/bin/mmdebstrap"),
    package(Purpose::Images, "skopeo", "/usr/bin/skopeo"),
    package(Purpose::Test, "bind9-dnsutils", "/usr/bin/dig"),
    package(Purpose::Test, "busybox-static", "/bin/busybox"),
    package(Purpose::Test, "cpio", "/usr/bin/cpio"),
    package(Purpose::Test, "openssl", "/usr/bin/openssl"),
    package(Purpose::Test, "skopeo", "/usr/bin/skopeo"),
    package(Purpose::Test, "openssl", "/usr/bin/openssl"),
    package(Purpose::Test, "umoci", "/usr/bin/umoci"),
    package(Purpose::Test, "e2fsprogs", "/sbin/e2fsck"),
    package(Purpose::Test, "e2fsprogs", "/sbin/mke2fs"),
    package(Purpose::Test, "tar", "/usr/bin/tar"),
    package(Purpose::Test, "e2fsprogs", "/sbin/mke2fs"),
    package(Purpose::Test, "zstd", "/usr/bin/zstd"),
    // busctl
    package(Purpose::Test, "systemd", "/usr/bin/busctl"),
    package(Purpose::Bench, "umoci", "/usr/bin/umoci"),
    package(Purpose::Bench, "e2fsprogs", "/sbin/mke2fs"),
    package(Purpose::Bench, "podman", "/usr/bin/podman"),
    package(Purpose::Bench, "isal", "/usr/bin/igzip"),
    package(Purpose::Fuzz, "g++", "/usr/bin/g++"),
    package(Purpose::System, "binutils", "/usr/bin/strip"),
    package(Purpose::System, "dpkg-dev", "/usr/bin/dpkg-shlibdeps"),
    package(Purpose::System, "e2fsprogs", "/sbin/mke2fs"),
    package(Purpose::System, "mmdebstrap", "/usr/bin/mmdebstrap"),
    package(Purpose::System, "qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    package(Purpose::System, "tar", "/usr/bin/tar"),
    package(Purpose::Dist, "zstd", "/usr/bin/zstd"),
    package(Purpose::Dist, "binutils", "/usr/bin/strip"),
    package(Purpose::Dist, "dpkg-dev", "/usr/bin/dpkg-shlibdeps"),
    package(Purpose::Dist, "rpm", "/usr/bin/rpmbuild"),
];

/// Installs what these purposes lack, and says which.
pub fn install(purposes: &[Purpose]) -> Result<()> {
    let wanted = PACKAGES.iter().filter(|package| purposes.contains(&package.purpose));
    let mut missing: Vec<&str> =
        wanted.filter(|package| !Path::new(package.file).exists()).map(|package| package.name).collect();
    if purposes.contains(&Purpose::Host) && !has_kernel(Path::new("/boot"), Path::new("/lib/modules")) {
        missing.push(kernel_package()?);
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this machine lacks, by their Debian names: {}", missing.join(" "));
    }
    eprintln!("installing packages: {}", missing.join(" "));
    update()?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    quiet(&arguments)?;
    if missing.contains(&"docker-registry") && Path::new("/run/systemd/system").exists() {
        // The package starts a registry for the whole network; nobody has asked for that.
        machine::run(machine::as_root("systemctl").args(["disable", "--now", "--quiet", "docker-registry"]))?;
    }
    Ok(())
}

/// Fetches the list of packages.
pub fn update() -> Result<()> {
    quiet(&["update"]).context("the list of packages cannot be fetched")
}

fn quiet(arguments: &[&str]) -> Result<()> {
    let mut command = machine::as_root("/usr/bin/env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]).args(arguments);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    machine::run(&mut command)
}

/// Whether there is a kernel that has its modules beside it.
fn has_kernel(boot: &Path, modules: &Path) -> bool {
    fs::read_dir(boot).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let release = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-"));
        release.is_some_and(|release| modules.join(release).join("modules.dep").exists())
    })
}

/// The package that stands for this distribution's newest kernel for virtual machines.
pub fn kernel_package() -> Result<&'static str> {
    let ids = machine::os_release("ID")
        .into_iter()
        .chain(machine::os_release("ID_LIKE"))
        .collect::<Vec<_>>()
        .join(" ");
    match ids {
        ids if ids.starts_with("ubuntu") => Ok("linux-image-virtual"),
        ids if ids.contains("debian") => Ok("linux-image-cloud-amd64"),
        ids => bail!("no kernel with modules under /boot and /lib/modules, and no package known for {ids:?}"),
    }
}
