//! Snapshots: memory, devices and disk at one moment; going back to it; another VM that goes on from it.

use crate::support::{ALICE, Vm, image, refused, vms};
use banger_harness::inside::{assert_no_residue, banger, kill_9, vm_pids};
use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt, chown},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Counts in its memory alone; the file tells how far it is.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo $n > /dev/shm/n; sleep 0.05; done";

/// How often something is looked at until it is as expected; between two looks a command runs in a guest.
const LOOKS: usize = 200;

/// A VM whose main process counts.
fn counting(name: &'static str) -> Vm {
    let vm = Vm(name);
    banger(ALICE, &["run", "-d", "--name", name, image(), "--", "sh", "-c", COUNTER]).expect(0);
    count_above(&vm, 2);
    vm
}

fn text(vm: &Vm, command: &[&str]) -> String {
    vm.exec(command).expect(0).text().trim().to_owned()
}

fn count(vm: &Vm) -> u64 {
    // The file is empty for a moment whenever it is written.
    (0..LOOKS).find_map(|_| text(vm, &["cat", "/dev/shm/n"]).parse().ok()).expect("a number")
}

/// Waits until the counter is above a number.
fn count_above(vm: &Vm, number: u64) {
    let above = (0..LOOKS)
        .any(|_| vm.exec(&["ls", "/dev/shm/n"]).text().contains("/dev/shm/n") && count(vm) > number);
    assert!(above, "the counter does not go on above {number}");
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn shown(name: &str) -> serde_json::Value {
    vms(ALICE).into_iter().find(|vm| vm["name"] == name).expect("the VM is listed")
}

#[test]
fn a_vm_goes_back_to_a_snapshot_and_its_memory_with_it() {
    let vm = counting("snapped");
    // What the clock shows then is not what it is to show after.
    vm.exec(&["/bin/busybox", "date", "-s", "@1000000000"]).expect(0);
    let boot = text(&vm, &["cat", "/proc/sys/kernel/random/boot_id"]);
    vm.exec(&["sh", "-c", "echo before > /before; sync"]).expect(0);
    banger(ALICE, &["vm", "snapshot", vm.0, "first"]).expect(0);
    let then = count(&vm);
    count_above(&vm, then);
    vm.exec(&["sh", "-c", "echo after > /after; sync"]).expect(0);

    refused(ALICE, &["vm", "snapshot", vm.0, "first"], "AlreadyExists");
    let listed = banger(ALICE, &["vm", "snapshots", vm.0, "--format", "json"]).expect(0).json();
    assert_eq!(listed[0]["name"], "first");
    assert!(listed[0]["memory"].as_u64().unwrap() > 1 << 20, "{listed}");
    assert!(listed[0]["disk"].as_u64().unwrap() > 1 << 20, "{listed}");
    assert_eq!(listed[0]["vmm"], shown(vm.0)["vmm"]);

    let begun = now();
    banger(ALICE, &["vm", "restore", vm.0, "first"]).expect(0);
    assert_eq!(vm_pids().len(), 1);
    assert_eq!(text(&vm, &["cat", "/proc/sys/kernel/random/boot_id"]), boot, "the same memory goes on");
    let guests: i64 = text(&vm, &["/bin/busybox", "date", "+%s"]).parse().unwrap();
    assert!((begun..=now() + 1).contains(&guests), "the guest's clock shows {guests}, begun at {begun}");
    count_above(&vm, count(&vm));
    assert_eq!(text(&vm, &["cat", "/before"]), "before");
    vm.exec(&["ls", "/after"]).expect(1);
    // A disk that is as its memory believes takes writes.
    vm.exec(&["sh", "-c", "echo again > /again && sync"]).expect(0);

    // A second time, and from a VM that does not run.
    banger(ALICE, &["vm", "stop", "--force", vm.0]).expect(0);
    refused(ALICE, &["vm", "snapshot", vm.0, "second"], "WrongState");
    banger(ALICE, &["vm", "restore", vm.0, "first"]).expect(0);
    assert_eq!(text(&vm, &["cat", "/proc/sys/kernel/random/boot_id"]), boot);
    vm.exec(&["ls", "/again"]).expect(1);

    banger(ALICE, &["vm", "snapshot-rm", vm.0, "first"]).expect(0);
    refused(ALICE, &["vm", "restore", vm.0, "first"], "NotFound");
    vm.remove();
}

#[test]
fn a_fork_runs_beside_its_parent_and_is_somebody_else() {
    let parent = counting("parent");
    let id = "0123456789abcdef0123456789abcdef";
    vm_file(&parent, "/etc/machine-id", id);
    banger(ALICE, &["vm", "publish", parent.0, "18098:80"]).expect(0);
    let (child, number) = (Vm("child"), count(&parent));
    banger(ALICE, &["vm", "fork", parent.0, child.0]).expect(0);
    assert_eq!(vm_pids().len(), 2);
    let ports = |name| shown(name)["ports"].as_array().map(Vec::len);
    assert_eq!((ports(parent.0), ports(child.0)), (Some(1), Some(0)), "a port of the host is one VM's");

    // Both go on from the same moment.
    count_above(&parent, number);
    count_above(&child, number);
    assert!(count(&child) < number + 100_000);
    let both = |command: &[&str]| (text(&parent, command), text(&child, command));
    let (parents, childs) = both(&["cat", "/proc/sys/kernel/random/boot_id"]);
    assert_eq!(parents, childs, "the same memory");

    assert_eq!(both(&["hostname"]), (parent.0.to_owned(), child.0.to_owned()));
    let (parents, childs) = both(&["cat", "/etc/machine-id"]);
    assert!(parents == id && childs != id && childs.len() == 32, "{parents} {childs}");
    let (parents, childs) = both(&["cat", "/sys/class/net/eth0/address"]);
    assert_ne!(parents, childs, "each has its own MAC address");
    let (parents, childs) = both(&["sh", "-c", "head -c 64 /dev/urandom | sha256sum"]);
    assert_ne!(parents, childs, "each has its own random numbers");
    assert!(text(&child, &["cat", "/etc/hosts"]).contains(child.0));

    // Each answers at its own address: nothing listens there, which only the guest can say.
    for vm in [&parent, &child] {
        let address = shown(vm.0)["addresses"][0].as_str().unwrap().to_owned();
        assert!(text(vm, &["/bin/busybox", "ip", "address"]).contains(&address), "{address}");
        let socket = SocketAddr::new(address.parse().unwrap(), 9);
        let refused = TcpStream::connect_timeout(&socket, Duration::from_secs(30)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{} at {address}", vm.0);
    }
    let snapshots = banger(ALICE, &["vm", "snapshots", parent.0, "--format", "json"]).expect(0).json();
    assert_eq!(snapshots.as_array().map(Vec::len), Some(0), "the fork's own snapshot went again");

    // The child is a VM like any other.
    banger(ALICE, &["vm", "rm", "--force", parent.0]).expect(0);
    vm_file(&child, "/mine", "mine");
    banger(ALICE, &["vm", "restart", child.0]).expect(0);
    assert_eq!(text(&child, &["cat", "/mine"]), "mine");
    child.remove();
}

fn vm_file(vm: &Vm, path: &str, content: &str) {
    vm.exec(&["sh", "-c", &format!("echo {content} > {path} && sync")]).expect(0);
}

#[test]
fn what_a_snapshot_left_unfinished_goes_with_the_next_start_of_the_service() {
    let vm = counting("unfinished");
    let id = shown(vm.0)["id"].as_str().unwrap().to_owned();
    let machine = format!("/var/lib/banger/vms/{id}");
    let folder = format!("{machine}/snapshots/half.unfinished");
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/memory"), b"half").unwrap();
    // As the service would have left it.
    let owner = fs::metadata(&machine).unwrap();
    for path in [format!("{machine}/snapshots"), folder.clone(), format!("{folder}/memory")] {
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let listed = banger(ALICE, &["vm", "snapshots", vm.0, "--format", "json"]).expect(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(0), "what is not whole is not there: {listed}");
    assert_eq!(kill_9("bangerd"), 1);
    assert_eq!(shown(vm.0)["state"], "running");
    assert!(!fs::exists(&folder).unwrap(), "it went");
    vm.remove();
    assert_no_residue();
}
