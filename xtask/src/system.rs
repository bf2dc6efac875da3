//! The system lane: a Debian with systemd as its first process, booted in QEMU under emulation, in which the package is
//! installed and the scenarios of `tests/system` run. That host has a nested KVM, device-mapper, polkit, logind and resolved.

use crate::{
    cargo::{self, Profile, cargo},
    dist, image,
    machine::{self, target},
};
use anyhow::{Context, Result};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What the host has; banger's own dependencies are among them, because it has no network to fetch them from.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dbus",
    "dmsetup",
    "firewalld",
    "docker-registry",
    "init-system-helpers",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libnss-resolve",
    "libpam-systemd",
    "login",
    "nftables",
    "polkitd",
    "qemu-system-x86",
    "skopeo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];

/// Files that the host has beside its packages'.
const FILES: &[(&str, &str)] = &[
    ("etc/fstab", "/dev/vda / ext4 defaults 0 1\nLABEL=test /test ext4 ro 0 0\n"),
    ("etc/hostname", "system-test\n"),
    ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 system-test\n"),
    (
        "etc/sysusers.d/people.conf",
        "u alice 1000 \"Alice\" /home/alice /bin/bash\nu bob 1001 \"Bob\" /home/bob /bin/bash\n",
    ),
    (
        "etc/tmpfiles.d/people.conf",
        "d /home/alice 0700 alice alice -\nd /home/bob 0700 bob bob -\nd /run/home 0755 root root -\nd /run/home/bob 0700 bob bob -\n",
    ),
    ("etc/modules-load.d/kvm.conf", "kvm_amd\n"),
    (
        "etc/systemd/system/system-test.service",
        "[Unit]\nDescription=Scenarios\nRequiresMountsFor=/test\nAfter=systemd-user-sessions.service network.target dbus.service\n\n\
         [Service]\nExecStart=/test/system-scenarios\nTimeoutStopSec=5\n\n[Install]\nWantedBy=multi-user.target\n",
    ),
];

/// Links that the host has: what they are called, and where they lead.
const LINKS: &[(&str, &str)] = &[
    ("etc/systemd/system/multi-user.target.wants/system-test.service", "../system-test.service"),
    ("etc/systemd/system/docker-registry.service", "/dev/null"),
    // A scenario starts it.
    ("etc/systemd/system/firewalld.service", "/dev/null"),
    ("etc/systemd/system/serial-getty@.service", "/dev/null"),
    ("etc/systemd/system/apt-daily.timer", "/dev/null"),
    ("etc/systemd/system/apt-daily-upgrade.timer", "/dev/null"),
];

/// A processor with what nested virtualisation takes.
const PROCESSOR: &str = "EPYC,+svm";

/// The longest that it all may take, in seconds: a guest that hangs must end.
const LIMIT: &str = "1500";

/// A Debian that can be booted.
struct Host {
    kernel: PathBuf,
    initrd: PathBuf,
    disk: PathBuf,
}

/// Builds everything that there is to boot: the command that does it, whose standard output is what the scenarios say, and the
/// folder that has to be there meanwhile.
///
/// # Errors
/// When something cannot be built.
pub fn command(only: &str) -> Result<(Command, tempfile::TempDir)> {
    let programs = cargo::build(Profile::Debug)?;
    let host = host()?;
    let folder = tempfile::tempdir_in(machine::cache()?).context("cannot make a folder")?;
    let test = folder.path().join("test");
    fs::create_dir_all(&test)?;
    let package = dist::deb(&programs, &test)?;
    fs::rename(package, test.join("banger.deb"))?;
    fs::copy(target().join("debug/system-scenarios"), test.join("system-scenarios"))?;
    machine::run(Command::new("/usr/bin/strip").arg(test.join("system-scenarios")))?;
    fs::write(test.join("only"), only)?;
    if let Some(firecracker) = firecracker() {
        eprintln!("with {}", firecracker.display());
        fs::copy(firecracker, test.join("firecracker"))?;
    }
    let disk = folder.path().join("test.ext4");
    filesystem(&test, &disk, "256M", "test")?;

    let console = machine::cache()?.join("system-console.log");
    let mut qemu = Command::new("/usr/bin/timeout");
    qemu.args([LIMIT, "/usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-M", "q35", "-m", "3G", "-smp", "2"]);
    qemu.arg("-kernel").arg(&host.kernel).arg("-initrd").arg(&host.initrd);
    qemu.args([
        "-append",
        "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no net.ifnames=0 panic=-1",
    ]);
    for (path, how) in [(&host.disk, "snapshot=on"), (&disk, "readonly=on")] {
        qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,{how}", path.display()));
    }
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    // What the host writes goes here.
    qemu.env("TMPDIR", folder.path());
    Ok((qemu, folder))
}

