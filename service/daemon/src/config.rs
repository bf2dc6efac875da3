//! `/etc/banger/config.toml`: every key has a default, and an unknown key is an error that names its line.

use crate::image_limits::ImageLimits;
use banger_host::VmmKind;
use banger_model::{Accel, Bytes, DiskBackend, IpNetwork, Subnet};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/banger/config.toml";

/// What the administrator decides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// Images, kernels, VMs and the database.
    pub state: PathBuf,
    /// Sockets: the helper's, and one folder per running VM.
    pub run: PathBuf,
    /// The host's kernels, `vmlinuz-<release>`.
    pub boot: PathBuf,
    /// The modules of the host's kernels, a folder per release.
    pub modules: PathBuf,
    /// What is said about registries, `*.toml`; their certificates are in `certs.d` beside it.
    pub registries: PathBuf,
    /// The static guest binary, the `/init` of every initramfs.
    pub guest: PathBuf,
    /// Catalogues of images, and of kernels: folders of `*.json`, each of which may hold both.
    pub catalogue: PathBuf,
    /// See `catalogue`; read after it.
    pub kernel_catalogue: PathBuf,
    /// The user that the service runs as.
    pub user: String,
    /// What runs guests: `auto`, `kvm` or `tcg`.
    pub accel: AccelChoice,
    /// What runs VMs that ask for nothing else: `auto`, `qemu` or `firecracker`.
    pub vmm: VmmChoice,
    /// The kernel of a VM that names none: `host`, or the name of an imported one.
    pub kernel: String,
    /// What a VM gets that does not ask.
    pub defaults: Defaults,
    /// Consoles of VMs.
    pub console: Console,
    /// Bounds on waiting.
    pub timeouts: Timeouts,
    /// The VMs' network.
    pub network: Network,
    /// VMs' disks, and the room for them.
    pub disks: DisksConfig,
    /// Bounds on images.
    pub limits: ImageLimits,
    /// Names of VMs.
    pub dns: Dns,
}

/// How names of VMs are served.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Dns {
    /// Whether they are.
    pub enabled: bool,
    /// At which port of the bridge's addresses.
    pub port: u16,
}

/// VMs' disks, and the room for them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DisksConfig {
    /// How new ones are made: `auto`, `device-mapper`, `reflink` or `copy`.
    pub backend: BackendChoice,
    /// VMs that run are paused while the state folder's filesystem has less room than this, such as `1G` ...
    #[serde(deserialize_with = "bytes")]
    pub reserve: Bytes,
    /// ... or than this part of it, whichever is more.
    pub reserve_percent: u8,
    /// Size of a volume for which none is given. It takes only what is written to it.
    #[serde(deserialize_with = "bytes")]
    pub volume_size: Bytes,
}

/// `backend` in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// The best that there is.
    #[default]
    Auto,
    /// Snapshots, or nothing.
    DeviceMapper,
    /// Files that share blocks, or nothing.
    Reflink,
    /// Copies.
    Copy,
}

impl BackendChoice {
    /// The one that is forced, if one is.
    pub fn forced(self) -> Option<DiskBackend> {
        match self {
            BackendChoice::Auto => None,
            BackendChoice::DeviceMapper => Some(DiskBackend::DeviceMapper),
            BackendChoice::Reflink => Some(DiskBackend::Reflink),
            BackendChoice::Copy => Some(DiskBackend::Copy),
        }
    }
}

impl Default for DisksConfig {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            reserve: Bytes::gib(1),
            reserve_percent: 2,
            volume_size: Bytes::gib(10),
        }
    }
}

/// What a VM gets that does not ask for something else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Defaults {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, such as `1G`.
    #[serde(deserialize_with = "bytes")]
    pub memory: Bytes,
}

/// What is kept of VMs' consoles.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Console {
    /// Size at which a log begins anew; the one before it is kept. `4K` to `64M`.
    #[serde(deserialize_with = "log_size")]
    pub log: Bytes,
}

/// The network in which all VMs are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Network {
    /// Its IPv4 addresses: a private network with the prefix /19; one that nobody uses is chosen when none is given.
    #[serde(deserialize_with = "subnet")]
    pub subnet: Option<IpNetwork>,
}

/// How long things may take, in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Timeouts {
    /// A guest's first answer.
    pub boot: u64,
    /// A guest's first answer under KVM that has not yet worked on this host: after that, emulation.
    pub first_kvm_boot: u64,
    /// A guest's own shutdown; after that its process is ended.
    pub stop: u64,
}

