//! The real `banger-hostd`, as root, in a network namespace of its own: real loop devices, TAPs and QEMU.
//!
//! Needs root, the program built (`cargo build -p banger-host`), qemu-system-x86, busybox-static and a Debian
//! kernel with its modules.

#![allow(clippy::unwrap_used, reason = "the whole file is a test: what fails, fails it")]

use banger_host::packet::{receive, send};
use banger_host::{
    Host, HostClient, HostError, Manner, PROTOCOL, Refusal, Reply, Request, StartVm, VmmKind, seal,
};
use banger_model::{
    Accel, Bytes, Cpus, DiskNumber, KernelName, MachineSize, NetworkMode, NetworkRules, Slot, Subnet, VmId,
};
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::BuildHasher;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whom the helper serves here: a number that no user has.
const PEER: u32 = 61_999;
/// Another such number.
const STRANGER: u32 = 61_998;
/// Long enough for emulation on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A helper with a run folder and a network of its own.
struct Hostd {
    child: Child,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Hostd {
    /// Takes the calling thread, and all that it starts, into a network namespace of its own.
    fn start() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let child = Self::spawn(folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { child, folder, runtime }
    }

    fn spawn(folder: &Path) -> Child {
        let program = std::env::current_exe().unwrap().parent().unwrap().join("../banger-hostd");
        assert!(program.exists(), "cargo build -p banger-host first: there is no {}", program.display());
        let mut child = Command::new(program)
            .args(["--peer", &PEER.to_string(), "--boot", "/boot", "--run"])
            .arg(folder.join("run"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map(Result::unwrap).inspect(|line| eprintln!("hostd: {line}"));
        assert!(ready.into_iter().any(|line| line.contains("listening")), "hostd did not come up");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("hostd: {line}")));
        child
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    fn restart(&mut self) {
        self.child = Self::spawn(self.folder.path());
    }

    fn socket_path(&self) -> PathBuf {
        self.folder.path().join("run/hostd.sock")
    }

    fn vm_path(&self, vm: VmId, name: &str) -> PathBuf {
        self.folder.path().join("run/vm").join(vm.to_string()).join(name)
    }

    /// One verb through the real client.
    fn ask<T>(&self, verb: impl AsyncFnOnce(&HostClient) -> Result<T, HostError>) -> Result<T, HostError> {
        self.runtime.block_on(verb(&HostClient::new(self.socket_path())))
    }

    /// A disk's file of 1 MiB that belongs to `uid`.
    fn disk(&self, name: &str, uid: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"disk-begins").unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }
}

impl Drop for Hostd {
    fn drop(&mut self) {
        // After a test that failed; a VM would outlive the helper.
        if let Ok(vms) = self.ask(async |host| host.list_vms().await) {
            for status in vms {
                let _ = self.ask(async |host| host.stop_vm(status.vm).await);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn random_vm() -> VmId {
    VmId::from_bits(RandomState::new().hash_one(0))
}

fn slot(number: u16) -> Slot {
    Slot::try_from(number).unwrap()
}

fn both(path: &Path) -> OwnedFd {
    OpenOptions::new().read(true).write(true).open(path).unwrap().into()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, HostError>) -> Refusal {
    let error = result.unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("{error:?}"))
}

/// The loop devices over `disk`.
fn loops_over(disk: &Path) -> Vec<String> {
    let backing = |name: &str| fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
    let names = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| backing(name).is_ok_and(|path| Path::new(path.trim_end()) == disk))
        .collect()
}

/// What ip(8) says about an interface in this thread's namespace; none if there is no such interface.
fn interface(name: &str) -> Option<String> {
    let output = Command::new("/usr/sbin/ip").args(["-o", "address", "show", "dev", name]).output().unwrap();
    let link = Command::new("/usr/sbin/ip").args(["-o", "link", "show", "dev", name]).output().unwrap();
    output.status.success().then(|| String::from_utf8([output.stdout, link.stdout].concat()).unwrap())
}

/// The network of these tests.
fn subnet() -> Subnet {
    Subnet::default()
}

/// A VM that reaches the host and nobody else.
fn rules() -> NetworkRules {
    NetworkRules { mode: NetworkMode::Private, nat: false, ports: Vec::new() }
}

/// The TAP that is up, which is a VM's; those that are made ahead are down.
fn tap_in_use() -> Option<String> {
    let output = Command::new("/usr/sbin/ip").args(["-o", "link", "show", "up"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(str::to_owned).find(|name| name.starts_with("bngr"))
}

/// Waits for something that nobody announces.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Runs `act` as another user, on a thread of its own.
fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let user = rustix::fs::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn read_reply(socket: &OwnedFd) -> Reply {
    let (reply, _) = receive(socket).unwrap().expect("a reply");
    serde_json::from_slice(&reply).unwrap()
}

/// A request with descriptors, as `uid`.
fn ask_as(hostd: &Hostd, uid: u32, request: &Request, descriptors: &[OwnedFd]) -> Reply {
    let path = hostd.socket_path();
    let message = serde_json::to_vec(request).unwrap();
    as_user(uid, || {
        let socket = dial(&path).unwrap();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        send(&socket, &message, &borrowed).unwrap();
        read_reply(&socket)
    })
}

/// The newest kernel of the host that has modules.
fn release() -> KernelName {
    let mut releases: Vec<String> = fs::read_dir("/boot")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("vmlinuz-").map(String::from))
        .filter(|release| Path::new("/lib/modules").join(release).join("kernel").exists())
        .collect();
    releases.sort();
    releases.pop().expect("a kernel with modules is needed").parse().unwrap()
}

/// A newc archive, cpio(5).
fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, content) in entries.iter().chain([&("TRAILER!!!", 0, &b""[..])]) {
        let (size, length) = (content.len(), name.len() + 1);
        let fields = [0, *mode, 0, 0, 1, 0, u32::try_from(size).unwrap(), 0, 0, 0, 0, length as u32, 0];
        out.extend(b"070701");
        fields.iter().for_each(|field| write!(out, "{field:08X}").unwrap());
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A guest that tries its disk and its network, says so, and ends when it is told to.
fn initramfs(slot: Slot) -> Vec<u8> {
    const MODULES: [&str; 8] = [
        "drivers/virtio/virtio",
        "drivers/virtio/virtio_ring",
        "drivers/virtio/virtio_mmio",
        "drivers/block/virtio_blk",
        "net/core/failover",
        "drivers/net/net_failover",
        "drivers/net/virtio_net",
        "drivers/char/virtio_console",
    ];
    let tree = PathBuf::from(format!("/lib/modules/{}/kernel", release()));
    let mut modules: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, module) in MODULES.iter().enumerate() {
        modules.push((format!("{number}.ko"), fs::read(tree.join(module).with_extension("ko")).unwrap()));
    }
    let subnet = subnet();
    let init = format!(
        r#"#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
/busybox mount -t devtmpfs dev /dev
for i in 1 0 2 3 4 5 6 7; do /busybox insmod /$i.ko; done
while [ ! -e /dev/vda ] || [ ! -e /sys/class/net/eth0 ]; do :; done
echo "disk says $(/busybox head -c 11 /dev/vda)"
echo written-by-guest | /busybox dd of=/dev/vda seek=1 conv=notrunc,fsync 2>/dev/null
/busybox ip addr add {guest}/{prefix} dev eth0
/busybox ip link set eth0 up
/busybox ping -c 1 -W 60 {host} >/dev/null && echo "network works from $(/busybox cat /sys/class/net/eth0/address)"
echo "port $(/busybox cat /sys/class/virtio-ports/*/name)"
echo "all done"
while read line; do
    case $line in
    off) /busybox poweroff -f;;
    *) echo "heard $line";;
    esac
done
"#,
        guest = subnet.guest_v4(slot),
        prefix = Subnet::PREFIX_V4,
        host = subnet.host_v4(),
    );
    let busybox = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox")).unwrap();
    let mut entries: Vec<(&str, u32, &[u8])> = vec![
        ("proc", 0o040_755, b""),
        ("sys", 0o040_755, b""),
        ("dev", 0o040_755, b""),
        ("busybox", 0o100_755, &busybox),
        ("init", 0o100_755, init.as_bytes()),
    ];
    entries.extend(modules.iter().map(|(name, bytes)| (name.as_str(), 0o100_644, bytes.as_slice())));
    archive(&entries)
}

fn start(hostd: &Hostd, vm: VmId, slot: Slot) -> u32 {
    let mut kernel = hostd.ask(async |host| host.open_host_kernel(release()).await).unwrap();
    let kernel = seal("kernel", |memfd| io::copy(&mut kernel, memfd).map(drop)).unwrap();
    let initrd = seal("initrd", |memfd| memfd.write_all(&initramfs(slot))).unwrap();
    let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::mib(1) };
    let (accel, vmm) = (Accel::Tcg, VmmKind::Qemu);
    let start =
        StartVm { vm, slot, size, accel, vmm, manner: Manner::default(), snapshot: None, kernel, initrd };
    hostd.ask(async |host| host.start_vm(start).await).unwrap()
}

