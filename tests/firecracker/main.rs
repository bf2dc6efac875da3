//! A program that stands in for `firecracker` on a private host where there is none, or no KVM for it: the script of its API
//! in front, and the real agent as an ordinary process for a guest.
//!
//! It opens what the real one opens, by the same names and as the same user, so that a place in which something is missing,
//! or belongs to somebody else, fails here too. What it cannot show is that a kernel boots.

#![allow(clippy::unwrap_used, reason = "a stand-in that fails, fails its test")]

#[path = "../../service/vmm/tests/firecracker/script.rs"]
#[allow(dead_code, reason = "shared with the tests of the client")]
mod script;
#[path = "../../service/vmm/tests/firecracker/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the client")]
mod server;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use script::{Answer, Script};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const AGENT: &str = "/usr/lib/banger/banger-guest";

/// The VM: what it was told, and its guest's processes.
struct Vm {
    script: Script,
    vsock: Option<String>,
    agents: Vec<Pid>,
    connections: Vec<UnixStream>,
    /// It was written down while it stood still.
    written: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, socket] = arguments.as_slice() else { panic!("--api-sock PATH") };
    assert_eq!(flag, "--api-sock");
    let listener = UnixListener::bind(socket).unwrap();
    let vm = Arc::new(Mutex::new(Vm {
        script: Script::new("1.17.0"),
        vsock: None,
        agents: Vec::new(),
        connections: Vec::new(),
        written: false,
    }));
    for connection in listener.incoming().map_while(Result::ok) {
        let vm = Arc::clone(&vm);
        thread::spawn(move || {
            server::serve(connection, |method, path, body| answer(&vm, method, path, body))
        });
    }
}

/// The script's answer, unless what it is about cannot be done.
fn answer(vm: &Arc<Mutex<Vm>>, method: &str, path: &str, body: &[u8]) -> Answer {
    let answer = vm.lock().unwrap().script.answer(method, path, body);
    if answer.0 >= 300 || method == "GET" {
        return answer;
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    match act(vm, path, &body) {
        Ok(()) => answer,
        Err(error) => (400, Some(json!({"fault_message": format!("{path}: {error}")}))),
    }
}

fn act(vm: &Arc<Mutex<Vm>>, path: &str, body: &Value) -> io::Result<()> {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    match path {
        "/logger" => write_to(&text("log_path")).map(drop),
        // A pipe, of which somebody may have the other end.
        "/metrics" => fs::metadata(text("metrics_path")).map(drop),
        "/boot-source" => {
            let mut magic = [0; 4];
            File::open(text("kernel_image_path"))?.read_exact(&mut magic)?;
            File::open(text("initrd_path"))?;
            if &magic == b"\x7fELF" { Ok(()) } else { Err(io::Error::other("no ELF")) }
        }
        "/vsock" => listen(vm, &text("uds_path")),
        "/actions" if text("action_type") == "InstanceStart" => {
            OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
            println!("the stand-in's guest is up");
            Ok(())
        }
        "/vm" if text("state") == "Paused" => signal(vm, Signal::SIGSTOP),
        "/vm" => {
            reset(vm);
            signal(vm, Signal::SIGCONT)
        }
        "/snapshot/create" => {
            let vsock = vm.lock().unwrap().vsock.clone();
            vm.lock().unwrap().written = true;
            write_to(&text("mem_file_path"))?.write_all(b"memory")?;
            write_to(&text("snapshot_path"))?.write_all(json!({ "vsock": vsock }).to_string().as_bytes())
        }
        "/snapshot/load" => {
            let state: Value = serde_json::from_slice(&fs::read(text("snapshot_path"))?)?;
            let memory = fs::read(body["mem_backend"]["backend_path"].as_str().unwrap_or_default())?;
            assert_eq!(memory, b"memory");
            is_mine(body["network_overrides"][0]["host_dev_name"].as_str().unwrap_or_default())?;
            listen(vm, state["vsock"].as_str().unwrap_or_default())
        }
        _ if path.starts_with("/drives/") => {
            let writable = !body["is_read_only"].as_bool().unwrap_or(false);
            OpenOptions::new().read(true).write(writable).open(text("path_on_host")).map(drop)
        }
        _ if path.starts_with("/network-interfaces/") => is_mine(&text("host_dev_name")),
        _ => Ok(()),
    }
}

fn write_to(path: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Whether this process's user may attach to a TAP.
fn is_mine(tap: &str) -> io::Result<()> {
    let owner = match fs::read_to_string(format!("/sys/class/net/{tap}/owner")) {
        // /sys may be of another network namespace.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let me = fs::metadata("/proc/self")?.uid().to_string();
    if owner.trim() == me { Ok(()) } else { Err(io::Error::other(format!("{tap} belongs to {owner}"))) }
}

/// The vsock of a guest that was written down begins anew when that goes on: its connections end
/// (<https://github.com/firecracker-microvm/firecracker/blob/main/docs/snapshotting/snapshot-support.md>).
fn reset(vm: &Mutex<Vm>) {
    let mut vm = vm.lock().unwrap();
    if std::mem::take(&mut vm.written) {
        for connection in vm.connections.drain(..) {
            // The other end may have gone.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn signal(vm: &Mutex<Vm>, signal: Signal) -> io::Result<()> {
    // A guest without a host has no process.
    vm.lock().unwrap().agents.retain(|agent| kill(*agent, signal).is_ok());
    Ok(())
}

/// The guest's vsock: each connection is led to an agent of its own.
fn listen(vm: &Arc<Mutex<Vm>>, path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    vm.lock().unwrap().vsock = Some(path.to_owned());
    let vm = Arc::clone(vm);
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let vm = Arc::clone(&vm);
            thread::spawn(move || connect(&vm, connection));
        }
    });
    Ok(())
}

fn connect(vm: &Mutex<Vm>, mut host: UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        host.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if !line.starts_with(b"CONNECT ") {
        return Ok(());
    }
    host.write_all(b"OK 1073741824\n")?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut agent = Command::new(AGENT)
        .args(["agent", "--stdin"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ours_too = host.try_clone()?;
    {
        let mut vm = vm.lock().unwrap();
        vm.agents.push(Pid::from_raw(agent.id().cast_signed()));
        vm.connections.push(ours_too);
    }
    let host_gone = Arc::new(AtomicBool::new(false));
    let (mut from, mut to, noted) = (host.try_clone()?, ours.try_clone()?, host_gone.clone());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        noted.store(true, Ordering::SeqCst);
        to.shutdown(Shutdown::Write)
    });
    let _ = io::copy(&mut ours, &mut host);
    agent.wait()?;
    if !host_gone.load(Ordering::SeqCst) {
        // It was told to shut down: the machine is off.
        std::process::exit(0);
    }
    Ok(())
}