/// `vmm` in the configuration, and as a VM's option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmmChoice {
    /// Firecracker where it is installed and works, QEMU otherwise.
    #[default]
    Auto,
    /// QEMU only.
    Qemu,
    /// Firecracker only.
    Firecracker,
}

impl VmmChoice {
    /// The one that is forced, if one is.
    pub fn forced(self) -> Option<VmmKind> {
        match self {
            VmmChoice::Auto => None,
            VmmChoice::Qemu => Some(VmmKind::Qemu),
            VmmChoice::Firecracker => Some(VmmKind::Firecracker),
        }
    }

    /// The choice of this word, if it is one.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(VmmChoice::Auto),
            "qemu" => Some(VmmChoice::Qemu),
            "firecracker" => Some(VmmChoice::Firecracker),
            _ => None,
        }
    }
}

/// `accel` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM where it works, emulation otherwise.
    Auto,
    /// KVM only.
    Kvm,
    /// Emulation only.
    Tcg,
}

impl AccelChoice {
    /// The one that is forced, if one is.
    pub fn forced(self) -> Option<Accel> {
        match self {
            AccelChoice::Auto => None,
            AccelChoice::Kvm => Some(Accel::Kvm),
            AccelChoice::Tcg => Some(Accel::Tcg),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/banger".into(),
            run: "/run/banger".into(),
            boot: "/boot".into(),
            modules: "/lib/modules".into(),
            registries: "/etc/banger/registries.d".into(),
            guest: "/usr/lib/banger/banger-guest".into(),
            catalogue: "/etc/banger/catalog.d".into(),
            kernel_catalogue: "/etc/banger/kernels.d".into(),
            user: "banger".into(),
            accel: AccelChoice::Auto,
            vmm: VmmChoice::Auto,
            kernel: "host".into(),
            defaults: Defaults::default(),
            console: Console::default(),
            timeouts: Timeouts::default(),
            network: Network::default(),
            disks: DisksConfig::default(),
            limits: ImageLimits::default(),
            dns: Dns::default(),
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { enabled: true, port: 53 }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { cpus: 1, memory: Bytes::mib(512) }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { log: Bytes::mib(1) }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { boot: 120, first_kvm_boot: 10, stop: 20 }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is there and cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or holds an unknown key or a wrong value.
    #[error("{path} is not a valid configuration: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads `path`; no file there means the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read or holds something wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.into(), source }),
        }
    }
}

fn log_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    match bytes(deserializer)? {
        size if (Bytes::kib(4)..=Bytes::mib(64)).contains(&size) => Ok(size),
        size => Err(serde::de::Error::custom(format!("a log of {size}: outside 4 KiB to 64 MiB"))),
    }
}

/// Reads a number of bytes, or a text such as `1G`.
///
/// # Errors
/// When it is neither.
pub(crate) fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(n) => Ok(Bytes(n)),
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Reads a network that VMs can be in.
fn subnet<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpNetwork>, D::Error> {
    let network = IpNetwork::deserialize(deserializer)?;
    Subnet::check_v4(network).map_err(serde::de::Error::custom)?;
    Ok(Some(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn keys_are_read() {
        let text =
            "accel = \"tcg\"\nstate = \"/s\"\n[defaults]\nmemory = \"1G\"\n[timeouts]\nfirst-kvm-boot = 3\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.accel.forced(), Some(Accel::Tcg));
        assert_eq!(config.state, Path::new("/s"));
        assert_eq!(config.defaults.memory, Bytes::gib(1));
        assert_eq!(config.defaults.cpus, Defaults::default().cpus);
        assert_eq!(config.timeouts.first_kvm_boot, 3);
    }

    #[test]
    fn a_console_log_has_bounds() {
        let log = |size: &str| toml::from_str::<Config>(&format!("[console]\nlog = {size:?}\n"));
        assert_eq!(log("64K").unwrap().console.log, Bytes::kib(64));
        for size in ["0", "4095", "65M"] {
            assert!(log(size).is_err(), "{size}");
        }
    }

    #[test]
    fn only_a_private_19_can_be_the_vms_network() {
        let read = |text: &str| toml::from_str::<Config>(&format!("[network]\nsubnet = {text:?}\n"));
        assert_eq!(read("10.1.32.0/19").unwrap().network.subnet.unwrap().to_string(), "10.1.32.0/19");
        for text in ["8.8.0.0/19", "10.0.0.0/8", "10.0.0.1/19", "fd00::/64", "x"] {
            assert!(read(text).unwrap_err().to_string().contains("line 2"), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "accel = \"tcg\"\nacell = \"kvm\"\n").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("acell"), "{error}");
        assert_eq!(Config::read(&folder.path().join("none")).unwrap(), Config::default());
    }
}
