//! What is written down about a VM's process, so that another life of this helper finds it again.

use crate::disks::Device;
use banger_model::{Slot, VmId};
use serde::{Deserialize, Serialize};
use std::io;

/// `record.json` in the VM's run folder. It is there before the VMM's program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which VM.
    pub vm: VmId,
    /// Its slot.
    pub slot: Slot,
    /// Its process.
    pub pid: u32,
    /// When that process began ([`start_time`]).
    pub start_time: u64,
    /// In which life of the machine ([`boot_id`]).
    pub boot_id: String,
    /// Its disks.
    pub disks: Vec<Device>,
}

/// When a process began, in clock ticks since boot: with the pid and the boot's id it stands for
/// one process only. Field 22 of `/proc/<pid>/stat`, proc_pid_stat(5).
pub fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_start_time(stat: &[u8]) -> Option<u64> {
    // The second field is the program's name in parentheses, and may hold anything, parentheses too.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = str::from_utf8(&stat[after_name..]).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The id that the kernel made up when the machine was started.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_name_does_not_matter(name in "\\PC{0,15}", time: u64) {
            let stat = format!("7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {time} 99 100");
            prop_assert_eq!(parse_start_time(stat.as_bytes()), Some(time));
        }

        #[test]
        fn never_panics(stat: Vec<u8>) {
            let _ = parse_start_time(&stat);
        }
    }

    #[test]
    fn this_process_has_one() {
        let time = start_time(std::process::id()).unwrap();
        assert!(time > 0);
        assert_eq!(start_time(std::process::id()).unwrap(), time);
        assert!(!boot_id().unwrap().is_empty());
    }
}
