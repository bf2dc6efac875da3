//! What a Firecracker is told, in its order: everything before the start, or a snapshot instead of all that.

use super::request::{
    Action, Balloon, BootSource, Drive, Entropy, Logger, MachineConfig, MemoryBackend, Metrics,
    NetworkInterface, NetworkOverride, RateLimiter, SnapshotLoad, TokenBucket, Vsock,
};
use super::{Request, Version, paths};
use crate::{IoLimits, kernel_command_line};
use banger_model::{Accel, Bytes, MachineSize};

/// A VM, as Firecracker is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Processors and memory.
    pub size: MachineSize,
    /// For each disk, whether the guest writes to it; the root first.
    pub writable: Vec<bool>,
    /// The name of its TAP.
    pub tap: String,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The guest's address on its vsock.
    pub cid: u32,
    /// The most that it may do.
    pub limits: IoLimits,
}

/// The name of the disk.
const DRIVE: &str = "root";
/// The name of the network card.
const CARD: &str = "eth0";
/// Seconds between two reports of the guest's balloon.
const BALLOON_INTERVAL: u64 = 1;
/// A bucket holds what comes in so many milliseconds: short, so that a limit is one from the start.
const REFILL: u64 = 100;

/// The requests that start a VM.
pub fn boot(setup: &Setup, version: Version) -> Vec<Request> {
    let mut requests = vec![
        logger(),
        metrics(),
        Request::MachineConfig(MachineConfig {
            vcpu_count: setup.size.cpus.0,
            mem_size_mib: setup.size.memory.0 / Bytes::mib(1).0,
        }),
        Request::BootSource(BootSource {
            kernel_image_path: paths::KERNEL.into(),
            initrd_path: paths::INITRD.into(),
            boot_args: kernel_command_line(Accel::Kvm, None),
        }),
    ];
    requests.extend(setup.writable.iter().enumerate().map(|(number, writable)| {
        Request::Drive(Drive {
            drive_id: if number == 0 { DRIVE.into() } else { format!("volume{number}") },
            path_on_host: paths::disk(number),
            // The initramfs mounts it.
            is_root_device: false,
            is_read_only: !writable,
            cache_type: "Writeback".into(),
            rate_limiter: setup.limits.disk.map(limiter),
        })
    }));
    requests.extend([
        Request::NetworkInterface(NetworkInterface {
            iface_id: CARD.into(),
            host_dev_name: setup.tap.clone(),
            guest_mac: setup.mac.map(|byte| format!("{byte:02x}")).join(":"),
            rx_rate_limiter: setup.limits.network.map(limiter),
            tx_rate_limiter: setup.limits.network.map(limiter),
        }),
        Request::Vsock(Vsock { guest_cid: setup.cid, uds_path: paths::VSOCK.into() }),
        Request::Entropy(Entropy {}),
        Request::Balloon(Balloon {
            amount_mib: 0,
            deflate_on_oom: true,
            stats_polling_interval_s: BALLOON_INTERVAL,
            free_page_reporting: version >= Version::REPORTING,
        }),
        Request::Action(Action::InstanceStart),
    ]);
    requests
}

/// The requests that restore a snapshot, paused, onto another TAP.
pub fn load(tap: &str) -> Vec<Request> {
    vec![
        logger(),
        metrics(),
        Request::SnapshotLoad(SnapshotLoad {
            snapshot_path: paths::SNAPSHOT_STATE.into(),
            mem_backend: MemoryBackend {
                backend_type: "File".into(),
                backend_path: paths::SNAPSHOT_MEMORY.into(),
            },
            resume_vm: false,
            network_overrides: vec![NetworkOverride { iface_id: CARD.into(), host_dev_name: tap.into() }],
        }),
    ]
}

fn logger() -> Request {
    Request::Logger(Logger { log_path: paths::LOG.into(), level: "Warning".into() })
}

fn metrics() -> Request {
    Request::Metrics(Metrics { metrics_path: paths::METRICS.into() })
}

fn limiter(per_second: Bytes) -> RateLimiter {
    // A packet of 64 KiB has to fit, or it never goes.
    let size = (per_second.0 * REFILL / 1000).max(64 << 10);
    let refill_time = (size * 1000 / per_second.0.max(1)).max(1);
    RateLimiter { bandwidth: TokenBucket { size, refill_time } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::Cpus;
    use proptest::prelude::*;

    fn setup() -> Setup {
        Setup {
            size: MachineSize { cpus: Cpus(2), memory: Bytes::mib(512), disk: Bytes::gib(1) },
            writable: vec![true, false],
            tap: "bngr7".into(),
            mac: [2, 0xba, 0x6e, 0, 0, 7],
            cid: 10,
            limits: IoLimits::default(),
        }
    }

    #[test]
    fn the_start_comes_last_and_all_else_before() {
        let requests = boot(&setup(), Version::REPORTING);
        let paths: Vec<String> = requests.iter().map(Request::path).collect();
        assert_eq!(
            paths,
            [
                "/logger",
                "/metrics",
                "/machine-config",
                "/boot-source",
                "/drives/root",
                "/drives/volume1",
                "/network-interfaces/eth0",
                "/vsock",
                "/entropy",
                "/balloon",
                "/actions",
            ]
        );
        let text = |at: usize| String::from_utf8(requests[at].body().unwrap().unwrap()).unwrap();
        assert_eq!(text(2), r#"{"vcpu_count":2,"mem_size_mib":512}"#);
        assert!(text(6).contains(r#""guest_mac":"02:ba:6e:00:00:07""#) && !text(6).contains("limiter"));
        assert_eq!(text(10), r#"{"action_type":"InstanceStart"}"#);
        assert!(text(9).contains("free_page_reporting"));
        let old = boot(&setup(), Version::OLDEST);
        let balloon = String::from_utf8(old[9].body().unwrap().unwrap()).unwrap();
        assert!(!balloon.contains("reporting"), "an older one refuses what it does not know: {balloon}");
    }

    proptest! {
        /// What a bucket gives in the long run is what was asked for, and a packet always fits.
        #[test]
        fn a_limit_is_what_was_asked_for(rate in 1024u64..1 << 40) {
            let TokenBucket { size, refill_time } = limiter(Bytes(rate)).bandwidth;
            let given = size as f64 * 1000.0 / refill_time as f64;
            prop_assert!(size >= 64 << 10);
            prop_assert!((given / rate as f64 - 1.0).abs() < 0.02, "{given} for {rate}");
        }
    }
}