/// The guest's console, line by line.
struct Console(BufReader<UnixStream>);

impl Console {
    fn connect(hostd: &Hostd, vm: VmId) -> Self {
        let path = hostd.vm_path(vm, "console.sock");
        // As the helper's peer, who is in the folder's group.
        let stream = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let (user, group) = (rustix::fs::Uid::from_raw(PEER), rustix::fs::Gid::from_raw(PEER));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                UnixStream::connect(path).unwrap()
            });
            thread.join().unwrap()
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The first line that contains `text`.
    fn expect(&mut self, text: &str) -> String {
        loop {
            let mut line = Vec::new();
            assert!(self.0.read_until(b'\n', &mut line).unwrap() > 0, "the console ended before {text:?}");
            let line = String::from_utf8_lossy(&line).into_owned();
            eprint!("guest: {line}");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn status_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

fn status_field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_vm_runs_confined_and_outlives_its_helper() {
    let mut hostd = Hostd::start();
    let (vm, slot) = (random_vm(), slot(4001));
    let disk = hostd.disk("disk.img", PEER);
    hostd.ask(async |host| host.attach_loop(vm, slot, DiskNumber::ROOT, true, both(&disk)).await).unwrap();
    hostd.ask(async |host| host.make_tap(vm, slot, subnet()).await).unwrap();
    hostd.ask(async |host| host.open_network(vm, rules()).await).unwrap();
    let pid = start(&hostd, vm, slot);
    let mut console = Console::connect(&hostd, vm);

    // Its process has its slot's user, and nothing else.
    let status = status_of(pid);
    let uid = slot.uid().to_string();
    let four = [&uid; 4].map(String::as_str).join(" ");
    for (name, value) in [
        ("Uid", four.as_str()),
        ("Gid", &four),
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        // QEMU installs its seccomp filter once it has read its arguments.
        until(name, || status_field(&status_of(pid), name) == value);
    }
    assert_eq!(status_field(&status, "Umask"), "0077");
    let session = rustix::process::getsid(Pid::from_raw(pid.cast_signed())).unwrap();
    assert_eq!(session.as_raw_nonzero().get(), pid.cast_signed(), "a session of its own");
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "no environment");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size        0 ")), "{limits}");

    // What it has open is what it was given, and what QEMU makes itself.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let known =
            ["/memfd:", "/dev/loop", "/dev/net/tun", "/dev/null", "/dev/urandom", "socket:", "anon_inode:"];
        let its_own = target.starts_with(&*hostd.folder.path().join("run/vm").to_string_lossy());
        assert!(its_own || known.iter().any(|start| target.starts_with(start)), "{target}");
    }

    // Its folder is the peer's to look into, and nobody else's.
    let folder = fs::metadata(hostd.vm_path(vm, "")).unwrap();
    assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o777), (0, PEER, 0o750));
    for name in ["agent.sock", "console.sock", "qmp.sock"] {
        let socket = fs::metadata(hostd.vm_path(vm, name)).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!((socket.uid(), socket.mode() & 0o777), (PEER, 0o600), "{name}");
    }
    for name in ["record.json", "stderr"] {
        let file = fs::metadata(hostd.vm_path(vm, name)).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777), (0, 0o600), "{name}");
    }

    // Its guest has its disk, its network and its agent's port.
    console.expect("disk says disk-begins");
    console.expect("network works from 02:ba:6e:00:0f:a1");
    console.expect("port org.banger.agent.0");
    console.expect("all done");
    let written = fs::read(&disk).unwrap();
    assert!(written[512..].starts_with(b"written-by-guest\n"), "the guest's write is in the file");
    let qmp_path = hostd.vm_path(vm, "qmp.sock");
    let version = hostd.runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(&qmp_path).await.unwrap();
        let mut qmp = banger_vmm::Qmp::connect(stream).await.unwrap();
        assert_eq!(qmp.status().await.unwrap(), banger_vmm::RunState::Running);
        qmp.stop().await.unwrap();
        assert_eq!(qmp.status().await.unwrap(), banger_vmm::RunState::Paused);
        qmp.cont().await.unwrap();
        assert_eq!(qmp.event().await.unwrap().name, "STOP");
        assert_eq!(qmp.event().await.unwrap().name, "RESUME");
        qmp.version().to_owned()
    });
    eprintln!("QEMU {version}");

    // Its helper dies of a sudden; it does not notice.
    assert!(!hostd.signal(Signal::KILL).success());
    console.say("are you there");
    console.expect("heard are you there");
    hostd.restart();
    let listed = hostd.ask(async |host| host.list_vms().await).unwrap();
    let [listed] = &listed[..] else { panic!("not one VM: {listed:?}") };
    assert_eq!((listed.vm, listed.slot, listed.pid, listed.running), (vm, slot, Some(pid), true));
    assert_eq!(
        refusal(hostd.ask(async |host| host.make_tap(random_vm(), slot, subnet()).await)),
        Refusal::SlotTaken
    );

    // The helper ends politely; the VM goes on again.
    assert!(hostd.signal(Signal::TERM).success());
    assert!(!hostd.socket_path().exists());
    console.say("and now");
    console.expect("heard and now");
    hostd.restart();

    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();
    // Its parent is gone, and whoever inherited it may not have collected it yet.
    let state =
        fs::read_to_string(format!("/proc/{pid}/status")).map(|status| status_field(&status, "State"));
    assert!(state.as_ref().map_or(true, |state| state.starts_with('Z')), "{state:?}");
    assert_eq!(loops_over(&disk), Vec::<String>::new());
    assert_eq!(tap_in_use(), None);
    assert!(!hostd.vm_path(vm, "").exists());
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap(), []);
    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();
}

