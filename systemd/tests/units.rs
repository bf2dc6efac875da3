//! The unit files name what the code names.

use banger_systemd::paths;
use std::path::Path;

/// The values of `key` in a unit file, in their order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let assigned = |line: &str| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned());
    read(unit).lines().filter_map(assigned).collect()
}

fn read(unit: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("units").join(unit);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn bangerd_is_the_unprivileged_service() {
    let unit = "bangerd.service";
    assert_eq!(values(unit, "ExecStart"), [paths::BANGERD]);
    assert_eq!(values(unit, "User"), [paths::USER]);
    assert_eq!(values(unit, "Group"), [paths::USER]);
    assert_eq!(values(unit, "BusName"), [paths::BUS_NAME]);
    assert_eq!(values(unit, "StateDirectory"), [paths::STATE.strip_prefix("/var/lib/").unwrap()]);
    assert_eq!(values(unit, "StateDirectoryMode"), ["0700"]);
    assert_eq!(values(unit, "CapabilityBoundingSet"), [""]);
    assert_eq!(values(unit, "NoNewPrivileges"), ["yes"]);
    assert_eq!(values(unit, "Type"), ["notify"]);
    // Both would hide what guests' kernels are found by.
    assert_eq!(values(unit, "ProtectKernelModules").len() + values(unit, "ProcSubset").len(), 0);
}

#[test]
fn only_bangerd_reaches_the_helper() {
    let socket = "banger-hostd.socket";
    assert_eq!(values(socket, "ListenSequentialPacket"), [paths::HOSTD_SOCKET]);
    assert_eq!(values(socket, "SocketUser"), [paths::USER]);
    assert_eq!(values(socket, "SocketMode"), ["0600"]);
    assert_eq!(values("banger-hostd.service", "ExecStart"), [paths::HOSTD]);
    assert_eq!(values("banger-hostd.service", "ReadWritePaths"), [paths::RUNTIME, "/proc/sys/net"]);
}

#[test]
fn the_helper_may_open_what_it_works_with() {
    let allowed = values("banger-hostd.service", "DeviceAllow");
    for device in [
        "/dev/kvm",
        "/dev/net/tun",
        "/dev/vhost-vsock",
        "/dev/loop-control",
        "block-loop",
        "/dev/mapper/control",
        "block-device-mapper",
    ] {
        assert!(allowed.iter().any(|line| line.split(' ').next() == Some(device)), "{device}: {allowed:?}");
    }
}

#[test]
fn vms_outlive_the_helper() {
    let unit = "banger-hostd.service";
    assert_eq!(values(unit, "KillMode"), ["process"]);
    assert_eq!(values(unit, "OOMPolicy"), ["continue"]);
    // systemd would remove it with the service; tmpfiles.d makes it instead.
    assert_eq!(values(unit, "RuntimeDirectory").len(), 0);
}

#[test]
fn user_and_folders_are_made() {
    let user = format!("u {} - \"Virtual machines from OCI images\" {} -", paths::USER, paths::STATE);
    assert!(read("sysusers.d/banger.conf").lines().any(|line| line == user));
    let folders = read("tmpfiles.d/banger.conf");
    for folder in [paths::RUNTIME, paths::RUNTIME_VMS] {
        let line = format!("d {folder} 0755 root root -");
        assert!(folders.lines().any(|other| other == line), "{line}");
    }
}
