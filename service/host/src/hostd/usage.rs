//! What a VM takes of the host: from its own control group where it has one, else from its process.
//!
//! The daemon sees no other process (`ProtectProc=invisible`), so it asks here.

use banger_host::VmUsage;
use banger_model::VmId;
use std::{fs, io, path::PathBuf};

/// A tick of `/proc/<pid>/stat`, in microseconds (`USER_HZ`, time(7)).
const TICK_US: u64 = 10_000;

/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What a VM takes whose process is `pid`, and its TAP `tap`.
///
/// # Errors
/// When the process is gone.
pub fn of(vm: VmId, tap: Option<&str>, pid: u32) -> io::Result<VmUsage> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (cpu_us, memory) = match own_group(&read("cgroup").unwrap_or_default(), vm).and_then(of_group) {
        Some(usage) => usage,
        None => (cpu_of(&read("stat")?), resident(&read("status")?)),
    };
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let (received, sent) = tap.and_then(|tap| traffic(&interfaces, tap)).unwrap_or_default();
    Ok(VmUsage { cpu_us, memory, received, sent })
}

/// The VM's own control group (version 2): the one that has its id in its name.
fn own_group(text: &str, vm: VmId) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = path.rsplit('/').next().is_some_and(|name| name.contains(&vm.to_string()));
    (own && !path.split('/').any(|part| part == "..")).then(|| PathBuf::from(CGROUPS).join(path))
}

fn of_group(folder: PathBuf) -> Option<(u64, u64)> {
    let memory = fs::read_to_string(folder.join("memory.current")).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(folder.join("cpu.stat")).ok()?;
    let cpu = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    Some((cpu, memory))
}

/// Microseconds in user and kernel mode: fields 14 and 15 of `/proc/<pid>/stat`, proc_pid_stat(5).
fn cpu_of(stat: &str) -> u64 {
    // The second field is the program's name in parentheses, and may hold anything, parentheses too.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(14 - 3).take(2).filter_map(|n| n.parse::<u64>().ok());
    ticks.fold(0u64, u64::saturating_add).saturating_mul(TICK_US)
}

/// Bytes in memory (`VmRSS`, proc_pid_status(5)).
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// Bytes that the guest received and sent. What its TAP sends, the guest receives.
fn traffic(interfaces: &str, tap: &str) -> Option<(u64, u64)> {
    let line = interfaces.lines().find_map(|line| line.trim_start().strip_prefix(tap)?.strip_prefix(':'))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Some((*fields.get(8)?, *fields.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_takes_something() {
        let usage = of(VmId::from_bits(1), Some("bngr"), std::process::id()).unwrap();
        assert!(usage.memory > 0);
        assert_eq!((usage.received, usage.sent), (0, 0), "there is no such TAP");
    }

    #[test]
    fn a_guest_receives_what_its_tap_sends() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes    packets\n  bngr1: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n \
                    bngr12: 30 1 0 0 0 0 0 0 40 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text, "bngr1"), Some((20, 10)));
        assert_eq!(traffic(text, "bngr12"), Some((40, 30)));
        assert_eq!(traffic(text, "bngr2"), None);
    }

    #[test]
    fn only_a_group_of_its_own_counts() {
        let vm = VmId::from_bits(0xff);
        let own = own_group("1:name=systemd:/x\n0::/banger.slice/banger-vm-00000000000000ff.scope\n", vm);
        assert_eq!(
            own.unwrap(),
            PathBuf::from("/sys/fs/cgroup/banger.slice/banger-vm-00000000000000ff.scope")
        );
        for other in ["0::/user.slice\n", "0::/../banger-vm-00000000000000ff.scope\n", "", "0::/\n"] {
            assert_eq!(own_group(other, vm), None, "{other}");
        }
    }

    #[test]
    fn the_processors_time_is_behind_the_name() {
        assert_eq!(cpu_of("7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0"), 110_000);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(\\PC{0,12}[ :)/\n]){0,12}") {
            let _ = (cpu_of(&text), resident(&text), traffic(&text, "a"), own_group(&text, VmId::from_bits(1)));
        }
    }
}