#[test]
fn a_guests_own_end_is_told() {
    let mut hostd = Hostd::start();
    let (vm, slot) = (random_vm(), slot(4002));
    let disk = hostd.disk("disk.img", PEER);
    let boot = |hostd: &Hostd| {
        hostd
            .ask(async |host| host.attach_loop(vm, slot, DiskNumber::ROOT, true, both(&disk)).await)
            .unwrap();
        hostd.ask(async |host| host.make_tap(vm, slot, subnet()).await).unwrap();
        hostd.ask(async |host| host.open_network(vm, rules()).await).unwrap();
        let pid = start(hostd, vm, slot);
        let mut console = Console::connect(hostd, vm);
        console.expect("all done");
        (pid, console)
    };
    let (_, mut console) = boot(&hostd);
    console.say("off");
    let list = |hostd: &Hostd| hostd.ask(async |host| host.list_vms().await).unwrap();
    until("the VM has ended", || !list(&hostd)[0].running);
    assert_eq!(list(&hostd)[0].exit.as_deref(), Some("exit code 0"));
    assert_eq!(loops_over(&disk), Vec::<String>::new(), "its devices went with it");
    assert_eq!(tap_in_use(), None);
    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();

    // Killed from outside, while its helper is away: nothing is left of it.
    let (pid, mut console) = boot(&hostd);
    assert!(!hostd.signal(Signal::KILL).success());
    let process = Pid::from_raw(pid.cast_signed()).unwrap();
    let pidfd = pidfd_open(process, PidfdFlags::empty()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    // Readable once all of its threads have ended, pidfd_open(2).
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    assert_eq!(console.0.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "the console ends with QEMU");
    hostd.restart();
    assert_eq!(list(&hostd), []);
    assert!(!hostd.vm_path(vm, "").exists());
    assert_eq!(loops_over(&disk), Vec::<String>::new());
    assert_eq!(tap_in_use(), None);
}

#[test]
fn devices_go_with_the_helper() {
    let mut hostd = Hostd::start();
    let (vm, slot) = (random_vm(), slot(4003));
    let disk = hostd.disk("disk.img", PEER);
    let make = |hostd: &Hostd| {
        for _ in 0..2 {
            hostd
                .ask(async |host| host.attach_loop(vm, slot, DiskNumber::ROOT, true, both(&disk)).await)
                .unwrap();
            hostd.ask(async |host| host.make_tap(vm, slot, subnet()).await).unwrap();
        }
        assert_eq!(loops_over(&disk).len(), 1);
        let tap = interface(&tap_in_use().unwrap()).unwrap();
        assert!(tap.contains("master banger0") && !tap.contains("inet"), "{tap}");
        let bridge = interface("banger0").unwrap();
        for address in [format!("inet {}/19", subnet().host_v4()), format!("inet6 {}/64", subnet().host_v6())]
        {
            assert!(bridge.contains(&address), "{bridge}");
        }
        let path = format!("/dev/{}", loops_over(&disk)[0]);
        let mut begin = [0; 11];
        File::open(path).unwrap().read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"disk-begins");
    };
    make(&hostd);
    hostd.ask(async |host| host.detach_disk(vm, DiskNumber::ROOT).await).unwrap();
    assert_eq!(loops_over(&disk), Vec::<String>::new());
    hostd.ask(async |host| host.remove_tap(vm).await).unwrap();
    assert_eq!(tap_in_use(), None);
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap(), []);

    make(&hostd);
    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();
    assert_eq!((loops_over(&disk).len(), tap_in_use()), (0, None));

    make(&hostd);
    assert!(!hostd.signal(Signal::KILL).success());
    until("the devices went with it", || loops_over(&disk).is_empty() && tap_in_use().is_none());
    hostd.restart();
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap(), []);
}