/// Firecracker, where it is on the PATH: that machine's own KVM is not needed, the booted host has one.
fn firecracker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("firecracker")).find(|program| program.is_file())
}

/// Builds the scenarios.
///
/// # Errors
/// When they do not build.
pub fn build() -> Result<()> {
    let mut build = cargo();
    build.args([
        "build",
        "--quiet",
        "--package=banger-tests",
        "--bin=system-scenarios",
        "--features=lane-system",
    ]);
    machine::run(&mut build).context("the scenarios do not build")
}

/// The host, made now if this is the first time, which takes minutes.
fn host() -> Result<Host> {
    let kernel = crate::packages::kernel_package()?;
    let packages: Vec<&str> = PACKAGES.iter().copied().chain([kernel]).collect();
    let mut hasher = DefaultHasher::new();
    (&packages, FILES, LINKS, machine::os_release("VERSION_CODENAME")).hash(&mut hasher);
    let folder = machine::cache()?.join(format!("system-{:016x}", hasher.finish()));
    let host = Host {
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.img"),
        disk: folder.join("root.ext4"),
    };
    if folder.is_dir() {
        return Ok(host);
    }
    eprintln!("making a Debian host from its packages, once");
    let part = folder.with_extension("part");
    let root = part.join("root");
    machine::run(machine::as_root("/bin/rm").args(["-rf", "--"]).arg(&part))?;
    fs::create_dir_all(&root)?;
    let archive = part.join("root.tar");
    image::bootstrap(&packages, &archive)?;
    let mut unpack = machine::as_root("/usr/bin/tar");
    unpack
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(&root);
    machine::run(&mut unpack)?;
    fs::remove_file(&archive)?;
    let own = part.join("own");
    lay_out(&own)?;
    // They are root's, whoever builds this.
    let mut copy = machine::as_root("/bin/cp");
    machine::run(copy.args(["-R", "--no-preserve=ownership", "--"]).arg(own.join(".")).arg(&root))?;
    for (begin, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        let mut found = fs::read_dir(root.join("boot"))?.flatten().map(|entry| entry.path());
        let found =
            found.find(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(begin)));
        fs::copy(found.with_context(|| format!("the host has no {begin}*"))?, part.join(name))?;
    }
    filesystem(&root, &part.join("root.ext4"), "6G", "root")?;
    machine::run(machine::as_root("/bin/rm").args(["-r", "--"]).arg(&root))?;
    fs::rename(&part, &folder).context("cannot name the host's folder")?;
    Ok(host)
}

/// A filesystem with what is in a folder.
fn filesystem(folder: &Path, image: &Path, size: &str, label: &str) -> Result<()> {
    let mut make = machine::as_root("/sbin/mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-L", label, "-d"]).arg(folder).arg(image).arg(size);
    machine::run(&mut make)
}

/// Writes the files that the host has beside its packages' into a folder.
fn lay_out(folder: &Path) -> Result<()> {
    let place = |path: &str| -> Result<PathBuf> {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(path)
    };
    for (path, text) in FILES {
        let path = place(path)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    for (path, leads) in LINKS {
        let path = place(path)?;
        std::os::unix::fs::symlink(leads, &path)
            .with_context(|| format!("cannot link {}", path.display()))?;
    }
    fs::create_dir_all(folder.join("test"))?;
    Ok(())
}
