//! Memory that a guest no longer uses is its host's again.

use crate::support::{ALICE, Vm, image};
use banger_harness::inside::{banger, vm_pids};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What a process really has, in MiB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn what_the_guest_frees_is_given_back() {
    let vm = Vm("lent");
    banger(ALICE, &["vm", "create", "--memory", "768M", "--image", image(), "--name", vm.0]).expect(0);
    let [pid] = vm_pids()[..] else { panic!("not one VM") };
    vm.exec(&["dd", "if=/dev/zero", "of=/dev/shm/much", "bs=1M", "count=300"]).expect(0);
    let full = resident(pid);
    assert!(full > 300, "{full} MiB");
    vm.exec(&["rm", "/dev/shm/much"]).expect(0);
    // The guest reports its free pages when it likes.
    let patience = Instant::now() + Duration::from_secs(120);
    while resident(pid) + 200 > full {
        assert!(Instant::now() < patience, "of {full} MiB, {} are still there", resident(pid));
        thread::sleep(Duration::from_millis(100));
    }
    vm.remove();
}