#[test]
fn a_vmm_that_fails_says_why() {
    let hostd = Hostd::start();
    let (vm, slot) = (random_vm(), slot(4004));
    let disk = hostd.disk("disk.img", PEER);
    hostd
        .ask(async |host| {
            host.attach_loop(vm, slot, DiskNumber::ROOT, false, File::open(&disk).unwrap().into()).await
        })
        .unwrap();
    hostd.ask(async |host| host.make_tap(vm, slot, subnet()).await).unwrap();
    let junk = || seal("junk", |file| file.write_all(b"not a kernel")).unwrap();
    let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::mib(1) };
    let (accel, vmm) = (Accel::Tcg, VmmKind::Qemu);
    let (kernel, initrd) = (junk(), junk());
    let start =
        StartVm { vm, slot, size, accel, vmm, manner: Manner::default(), snapshot: None, kernel, initrd };
    hostd.ask(async |host| host.start_vm(start).await).unwrap();
    let list = || hostd.ask(async |host| host.list_vms().await).unwrap();
    until("QEMU gives up", || !list()[0].running);
    let status = list().remove(0);
    assert_eq!(status.exit.as_deref(), Some("exit code 1"));
    assert!(status.stderr_tail.contains("kernel"), "{}", status.stderr_tail);
    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();
}

