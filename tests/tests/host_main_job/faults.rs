//! Faults: services killed in the middle, a registry that stalls, a person who presses Ctrl-C.

use crate::support::{ALICE, Vm, image, image_names, refused, state, vms};
use banger_harness::{
    REGISTRY,
    inside::{self, assert_no_residue, banger, client, eventually, kill_9},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// A registry that passes everything on from the real one, but of each large blob only the first half: there it
/// stops, says so, and keeps the connection open.
struct Stalling {
    /// Host and port.
    address: String,
    stalled: Receiver<()>,
}

impl Stalling {
    fn start() -> Stalling {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, stalled) = channel();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                // A client that goes away in the middle is what is tested.
                thread::spawn(move || drop(pass_on(client, &sender)));
            }
        });
        Stalling { address, stalled }
    }

    /// Waits until a download hangs.
    fn wait(&self) {
        self.stalled.recv_timeout(std::time::Duration::from_secs(60)).expect("a download began");
    }
}

fn pass_on(client: TcpStream, stalled: &Sender<()>) -> std::io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    while lines.read_line(&mut request)? > 2 {}
    // One request per connection keeps this small.
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut server = TcpStream::connect(REGISTRY)?;
    server.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let mut client = client;
    if request.starts_with("GET") && request.contains("/blobs/") && answer.len() > 100_000 {
        client.write_all(&answer[..answer.len() / 2])?;
        // The test may be over.
        let _ = stalled.send(());
        // Until the client goes away.
        return std::io::copy(&mut client, &mut std::io::sink()).map(drop);
    }
    client.write_all(&answer)
}

/// Starts a pull that hangs in the middle of its download.
fn hanging_pull(name: &str) -> (Stalling, Child) {
    // A layer of its own, which no cache has.
    let layer = banger_harness::images::Tree::default().file("own", 0o644, name.as_bytes());
    let layer = layer.file("noise", 0o644, &noise(name)).finish().unwrap();
    inside::publish(&format!("{name}:1"), &[layer], &json!({"Cmd": ["/x"]})).unwrap();
    let registry = Stalling::start();
    let reference = format!("{}/{name}:1", registry.address);
    let mut command = client(ALICE, &["image", "pull", &reference]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    registry.wait();
    (registry, child)
}

/// A megabyte that does not compress, another one for each seed.
fn noise(seed: &str) -> Vec<u8> {
    let mut state =
        seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| state.rotate_left(8) ^ u64::from(byte));
    let next = || {
        // xorshift64*: Vigna, 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    std::iter::repeat_with(next).take(1 << 17).flatten().collect()
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_service_killed_in_the_middle_of_a_pull() {
    let (_registry, pull) = hanging_pull("killed");
    assert_eq!(kill_9("bangerd"), 1);
    let (code, errors) = ended(pull);
    assert_eq!(code, 125, "{errors}");
    // The next call starts it again.
    assert!(!image_names().contains(&"killed-1".to_owned()), "half an image is listed");
    let jobs = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
    assert!(jobs.as_array().unwrap().iter().all(|job| job["state"] != "running"), "a dead job runs: {jobs}");
    assert_no_residue();
    // What is left in the cache does no harm.
    banger(ALICE, &["image", "pull", &format!("{REGISTRY}/killed:1")]).expect(0);
    banger(ALICE, &["image", "rm", "killed-1"]).expect(0);
}

#[test]
fn ctrl_c_cancels_the_pull() {
    let (_registry, pull) = hanging_pull("interrupted");
    kill(Pid::from_raw(pull.id().cast_signed()), Signal::SIGINT).unwrap();
    let (code, errors) = ended(pull);
    assert_eq!(code, 130, "{errors}");
    assert!(!image_names().contains(&"interrupted-1".to_owned()));
    assert_no_residue();
}

#[test]
fn a_job_is_cancelled_by_its_id() {
    let (_registry, pull) = hanging_pull("cancelled");
    let jobs = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
    let running = |job: &&serde_json::Value| job["kind"] == "pull-image" && job["state"] == "running";
    let job = jobs.as_array().unwrap().iter().find(running).unwrap_or_else(|| panic!("no such job: {jobs}"));
    let id = job["id"].as_str().unwrap();
    refused("bob", &["job", "cancel", id], "NotFound");
    banger(ALICE, &["job", "cancel", id]).expect(0);
    let (code, errors) = ended(pull);
    assert_eq!(code, 125, "{errors}");
    assert_no_residue();
}

#[test]
fn the_service_killed_in_the_middle_of_a_boot() {
    let name = image();
    let vm = Vm("half-booted");
    let mut command = client(ALICE, &["vm", "create", "--image", name, "--name", vm.0]);
    let create = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the VM has a process", || !inside::vm_pids().is_empty());
    assert_eq!(kill_9("bangerd"), 1);
    // The client may have been told before; it must not hang.
    let (code, errors) = ended(create);
    assert!(code == 125 || code == 0, "code {code}: {errors}");

    // Rolled back (it is not listed), ended, or rolled forward; never for ever on its way.
    let mut last = None;
    eventually("the VM is in a state that lasts", || {
        last = state(vm.0);
        !matches!(last.as_deref(), Some("created" | "starting" | "stopping"))
    });
    match last.as_deref() {
        Some("running") => drop(vm.exec(&["true"]).expect(0)),
        // Nothing runs that the listing does not tell of.
        _ => eventually("no VM process is left", || inside::vm_pids().is_empty()),
    }
    if last.is_none() {
        return assert_no_residue();
    }
    vm.remove();
}

#[test]
fn a_vm_outlives_the_service_and_is_found_again() {
    let vm = Vm::start("survivor");
    let before = inside::vm_pids();
    vm.exec(&["sh", "-c", "echo still here > /tmp/note"]).expect(0);
    assert_eq!(kill_9("bangerd"), 1);
    assert_eq!(inside::vm_pids(), before, "the VM went with the service");
    assert_eq!(state(vm.0).as_deref(), Some("running"));
    assert_eq!(vm.exec(&["cat", "/tmp/note"]).expect(0).text(), "still here\n");
    vm.remove();
}

#[test]
fn a_vm_outlives_the_helper_and_is_found_again() {
    let vm = Vm::start("orphan");
    let before = inside::vm_pids();
    assert_eq!(kill_9("banger-hostd"), 1);
    assert_eq!(inside::vm_pids(), before, "the VM went with the helper");
    vm.exec(&["true"]).expect(0);
    banger(ALICE, &["vm", "stop", vm.0]).expect(0);
    assert!(inside::vm_pids().is_empty());
    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    vm.exec(&["true"]).expect(0);
    vm.remove();
}

#[test]
fn a_vm_that_dies_on_its_own_is_told_of() {
    let vm = Vm::start("crashed");
    assert_ne!(inside::kill_vms(), 0);
    eventually("the VM is no longer called running", || state(vm.0).as_deref() != Some("running"));
    refused(ALICE, &["exec", vm.0, "--", "true"], "WrongState");
    // It can be started again.
    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    vm.exec(&["true"]).expect(0);
    vm.remove();
    assert!(vms(ALICE).is_empty());
}

#[test]
fn a_call_right_after_the_service_was_killed_is_answered() {
    for _ in 0..10 {
        vms(ALICE);
        for pid in inside::pids("bangerd") {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        // Nobody waits for it to be gone: the bus may still pass the call to it.
        vms(ALICE);
    }
}
