//! Limits on what a VM may do, and the choice of what runs it.

use crate::support::{ALICE, Vm, image, refused, vms};
use banger_harness::inside::banger;
use std::time::{Duration, Instant};

#[test]
fn a_disk_is_no_quicker_than_its_limit() {
    let vm = Vm("slowly");
    let limit = ["--disk-bytes-per-second", "4M"];
    banger(ALICE, &[&["vm", "create", "--image", image(), "--name", vm.0], &limit[..]].concat()).expect(0);
    let begun = Instant::now();
    vm.exec(&["dd", "if=/dev/zero", "of=/much", "bs=1M", "count=24", "conv=fsync"]).expect(0);
    // A second's worth may come at once.
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    vm.remove();
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let create = |more: &[&str], error: &str| {
        let words = [&["vm", "create", "--no-start", "--image", image(), "--name", "never"], more].concat();
        refused(ALICE, &words, error)
    };
    create(&["--vmm", "bochs"], "InvalidSpec");
    create(&["--disk-bytes-per-second", "1"], "InvalidSpec");
    let told = create(&["--network-bytes-per-second", "1M"], "InvalidSpec");
    assert!(told.errors().contains("Firecracker"), "{told}");
    // The private host says accel = "tcg".
    let vm = Vm("forced");
    let forced = ["--vmm", "firecracker"];
    banger(
        ALICE,
        &[&["vm", "create", "--no-start", "--image", image(), "--name", vm.0], &forced[..]].concat(),
    )
    .expect(0);
    if fs_says_tcg() {
        let told = refused(ALICE, &["vm", "start", vm.0], "HostNotReady");
        assert!(told.errors().contains("KVM"), "{told}");
    }
    vm.remove();
}

fn fs_says_tcg() -> bool {
    std::fs::read_to_string("/etc/banger/config.toml").is_ok_and(|text| text.contains("tcg"))
}

#[test]
fn a_vm_says_what_runs_it() {
    let vm = Vm("told");
    banger(ALICE, &["vm", "create", "--vmm", "qemu", "--image", image(), "--name", vm.0]).expect(0);
    let shown = vms(ALICE).into_iter().find(|one| one["name"] == vm.0).unwrap();
    assert_eq!(shown["vmm"], "qemu");
    vm.remove();
}