#[test]
fn strangers_are_refused() {
    let hostd = Hostd::start();
    let path = hostd.socket_path();
    let socket = fs::metadata(&path).unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o777), (PEER, 0o600));
    let denied = as_user(STRANGER, || dial(&path)).unwrap_err();
    assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);

    // Even if somebody opened the socket to all: it is answered before it has said anything.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let reply = as_user(STRANGER, || read_reply(&dial(&path).unwrap()));
    assert!(matches!(reply, Reply::Failed { kind: Refusal::Denied, .. }), "{reply:?}");
    let hello = Request::Hello { version: PROTOCOL };
    for uid in [PEER, 0] {
        assert_eq!(ask_as(&hostd, uid, &hello, &[]), Reply::Hello { version: PROTOCOL });
    }
}

#[test]
fn wrong_descriptors_are_refused() {
    let hostd = Hostd::start();
    let (vm, slot) = (random_vm(), slot(4005));
    let own = hostd.disk("own.img", PEER);
    let roots = hostd.disk("root.img", 0);
    let strangers = hostd.disk("stranger.img", STRANGER);
    let odd = hostd.disk("odd.img", PEER);
    OpenOptions::new().write(true).open(&odd).unwrap().set_len(1000).unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let path_only = OpenOptions::new().read(true).custom_flags(libc_o_path()).open(&own).unwrap();
    let wrong: [(&str, OwnedFd); 11] = [
        ("a folder", File::open("/").unwrap().into()),
        ("a socket", socket.into()),
        ("a device", both(Path::new("/dev/null"))),
        ("a block device", File::open("/dev/loop0").unwrap().into()),
        ("a pipe", io::pipe().unwrap().0.into()),
        ("only readable", File::open(&own).unwrap().into()),
        ("only writable", OpenOptions::new().write(true).open(&own).unwrap().into()),
        ("only a path", path_only.into()),
        ("root's", both(&roots)),
        ("a stranger's", both(&strangers)),
        ("of an odd size", both(&odd)),
    ];
    let attach = Request::AttachLoop { vm, slot, disk: DiskNumber::ROOT, writable: true };
    for (what, descriptor) in wrong {
        let reply = ask_as(&hostd, PEER, &attach, &[descriptor]);
        assert!(matches!(reply, Reply::Failed { kind: Refusal::Descriptor, .. }), "{what}: {reply:?}");
    }
    for descriptors in [vec![], vec![both(&own), both(&own)]] {
        let reply = ask_as(&hostd, PEER, &attach, &descriptors);
        assert!(matches!(reply, Reply::Failed { kind: Refusal::Descriptor, .. }), "{reply:?}");
    }
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap(), []);

    assert_eq!(ask_as(&hostd, PEER, &attach, &[both(&own)]), Reply::Done);
    assert_eq!(ask_as(&hostd, PEER, &Request::MakeTap { vm, slot, subnet: subnet() }, &[]), Reply::Done);
    let good = || seal("boot", |file| file.write_all(b"boot")).unwrap();
    let unsealed = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(unsealed.try_clone().unwrap()).write_all(b"boot").unwrap();
    let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::mib(1) };
    for bad in [unsealed, both(&own), File::open("/").unwrap().into(), both(Path::new("/dev/null"))] {
        let again = bad.try_clone().unwrap();
        for (kernel, initrd) in [(bad, good()), (good(), again)] {
            let (accel, vmm) = (Accel::Tcg, VmmKind::Qemu);
            let start = StartVm {
                vm,
                slot,
                size,
                accel,
                vmm,
                manner: Manner::default(),
                snapshot: None,
                kernel,
                initrd,
            };
            let refused = refusal(hostd.ask(async |host| host.start_vm(start).await));
            assert_eq!(refused, Refusal::Descriptor);
        }
    }
    hostd.ask(async |host| host.stop_vm(vm).await).unwrap();
    let missing = hostd.ask(async |host| host.open_host_kernel("0.0.1-none".parse().unwrap()).await);
    assert_eq!(refusal(missing), Refusal::NotFound);
}

