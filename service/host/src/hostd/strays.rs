//! Processes that have a VM's user and that no record names: somebody took the run folder away below them. They hold
//! a disk and an address that would be given to the VM's next process too, so they are ended.

use crate::process::Process;
use crate::record::start_time;
use banger_model::Slot;
use std::collections::BTreeSet;
use std::io;

/// Ends every process with a user of a VM's whose pid is not in `known`.
pub fn end(known: &BTreeSet<u32>) -> io::Result<()> {
    let users: BTreeSet<u32> = Slot::all().map(Slot::uid).collect();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if known.contains(&pid) {
            continue;
        }
        // The time first: the process that has it when it is taken on has had the user ever since.
        let (Ok(time), Some(uid)) = (start_time(pid), user(pid)) else { continue };
        if !users.contains(&uid) {
            continue;
        }
        if let Some(process) = Process::adopt(pid, time)? {
            tracing::warn!(pid, uid, "ending a VM's process of which nothing is written down");
            process.end()?;
        }
    }
    Ok(())
}

/// The real user of a process (proc_pid_status(5)); none when it has gone.
fn user(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_user() {
        assert_eq!(user(std::process::id()), Some(rustix::process::getuid().as_raw()));
        assert_eq!(user(u32::MAX), None);
    }
}
