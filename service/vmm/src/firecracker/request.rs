//! The requests of Firecracker's API that are made here, by the names of its description
//! (`src/firecracker/swagger/firecracker.yaml`).

use serde::{Deserialize, Serialize};

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Sets.
    Put,
    /// Changes.
    Patch,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Which version answers.
    Version,
    /// In which state the VM is.
    InstanceInfo,
    /// Before anything else: what is logged, and where.
    Logger(Logger),
    /// Before the start: where measurements go.
    Metrics(Metrics),
    /// Before the start: processors and memory.
    MachineConfig(MachineConfig),
    /// Before the start: kernel and initramfs.
    BootSource(BootSource),
    /// Before the start: a disk.
    Drive(Drive),
    /// Before the start: a network card.
    NetworkInterface(NetworkInterface),
    /// Before the start: sockets between host and guest.
    Vsock(Vsock),
    /// Before the start: a source of random numbers.
    Entropy(Entropy),
    /// Before the start: a balloon.
    Balloon(Balloon),
    /// After the start: what the balloon tells.
    BalloonStatistics,
    /// The start, and what may come after it.
    Action(Action),
    /// After the start: pause or resume.
    Vm(State),
    /// While paused: writes a snapshot.
    SnapshotCreate(SnapshotCreate),
    /// Instead of all that comes before a start: becomes a snapshot's VM.
    SnapshotLoad(SnapshotLoad),
}

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// An existing file or FIFO.
    pub log_path: String,
    /// `Error`, `Warning`, `Info`, `Debug`.
    pub level: String,
}

/// Where measurements go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// An existing file or FIFO.
    pub metrics_path: String,
}

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// 1 to 32.
    pub vcpu_count: u32,
    /// In MiB.
    pub mem_size_mib: u64,
}

/// Kernel, initramfs and command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// An uncompressed ELF.
    pub kernel_image_path: String,
    /// A cpio archive.
    pub initrd_path: String,
    /// The kernel's command line.
    pub boot_args: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Its name, also in the path.
    pub drive_id: String,
    /// A file or block device.
    pub path_on_host: String,
    /// Whether Firecracker adds `root=` to the command line.
    pub is_root_device: bool,
    /// Whether the guest may not write.
    pub is_read_only: bool,
    /// `Writeback`: a flush of the guest's reaches the disk. `Unsafe`: it does not.
    pub cache_type: String,
    /// The most that it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its name, also in the path.
    pub iface_id: String,
    /// The TAP.
    pub host_dev_name: String,
    /// `02:ba:6e:00:00:01`.
    pub guest_mac: String,
    /// The most that comes to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// The most that the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Of bytes.
    pub bandwidth: TokenBucket,
}

/// So much in so much time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// Bytes.
    pub size: u64,
    /// Milliseconds in which the bucket fills.
    pub refill_time: u64,
}

/// Sockets between host and guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's address, 3 or more.
    pub guest_cid: u32,
    /// The host's socket.
    pub uds_path: String,
}

/// A source of random numbers; it has no settings that matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {}

/// A balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// How much it takes from the guest, in MiB.
    pub amount_mib: u64,
    /// Whether the guest gets that back when it runs out of memory.
    pub deflate_on_oom: bool,
    /// Seconds between two reports of the guest's; 0 for none.
    pub stats_polling_interval_s: u64,
    /// Whether the guest tells which pages it does not use, so that the host has them back. Since 1.14.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free_page_reporting: bool,
}

/// The start, and what may come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action_type", deny_unknown_fields)]
pub enum Action {
    /// Starts the VM.
    InstanceStart,
    /// Presses three keys.
    SendCtrlAltDel,
    /// Writes what was measured.
    FlushMetrics,
}

/// Pause or resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", deny_unknown_fields)]
pub enum State {
    /// The processors stop.
    Paused,
    /// They run again.
    Resumed,
}

/// Where a snapshot goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// `Full`.
    pub snapshot_type: String,
    /// Processors and devices.
    pub snapshot_path: String,
    /// Memory.
    pub mem_file_path: String,
}

/// Where a snapshot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// Processors and devices.
    pub snapshot_path: String,
    /// Memory.
    pub mem_backend: MemoryBackend,
    /// Whether it runs at once.
    pub resume_vm: bool,
    /// Other TAPs than the snapshot's. Since 1.12.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
}

/// Where a snapshot's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// `File`.
    pub backend_type: String,
    /// The file.
    pub backend_path: String,
}

/// Another TAP than the snapshot's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// Whose.
    pub iface_id: String,
    /// Which.
    pub host_dev_name: String,
}

impl Request {
    /// Its method.
    pub fn method(&self) -> Method {
        match self {
            Request::Version | Request::InstanceInfo | Request::BalloonStatistics => Method::Get,
            Request::Vm(_) => Method::Patch,
            _ => Method::Put,
        }
    }

    /// Its path.
    pub fn path(&self) -> String {
        match self {
            Request::Version => "/version".into(),
            Request::InstanceInfo => "/".into(),
            Request::Logger(_) => "/logger".into(),
            Request::Metrics(_) => "/metrics".into(),
            Request::MachineConfig(_) => "/machine-config".into(),
            Request::BootSource(_) => "/boot-source".into(),
            Request::Drive(drive) => format!("/drives/{}", drive.drive_id),
            Request::NetworkInterface(card) => format!("/network-interfaces/{}", card.iface_id),
            Request::Vsock(_) => "/vsock".into(),
            Request::Entropy(_) => "/entropy".into(),
            Request::Balloon(_) => "/balloon".into(),
            Request::BalloonStatistics => "/balloon/statistics".into(),
            Request::Action(_) => "/actions".into(),
            Request::Vm(_) => "/vm".into(),
            Request::SnapshotCreate(_) => "/snapshot/create".into(),
            Request::SnapshotLoad(_) => "/snapshot/load".into(),
        }
    }

    /// Its body; none for a question.
    ///
    /// # Errors
    /// None with the values that these types have.
    pub fn body(&self) -> serde_json::Result<Option<Vec<u8>>> {
        match self {
            Request::Version | Request::InstanceInfo | Request::BalloonStatistics => return Ok(None),
            Request::Logger(body) => serde_json::to_vec(body),
            Request::Metrics(body) => serde_json::to_vec(body),
            Request::MachineConfig(body) => serde_json::to_vec(body),
            Request::BootSource(body) => serde_json::to_vec(body),
            Request::Drive(body) => serde_json::to_vec(body),
            Request::NetworkInterface(body) => serde_json::to_vec(body),
            Request::Vsock(body) => serde_json::to_vec(body),
            Request::Entropy(body) => serde_json::to_vec(body),
            Request::Balloon(body) => serde_json::to_vec(body),
            Request::Action(body) => serde_json::to_vec(body),
            Request::Vm(body) => serde_json::to_vec(body),
            Request::SnapshotCreate(body) => serde_json::to_vec(body),
            Request::SnapshotLoad(body) => serde_json::to_vec(body),
        }
        .map(Some)
    }
}