/// `O_PATH`, open(2).
fn libc_o_path() -> i32 {
    rustix::fs::OFlags::PATH.bits().cast_signed()
}

#[test]
fn nonsense_is_answered_and_survived() {
    let hostd = Hostd::start();
    let path = hostd.socket_path();
    let vm = random_vm();
    let mut messages: Vec<Vec<u8>> = [
        "x",
        "{}",
        "[]",
        "null",
        "\"hello\"",
        r#"{"verb":"hello"}"#,
        r#"{"verb":"hello","version":-1}"#,
        r#"{"verb":"hello","version":1,"more":2}"#,
        r#"{"verb":"open-host-kernel","release":"../../etc/shadow"}"#,
        r#"{"verb":"make-tap","vm":"../../../../etc","slot":1}"#,
        r#"{"verb":"make-tap","vm":"0000000000000001","slot":4096}"#,
        r#"{"verb":"make-tap","vm":"0000000000000001","slot":-1}"#,
        r#"{"verb":"mount","path":"/"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    messages.push(vec![b'['; 60_000]);
    // Bits of a valid message turned over, from a fixed seed.
    let valid = serde_json::to_vec(&Request::MakeTap { vm, slot: slot(4006), subnet: subnet() }).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..2000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut message = valid.clone();
        let at = usize::try_from(state >> 8).unwrap() % message.len();
        message[at] ^= u8::try_from(state & 0xff).unwrap();
        message.truncate(message.len() - usize::try_from((state >> 40) % 3).unwrap());
        messages.push(message);
    }
    let socket = dial(&path).unwrap();
    for message in messages.iter().filter(|message| **message != valid) {
        send(&socket, message, &[]).unwrap();
        let reply = read_reply(&socket);
        // A bit in the VM's id turned over is another VM's valid request.
        let other = serde_json::from_slice::<Request>(message).ok().and_then(|request| request.vm());
        match reply {
            Reply::Failed { .. } => {}
            _ => assert!(other.is_some(), "{:?}", String::from_utf8_lossy(message)),
        }
        if let Some(other) = other {
            hostd.ask(async |host| host.stop_vm(other).await).unwrap();
        }
    }

    // Too long, or with too many descriptors, for one packet of this protocol.
    let socket = dial(&path).unwrap();
    rustix::net::send(&socket, &vec![b' '; 100_000], rustix::net::SendFlags::NOSIGNAL).unwrap();
    assert!(matches!(read_reply(&socket), Reply::Failed { kind: Refusal::Malformed, .. }));
    let null = File::open("/dev/null").unwrap();
    let socket = dial(&path).unwrap();
    send(&socket, &valid, &[null.as_fd(); 8]).unwrap();
    assert!(matches!(read_reply(&socket), Reply::Failed { kind: Refusal::Descriptor, .. }));
    // An end in the middle of everything.
    for _ in 0..100 {
        let socket = dial(&path).unwrap();
        send(&socket, &valid[..10], &[]).unwrap();
    }

    hostd.ask(async |host| host.hello().await).unwrap();
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap(), []);
}

