//! A VM's life: created, started, stopped, restarted, listed, removed; and the kernel that it runs.

use crate::support::{ALICE, Vm, image, refused, state, vms};
use banger_harness::inside::{self, assert_no_residue, banger};
use std::{fs, os::unix::fs::FileExt, path::Path};

#[test]
fn a_vm_keeps_its_disk_over_a_stop_and_a_restart() {
    let vm = Vm("lasting");
    let created =
        banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", vm.0]).expect(0);
    assert_eq!(created.text().trim(), vm.0, "{created}");
    assert_eq!(state(vm.0).as_deref(), Some("created"));
    refused(ALICE, &["exec", vm.0, "--", "true"], "WrongState");

    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("running"));
    assert_eq!(inside::vm_pids().len(), 1);
    refused(ALICE, &["vm", "rm", vm.0], "WrongState");
    // Not synced by the command: a stop is graceful and does it.
    vm.exec(&["sh", "-c", "echo kept > /kept"]).expect(0);

    banger(ALICE, &["vm", "stop", vm.0]).expect(0);
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    assert!(inside::vm_pids().is_empty(), "a stopped VM has no process");
    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    assert_eq!(vm.exec(&["cat", "/kept"]).expect(0).text(), "kept\n");
    banger(ALICE, &["vm", "restart", vm.0]).expect(0);
    assert_eq!(vm.exec(&["cat", "/kept"]).expect(0).text(), "kept\n");

    banger(ALICE, &["vm", "kill", vm.0]).expect(0);
    assert!(inside::vm_pids().is_empty());
    banger(ALICE, &["vm", "rm", vm.0]).expect(0);
    assert_no_residue();
}

#[test]
fn a_vm_in_the_background_prints_its_name_and_runs_on() {
    let vm = Vm("background");
    let ran = banger(ALICE, &["run", "-d", "--name", vm.0, image(), "--", "sleep", "1000"]).expect(0);
    assert_eq!(ran.text().trim(), vm.0, "{ran}");
    assert_eq!(state(vm.0).as_deref(), Some("running"));
    let shown = banger(ALICE, &["vm", "show", vm.0, "--format", "json"]).expect(0).json();
    assert_eq!(shown[0]["image"], image());
    assert!(shown[0]["pid"].as_u64().is_some_and(|pid| pid > 0), "{shown}");
    banger(ALICE, &["vm", "logs", vm.0]).expect(0);
    vm.remove();
}

#[test]
fn the_process_of_a_vm_has_no_rights() {
    let vm = Vm::start("confined");
    let pids = inside::vm_pids();
    let [pid] = pids[..] else { panic!("one VM, these processes: {pids:?}") };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for sets in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(sets), ["0000000000000000"], "{sets}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Groups"), Vec::<String>::new(), "no supplementary groups");
    let uids = field("Uid");
    assert!(
        uids.iter().all(|uid| *uid == uids[0] && uid.parse::<u32>().unwrap() >= 1_900_000_000),
        "{uids:?}"
    );
    vm.remove();
}

#[test]
fn several_vms_run_side_by_side() {
    let (one, two) = (Vm::start("side-one"), Vm::start("side-two"));
    assert_eq!(vms(ALICE).len(), 2);
    one.exec(&["sh", "-c", "echo one > /mine"]).expect(0);
    two.exec(&["ls", "/mine"]).expect(1);
    banger(ALICE, &["vm", "rm", "--force", one.0]).expect(0);
    two.exec(&["true"]).expect(0);
    two.remove();
}

#[test]
fn an_imported_kernel_boots_and_goes_again() {
    let release =
        fs::read_dir("/lib/modules").unwrap().flatten().map(|entry| entry.file_name()).find(|release| {
            let modules = Path::new("/lib/modules").join(release).join("modules.dep");
            modules.exists() && Path::new("/boot").join(format!("vmlinuz-{}", release.display())).exists()
        });
    let release = release.expect("a kernel with its modules").into_string().unwrap();
    // A distribution may keep its kernel readable by root alone; a user imports a copy of their own.
    let kernel = "/run/home/alice/vmlinuz";
    fs::copy(format!("/boot/vmlinuz-{release}"), kernel).unwrap();
    std::os::unix::fs::chown(kernel, Some(banger_harness::ALICE_UID), None).unwrap();
    let modules = format!("/lib/modules/{release}");
    banger(ALICE, &["kernel", "import", "--kernel", kernel, "--modules", &modules, "mine"]).expect(0);
    let listed = banger(ALICE, &["kernel", "ls", "--format", "json"]).expect(0).json();
    assert!(listed.as_array().unwrap().iter().any(|kernel| kernel["name"] == "mine"), "{listed}");
    let ran = banger(ALICE, &["run", "--rm", "--kernel", "mine", image(), "--", "uname", "-r"]).expect(0);
    assert_eq!(ran.text().trim(), release);
    banger(ALICE, &["kernel", "rm", "mine"]).expect(0);
    fs::remove_file(kernel).unwrap();
    assert_no_residue();
}

#[test]
fn a_guest_that_does_not_come_up_says_why() {
    let vm = Vm("headless");
    banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", vm.0]).expect(0);
    let shown = banger(ALICE, &["vm", "show", vm.0, "--format", "json"]).expect(0).json();
    let disk = format!("/var/lib/banger/vms/{}/disk.img", shown[0]["id"].as_str().unwrap());
    // No filesystem begins with zeros.
    let file = fs::File::options().write(true).open(disk).unwrap();
    file.write_all_at(&[0; 64 << 10], 0).unwrap();

    let ran = refused(ALICE, &["vm", "start", vm.0], "VMMFailed");
    let told = ran.errors();
    assert!(told.contains("last lines") && told.contains("banger-guest: this guest does not boot"), "{ran}");
    assert_eq!(state(vm.0).as_deref(), Some("failed"));
    let log = banger(ALICE, &["vm", "logs", vm.0]).expect(0);
    assert!(log.text().contains("does not boot"), "{log}");
    assert!(inside::vm_pids().is_empty());
    vm.remove();
}
