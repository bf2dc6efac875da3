//! What people use today for the same job.

use super::{folder, settle};
use crate::machine;
use anyhow::Result;
use banger_harness::{REGISTRY, output};
use std::{
    fmt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Room for the peer's filesystem, which is told its size before its content.
const SIZE: &str = "4G";

/// The usual way to a filesystem, with the tools that are made for it; as root, or the owners would be lost.
pub fn skopeo(name: &str) -> Result<Duration> {
    let folder = folder()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (layout, bundle, filesystem) = (path("layout"), path("bundle"), path("rootfs.ext4"));
    let image = format!("{layout}:latest");
    settle()?;
    let began = Instant::now();
    let (source, target) = (format!("docker://{REGISTRY}/{name}"), format!("oci:{image}"));
    let copy = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
    machine::run(Command::new("/usr/bin/skopeo").args(copy).args([source, target]))?;
    machine::run(Command::new("/usr/bin/umoci").args(["unpack", "--image", &image, &bundle]))?;
    let rootfs = format!("{bundle}/rootfs");
    let arguments = ["-q", "-t", "ext4", "-d", &rootfs, &filesystem, SIZE];
    machine::run(Command::new("/sbin/mke2fs").args(arguments))?;
    Ok(began.elapsed())
}

/// podman with a storage of its own, as root.
pub struct Podman {
    driver: &'static str,
}

impl fmt::Display for Podman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "podman pull ({})", self.driver)
    }
}

impl Podman {
    /// With the storage driver that works here: overlay, or else vfs, which copies each layer.
    pub fn new() -> Result<Self> {
        let folder = folder()?;
        let overlay = Self { driver: "overlay" };
        let works =
            output(overlay.command(folder.path()).args(["info", "--format", "{{.Store.GraphDriverName}}"]));
        overlay.reset(folder.path());
        Ok(if works.is_ok() { overlay } else { Self { driver: "vfs" } })
    }

    fn command(&self, storage: &Path) -> Command {
        let mut command = Command::new("/usr/bin/podman");
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        command.arg("--tmpdir").arg(storage.join("tmp")).args(["--storage-driver", self.driver]);
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=none"]);
        command
    }

    /// Unmounts what podman keeps mounted on its storage; nothing is there to unmount when it failed.
    fn reset(&self, storage: &Path) {
        let _ = Command::new("/bin/umount").arg("-q").arg(storage.join("root/overlay")).status();
    }

    /// How long a pull into an empty storage takes.
    pub fn pull(&self, name: &str) -> Result<Duration> {
        let folder = folder()?;
        settle()?;
        let began = Instant::now();
        let reference = format!("{REGISTRY}/{name}");
        let pulled =
            output(self.command(folder.path()).args(["pull", "--quiet", "--tls-verify=false", &reference]));
        let time = began.elapsed();
        self.reset(folder.path());
        pulled?;
        Ok(time)
    }
}