#[test]
fn many_vms_at_once() {
    let hostd = Hostd::start();
    let vms: Vec<_> = (0..8).map(|number| (random_vm(), slot(4010 + number))).collect();
    let disks: Vec<_> =
        vms.iter().map(|(vm, slot)| (*vm, *slot, hostd.disk(&format!("{vm}.img"), PEER))).collect();
    let path = hostd.socket_path();
    std::thread::scope(|scope| {
        for (vm, slot, disk) in &disks {
            let path = &path;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let host = HostClient::new(path);
                runtime.block_on(async {
                    host.attach_loop(*vm, *slot, DiskNumber::ROOT, true, both(disk)).await.unwrap();
                    host.make_tap(*vm, *slot, subnet()).await.unwrap();
                });
            });
        }
    });
    assert_eq!(hostd.ask(async |host| host.list_vms().await).unwrap().len(), 8);
    let mut loops: Vec<_> = disks.iter().flat_map(|(_, _, disk)| loops_over(disk)).collect();
    loops.sort();
    loops.dedup();
    assert_eq!(loops.len(), 8, "each has a device of its own");
    for (vm, ..) in &disks {
        hostd.ask(async |host| host.stop_vm(*vm).await).unwrap();
    }
    assert!(disks.iter().all(|(_, _, disk)| loops_over(disk).is_empty()));
}

#[test]
fn one_helper_per_run_folder() {
    let hostd = Hostd::start();
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../banger-hostd");
    let output = Command::new(program)
        .args(["--peer", &PEER.to_string(), "--run"])
        .arg(hostd.folder.path().join("run"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("another banger-hostd works in"), "{stderr}");
    hostd.ask(async |host| host.hello().await).unwrap();
}
