//! The kernels that the host's distribution has installed.

use crate::{KernelError, compare_releases};
use banger_model::KernelName;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kernel of the host whose modules are beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKernel {
    /// The release, as `uname -r` would show it.
    pub release: KernelName,
    /// The kernel image. Some distributions let only root read it.
    pub image: PathBuf,
    /// The folder of its modules, which holds `modules.dep`.
    pub modules: PathBuf,
    /// Whether the host runs it now.
    pub running: bool,
}

/// Kernels under `boot` (`/boot`) whose modules are under `modules` (`/lib/modules`): the one called
/// `running` first, then the newest. What cannot be read counts as not there.
pub fn host_kernels(boot: &Path, modules: &Path, running: &str) -> Vec<HostKernel> {
    let Ok(entries) = fs::read_dir(modules) else { return Vec::new() };
    let mut kernels: Vec<HostKernel> = entries
        .flatten()
        .filter_map(|entry| {
            let release: KernelName = entry.file_name().to_str()?.parse().ok()?;
            let modules = entry.path();
            if !modules.join("modules.dep").is_file() {
                return None;
            }
            let image = image_of(boot, &modules, &release)?;
            let running = release.as_str() == running;
            Some(HostKernel { release, image, modules, running })
        })
        .collect();
    kernels.sort_by(|a, b| {
        b.running.cmp(&a.running).then_with(|| compare_releases(b.release.as_str(), a.release.as_str()))
    });
    kernels
}

/// [`host_kernels`] of this system: `/boot` and `/lib/modules`, or `/usr/lib/modules` where that is another
/// folder.
pub fn system_kernels() -> Vec<HostKernel> {
    let running = running_release();
    let boot = Path::new("/boot");
    let found = host_kernels(boot, Path::new("/lib/modules"), &running);
    if found.is_empty() { host_kernels(boot, Path::new("/usr/lib/modules"), &running) } else { found }
}

/// The kernel that a VM gets when nothing is configured: the first of `kernels`.
///
/// # Errors
/// [`KernelError::NoKernel`] says what to install or import.
pub fn default_kernel(kernels: Vec<HostKernel>) -> Result<HostKernel, KernelError> {
    kernels.into_iter().next().ok_or(KernelError::NoKernel)
}

/// The release of the running kernel (uname(2)), or nothing where /proc does not tell.
pub fn running_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_owned()
}

/// Where distributions put the image: Debian, Ubuntu, Fedora and openSUSE under /boot by release, Fedora and
/// others beside the modules, Arch under /boot by the package's name.
fn image_of(boot: &Path, modules: &Path, release: &KernelName) -> Option<PathBuf> {
    let mut candidates = vec![boot.join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    if let Ok(package) = fs::read_to_string(modules.join("pkgbase")) {
        let package: KernelName = package.trim_end().parse().ok()?;
        candidates.push(boot.join(format!("vmlinuz-{package}")));
    }
    candidates.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn with(self, files: &[&str]) -> Self {
            for file in files {
                let path = self.0.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let content = if file.ends_with("pkgbase") { "linux-lts\n" } else { "" };
                fs::write(path, content).unwrap();
            }
            self
        }

        fn kernels(&self, running: &str) -> Vec<(String, String)> {
            host_kernels(&self.0.path().join("boot"), &self.0.path().join("lib/modules"), running)
                .into_iter()
                .map(|kernel| {
                    let image =
                        kernel.image.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                    assert_eq!(kernel.running, kernel.release.as_str() == running);
                    (kernel.release.to_string(), image)
                })
                .collect()
        }
    }

    fn releases(kernels: &[(String, String)]) -> Vec<&str> {
        kernels.iter().map(|(release, _)| release.as_str()).collect()
    }

    #[test]
    fn the_running_kernel_comes_first_then_the_newest() {
        let host = Host::new().with(&[
            "boot/vmlinuz-6.1.0-9-amd64",
            "lib/modules/6.1.0-9-amd64/modules.dep",
            "boot/vmlinuz-6.1.0-10-amd64",
            "lib/modules/6.1.0-10-amd64/modules.dep",
            "boot/vmlinuz-6.12.1-amd64",
            "lib/modules/6.12.1-amd64/modules.dep",
        ]);
        let newest_first = ["6.12.1-amd64", "6.1.0-10-amd64", "6.1.0-9-amd64"];
        assert_eq!(releases(&host.kernels("5.0")), newest_first);
        assert_eq!(releases(&host.kernels("6.1.0-9-amd64"))[..2], ["6.1.0-9-amd64", "6.12.1-amd64"]);
    }

    #[test]
    fn a_kernel_needs_both_image_and_modules() {
        let host = Host::new().with(&[
            "boot/vmlinuz-1",
            "boot/vmlinuz-2",
            "lib/modules/2/kernel/x.ko",
            "lib/modules/3/modules.dep",
            "boot/vmlinuz-.4",
            "lib/modules/.4/modules.dep",
        ]);
        assert_eq!(host.kernels("1"), []);
        let none = host_kernels(Path::new("/nonexistent"), Path::new("/nonexistent"), "");
        let error = default_kernel(none).unwrap_err();
        assert!(matches!(error, KernelError::NoKernel));
        for word in ["linux-image-cloud-amd64", "banger kernel import"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn fedora_and_arch_are_found_too() {
        let host = Host::new().with(&[
            "lib/modules/6.11.4-301.fc41.x86_64/modules.dep",
            "lib/modules/6.11.4-301.fc41.x86_64/vmlinuz",
            "boot/vmlinuz-linux-lts",
            "lib/modules/6.6.58-1-lts/modules.dep",
            "lib/modules/6.6.58-1-lts/pkgbase",
        ]);
        let expected = [
            ("6.11.4-301.fc41.x86_64", "lib/modules/6.11.4-301.fc41.x86_64/vmlinuz"),
            ("6.6.58-1-lts", "boot/vmlinuz-linux-lts"),
        ];
        assert_eq!(host.kernels(""), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn this_machine_knows_its_release() {
        assert!(!running_release().is_empty());
        for kernel in system_kernels() {
            assert!(kernel.image.is_file() && kernel.modules.is_dir(), "{kernel:?}");
        }
    }
}
