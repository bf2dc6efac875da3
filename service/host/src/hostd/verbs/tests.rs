//! The verbs over a machine that only pretends: files stand for devices, `sleep` for a VMM.

use super::*;
use crate::disks::Device;
use crate::net::Tap;
use crate::refused::system;
use banger_host::{Manner, NameRouting, VmmKind, seal};
use banger_model::{Accel, Cpus, Firewall, KernelName};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Writes down what is done to it, and fails where it is told to.
#[derive(Debug, Default)]
struct Pretended {
    done: Mutex<Vec<&'static str>>,
    failing: Mutex<Vec<&'static str>>,
}

impl Pretended {
    fn act(&self, what: &'static str) -> io::Result<()> {
        self.done.lock().unwrap().push(what);
        if self.failing.lock().unwrap().contains(&what) {
            return Err(io::Error::other(format!("{what} failed")));
        }
        Ok(())
    }
}

fn nothing() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

impl System for Pretended {
    fn open_kernel(&self, release: &KernelName) -> Result<OwnedFd> {
        self.act("open").map_err(system("open"))?;
        let path = if release.as_str() == "folder" { "/" } else { "/proc/self/exe" };
        Ok(File::open(path).unwrap().into())
    }

    fn why_no_device_mapper(&self) -> Option<String> {
        self.act("probe").err().map(|error| error.to_string())
    }

    fn attach_loop(&self, _: VmId, disk: DiskNumber, _: BorrowedFd<'_>, _: bool) -> Result<Attached> {
        self.act("attach").map_err(system("attach"))?;
        Ok(Attached { fd: nothing(), device: Device { disk, loop_number: 7, snapshot: false } })
    }

    fn attach_snapshot(&self, _: VmId, snapshot: &Snapshot<'_>) -> Result<Attached> {
        assert!(snapshot.length <= snapshot.size);
        self.act("snapshot").map_err(system("snapshot"))?;
        let device = Device { disk: DiskNumber::ROOT, loop_number: 7, snapshot: true };
        Ok(Attached { fd: nothing(), device })
    }

    fn await_disk_gone(&self, _: VmId, device: &Device) -> io::Result<()> {
        assert_eq!(device.loop_number, 7);
        self.act("disk gone")
    }

    fn networks(&self) -> Result<(Vec<Used>, Vec<Firewall>)> {
        self.act("networks").map_err(system("networks"))?;
        let used = |number: u16| Used {
            network: format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap(),
            interface: "an-interface-15".into(),
            origin: if number == 65535 { Origin::Address } else { Origin::Route },
        };
        Ok(((0..=65535).map(used).collect(), Vec::new()))
    }

    fn make_tap(&self, _: VmId, _: Slot, _: Subnet) -> Result<Tap> {
        self.act("tap").map_err(system("tap"))?;
        Ok(Tap { fd: nothing(), name: "tap".into(), index: 1 })
    }

    fn await_tap_gone(&self, _: VmId) -> io::Result<()> {
        self.act("tap gone")
    }

    fn open_network(&self, _: VmId, _: NetworkRules) -> Result<()> {
        self.act("open").map_err(system("open"))
    }

    fn close_network(&self, _: VmId) -> Result<()> {
        self.act("close").map_err(system("close"))
    }

    fn bind_dns(&self, _: &Subnet, _: u16) -> Result<Vec<OwnedFd>> {
        self.act("bind").map_err(system("bind"))?;
        Ok(vec![nothing(), nothing()])
    }

    fn route_dns(&self, _: &Subnet, _: u16, _: OwnedFd) -> Result<()> {
        self.act("route").map_err(system("route"))
    }

    fn show_dns(&self) -> (NameRouting, String) {
        (NameRouting::Off, "not asked".into())
    }

    fn launch(&self, _: &Launch<'_>) -> Result<Arc<Process>> {
        self.act("launch").map_err(system("launch"))?;
        let child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        Process::watch(child).map_err(system("watch"))
    }

    fn usage(&self, _: VmId, pid: u32) -> io::Result<banger_host::VmUsage> {
        Ok(banger_host::VmUsage { cpu_us: pid.into(), ..Default::default() })
    }

    fn connect_guest(&self, cid: u32, port: u32) -> io::Result<OwnedFd> {
        match (cid, port) {
            (cid, 1024) if cid == slot(1).cid() => Ok(nothing()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn stderr_tail(&self, _: VmId) -> String {
        "\u{1}".repeat(2048)
    }

    fn remove_folder(&self, _: VmId) -> io::Result<()> {
        self.act("folder gone")
    }
}

struct Bench {
    verbs: Verbs<Pretended>,
    folder: tempfile::TempDir,
}

const VM: VmId = VmId::from_bits(1);
const OTHER: VmId = VmId::from_bits(2);

fn slot(number: u16) -> Slot {
    Slot::try_from(number).unwrap()
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

fn boot_file() -> OwnedFd {
    seal("boot", |file| file.write_all(b"boot")).unwrap()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { verbs: Verbs::new(Pretended::default(), me()), folder }
    }

    fn disk(&self, name: &str) -> OwnedFd {
        let path = self.folder.path().join(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(4096).unwrap();
        file.into()
    }

    fn ask(&self, request: Request, descriptors: Vec<OwnedFd>) -> std::result::Result<Reply, Refusal> {
        match self.verbs.answer(request, descriptors, me()).0 {
            Reply::Failed { kind, .. } => Err(kind),
            reply => Ok(reply),
        }
    }

    fn attach(&self, vm: VmId, number: u16, name: &str) -> std::result::Result<Reply, Refusal> {
        let request = Request::AttachLoop { vm, slot: slot(number), disk: DiskNumber::ROOT, writable: true };
        self.ask(request, vec![self.disk(name)])
    }

    fn tap(&self, vm: VmId, number: u16) -> std::result::Result<Reply, Refusal> {
        let subnet = Subnet::choose(None, &[], 1).unwrap();
        self.ask(Request::MakeTap { vm, slot: slot(number), subnet }, Vec::new())
    }

    fn start_sized(&self, number: u16, cpus: u32, memory: Bytes) -> std::result::Result<Reply, Refusal> {
        let size = MachineSize { cpus: Cpus(cpus), memory, disk: Bytes(4096) };
        let (accel, vmm) = (Accel::Tcg, VmmKind::Qemu);
        let request =
            Request::StartVm { vm: VM, slot: slot(number), size, accel, vmm, manner: Manner::default() };
        self.ask(request, vec![boot_file(), boot_file()])
    }

    fn start(&self) -> std::result::Result<Reply, Refusal> {
        self.start_sized(1, 1, Bytes::mib(128))
    }

    fn stop(&self) -> std::result::Result<Reply, Refusal> {
        self.ask(Request::StopVm { vm: VM }, Vec::new())
    }

    fn list(&self) -> Vec<VmStatus> {
        match self.ask(Request::ListVms { after: None }, Vec::new()) {
            Ok(Reply::Vms { vms, more: false }) => vms,
            other => panic!("{other:?}"),
        }
    }

    fn done(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.verbs.system.done.lock().unwrap())
    }

    fn fail(&self, what: &[&'static str]) {
        *self.verbs.system.failing.lock().unwrap() = what.to_vec();
    }
}

#[test]
fn a_life() {
    let bench = Bench::new();
    assert_eq!(bench.attach(VM, 1, "disk"), Ok(Reply::Done));
    assert_eq!(bench.tap(VM, 1), Ok(Reply::Done));
    let Ok(Reply::Started { pid }) = bench.start() else { panic!("not started") };
    let [status] = &bench.list()[..] else { panic!("not one VM") };
    assert_eq!((status.vm, status.slot, status.pid, status.running), (VM, slot(1), Some(pid), true));
    assert_eq!(status.exit, None);
    let usage = banger_host::VmUsage { cpu_us: pid.into(), ..Default::default() };
    assert_eq!(bench.ask(Request::VmUsage { vm: VM }, Vec::new()), Ok(Reply::Usage { usage }));
    let connect = |port| bench.ask(Request::ConnectGuest { vm: VM, port }, Vec::new());
    assert_eq!((connect(1024), connect(1025)), (Ok(Reply::Done), Err(Refusal::WrongState)));
    assert_eq!(bench.stop(), Ok(Reply::Done));
    assert_eq!(bench.ask(Request::VmUsage { vm: VM }, Vec::new()), Err(Refusal::WrongState));
    assert_eq!(connect(1024), Err(Refusal::WrongState), "it does not run any more");
    assert_eq!(bench.list(), []);
    assert_eq!(bench.done(), ["attach", "tap", "launch", "disk gone", "tap gone", "folder gone"]);
}

#[test]
fn again_is_no_error() {
    let bench = Bench::new();
    for _ in 0..2 {
        assert_eq!(bench.attach(VM, 1, "disk"), Ok(Reply::Done));
        assert_eq!(bench.tap(VM, 1), Ok(Reply::Done));
    }
    assert_eq!(bench.done(), ["attach", "tap"]);
    for _ in 0..2 {
        assert_eq!(
            bench.ask(Request::DetachDisk { vm: VM, disk: DiskNumber::ROOT }, Vec::new()),
            Ok(Reply::Done)
        );
        assert_eq!(bench.ask(Request::RemoveTap { vm: VM }, Vec::new()), Ok(Reply::Done));
        assert_eq!(bench.stop(), Ok(Reply::Done));
    }
    assert_eq!(bench.list(), []);
}

#[test]
fn nothing_out_of_order() {
    let bench = Bench::new();
    assert_eq!(bench.start(), Err(Refusal::WrongState), "neither disk nor TAP");
    bench.tap(VM, 1).unwrap();
    assert_eq!(bench.start(), Err(Refusal::WrongState), "no disk");
    bench.attach(VM, 1, "disk").unwrap();
    assert_eq!(bench.attach(VM, 1, "another"), Err(Refusal::WrongState));
    bench.start().unwrap();
    assert_eq!(bench.start(), Err(Refusal::WrongState), "twice");
    assert_eq!(bench.attach(VM, 1, "disk"), Err(Refusal::WrongState));
    assert_eq!(bench.tap(VM, 1), Err(Refusal::WrongState));
    assert_eq!(
        bench.ask(Request::DetachDisk { vm: VM, disk: DiskNumber::ROOT }, Vec::new()),
        Err(Refusal::WrongState)
    );
    assert_eq!(bench.ask(Request::RemoveTap { vm: VM }, Vec::new()), Err(Refusal::WrongState));
    bench.stop().unwrap();
}

#[test]
fn a_slot_stays_with_its_vm() {
    let bench = Bench::new();
    bench.attach(VM, 1, "disk").unwrap();
    assert_eq!(bench.attach(OTHER, 1, "other"), Err(Refusal::SlotTaken));
    assert_eq!(bench.tap(OTHER, 1), Err(Refusal::SlotTaken));
    assert_eq!(bench.tap(VM, 2), Err(Refusal::SlotTaken));
    bench.tap(VM, 1).unwrap();
    assert_eq!(bench.start_sized(2, 1, Bytes::mib(128)), Err(Refusal::SlotTaken));
    bench.stop().unwrap();
    assert_eq!(bench.tap(OTHER, 1), Ok(Reply::Done));
}

#[test]
fn sizes_have_ranges() {
    let bench = Bench::new();
    bench.attach(VM, 1, "disk").unwrap();
    bench.tap(VM, 1).unwrap();
    for (cpus, memory) in [
        (0, Bytes::mib(128)),
        (65, Bytes::mib(128)),
        (u32::MAX, Bytes::mib(128)),
        (1, Bytes(0)),
        (1, Bytes::mib(95)),
        (1, Bytes(u64::MAX)),
    ] {
        assert_eq!(bench.start_sized(1, cpus, memory), Err(Refusal::Range), "{cpus} {memory}");
    }
}

#[test]
fn descriptors_are_counted_and_checked() {
    let bench = Bench::new();
    let attach = || Request::AttachLoop { vm: VM, slot: slot(1), disk: DiskNumber::ROOT, writable: true };
    for count in [0, 2] {
        let descriptors = (0..count).map(|_| bench.disk("disk")).collect();
        assert_eq!(bench.ask(attach(), descriptors), Err(Refusal::Descriptor), "{count}");
    }
    assert_eq!(bench.ask(attach(), vec![nothing()]), Err(Refusal::Descriptor));
    assert_eq!(bench.ask(Request::StopVm { vm: VM }, vec![nothing()]), Err(Refusal::Descriptor));
    let foreign = Verbs::new(Pretended::default(), me() + 1);
    let (reply, _) = foreign.answer(attach(), vec![bench.disk("disk")], me() + 2);
    assert!(matches!(reply, Reply::Failed { kind: Refusal::Descriptor, .. }));

    bench.attach(VM, 1, "disk").unwrap();
    bench.tap(VM, 1).unwrap();
    let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes(0) };
    let (accel, vmm) = (Accel::Tcg, VmmKind::Qemu);
    for descriptors in [vec![boot_file(), nothing()], vec![bench.disk("disk"), boot_file()]] {
        let request = Request::StartVm { vm: VM, slot: slot(1), size, accel, vmm, manner: Manner::default() };
        assert_eq!(bench.ask(request, descriptors), Err(Refusal::Descriptor));
    }
    assert!(!bench.done().contains(&"launch"));
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.fail(&["attach", "tap", "launch"]);
    assert_eq!(bench.attach(VM, 1, "disk"), Err(Refusal::System));
    assert_eq!(bench.tap(VM, 1), Err(Refusal::System));
    assert_eq!(bench.list(), [], "the slot was given back");

    bench.fail(&["launch"]);
    bench.attach(VM, 1, "disk").unwrap();
    bench.tap(VM, 1).unwrap();
    assert_eq!(bench.start(), Err(Refusal::System));
    bench.fail(&[]);
    assert!(bench.start().is_ok(), "disk and TAP are still held");
    bench.stop().unwrap();
}

#[test]
fn a_stop_goes_on_past_errors_and_can_be_repeated() {
    let bench = Bench::new();
    bench.attach(VM, 1, "disk").unwrap();
    bench.tap(VM, 1).unwrap();
    bench.start().unwrap();
    bench.fail(&["disk gone", "tap gone", "folder gone"]);
    let (reply, _) = bench.verbs.answer(Request::StopVm { vm: VM }, Vec::new(), me());
    let Reply::Failed { kind: Refusal::Rollback, message } = reply else { panic!("{reply:?}") };
    assert_eq!(message, "disk gone failed; tap gone failed; folder gone failed");
    assert!(bench.list()[0].exit.is_some());
    bench.fail(&[]);
    assert_eq!(bench.stop(), Ok(Reply::Done));
    assert_eq!(bench.list(), []);
}

#[test]
fn a_host_with_many_routes_is_told_of_in_one_packet_with_its_addresses() {
    let reply = Bench::new().ask(Request::ListNetworks {}, Vec::new()).unwrap();
    assert!(serde_json::to_vec(&reply).unwrap().len() <= packet::LONGEST);
    let Reply::Networks { used, .. } = reply else { panic!("{reply:?}") };
    assert!(used.iter().any(|one| one.origin == Origin::Address));
}

#[test]
fn rules_are_checked() {
    let bench = Bench::new();
    let port: banger_model::PublishedPort = "8080:80".parse().unwrap();
    let open = |ports| {
        let rules = NetworkRules { ports, ..NetworkRules::default() };
        bench.ask(Request::OpenNetwork { vm: VM, rules }, Vec::new())
    };
    assert_eq!(open(vec![port; 2]), Err(Refusal::Range), "twice");
    assert_eq!(open(vec![banger_model::PublishedPort { host: 0, ..port }]), Err(Refusal::Range), "no port");
    let many = (1..=65).map(|host| banger_model::PublishedPort { host, ..port }).collect();
    assert_eq!(open(many), Err(Refusal::Range), "too many");
    assert_eq!(bench.done(), Vec::<&str>::new());
    assert_eq!(open(vec![port]), Ok(Reply::Done));
    assert_eq!(bench.ask(Request::CloseNetwork { vm: VM }, Vec::new()), Ok(Reply::Done));
    assert_eq!(bench.done(), ["open", "close"]);
}

#[test]
fn kernels_are_files() {
    let bench = Bench::new();
    let open = |release: &str| {
        let request = Request::OpenHostKernel { release: release.parse().unwrap() };
        bench.verbs.answer(request, Vec::new(), me())
    };
    assert!(matches!(open("6.1.0"), (Reply::Done, kernel) if kernel.len() == 1));
    assert!(matches!(open("folder"), (Reply::Failed { kind: Refusal::NotFound, .. }, _)));
}

#[test]
fn versions_have_to_match() {
    let bench = Bench::new();
    let hello = |version| bench.ask(Request::Hello { version }, Vec::new());
    assert_eq!(hello(PROTOCOL), Ok(Reply::Hello { version: PROTOCOL }));
    assert_eq!(hello(PROTOCOL + 1), Err(Refusal::Malformed));
}

#[test]
fn a_long_listing_comes_in_pages_that_fit() {
    let bench = Bench::new();
    let process = || Process::watch(Command::new("/bin/true").spawn().unwrap()).unwrap();
    for number in 0..12 {
        let vm = VmId::from_bits(u64::from(number));
        let disks = vec![Device { disk: DiskNumber::ROOT, loop_number: 7, snapshot: false }];
        let record = Record { vm, slot: slot(number), pid: 1, start_time: 1, boot_id: String::new(), disks };
        bench.verbs.adopt(&record, process()).unwrap();
    }
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let after = seen.last().copied();
        let reply = bench.ask(Request::ListVms { after }, Vec::new()).unwrap();
        assert!(serde_json::to_vec(&reply).unwrap().len() <= packet::LONGEST);
        let Reply::Vms { vms, more } = reply else { panic!("{reply:?}") };
        seen.extend(vms.into_iter().map(|status| status.vm));
        pages += 1;
        if !more {
            break;
        }
    }
    assert_eq!(seen, (0..12).map(VmId::from_bits).collect::<Vec<_>>());
    assert!(pages > 1);
}

fn snapshot(bench: &Bench, size: u64) -> std::result::Result<Reply, Refusal> {
    let image = ImageId::from_bits(9);
    let request = Request::AttachSnapshot { vm: VM, slot: slot(1), image, size: Bytes(size) };
    bench.ask(request, vec![bench.disk("image"), bench.disk("cow")])
}

#[test]
fn a_snapshot_is_a_disk_and_no_smaller_than_its_image() {
    let bench = Bench::new();
    for size in [0, 4095, 4097, Limits::MOST_DISK.0 + 4096] {
        assert_eq!(snapshot(&bench, size), Err(Refusal::Range), "{size}");
    }
    assert_eq!(bench.list(), []);
    for _ in 0..2 {
        assert_eq!(snapshot(&bench, 8192), Ok(Reply::Done));
    }
    assert_eq!(bench.done(), ["snapshot"]);
    assert_eq!(snapshot(&bench, 4096), Err(Refusal::WrongState), "of another size");
    assert_eq!(bench.attach(VM, 1, "cow"), Err(Refusal::WrongState), "of another kind");
    bench.tap(VM, 1).unwrap();
    bench.start().unwrap();
    bench.stop().unwrap();
    assert_eq!(bench.done(), ["tap", "launch", "disk gone", "tap gone", "folder gone"]);
}

#[test]
fn volumes_come_and_go_one_by_one() {
    let bench = Bench::new();
    let volume = |number: u8| DiskNumber::try_from(number).unwrap();
    let attach = |number: u8, name: &str| {
        let request = Request::AttachLoop { vm: VM, slot: slot(1), disk: volume(number), writable: false };
        bench.ask(request, vec![bench.disk(name)])
    };
    attach(2, "second").unwrap();
    attach(1, "first").unwrap();
    bench.tap(VM, 1).unwrap();
    assert_eq!(bench.start(), Err(Refusal::WrongState), "volumes alone are nothing to start");
    bench.attach(VM, 1, "disk").unwrap();
    assert_eq!(bench.ask(Request::DetachDisk { vm: VM, disk: volume(2) }, Vec::new()), Ok(Reply::Done));
    attach(2, "another").unwrap();
    bench.start().unwrap();
    bench.done();
    bench.stop().unwrap();
    assert_eq!(bench.done(), ["disk gone", "disk gone", "disk gone", "tap gone", "folder gone"]);
}

#[test]
fn what_the_host_has_is_told() {
    let bench = Bench::new();
    let probe = || bench.ask(Request::ProbeDisks {}, Vec::new());
    assert_eq!(probe(), Ok(Reply::Disks { no_device_mapper: None }));
    bench.fail(&["probe"]);
    assert_eq!(probe(), Ok(Reply::Disks { no_device_mapper: Some("probe failed".into()) }));
}

#[test]
fn names_are_served_by_the_caller_for_as_long_as_it_lives() {
    let bench = Bench::new();
    let (reply, sockets) =
        bench.verbs.answer(Request::BindDns { subnet: Subnet::default(), port: 53 }, Vec::new(), me());
    assert_eq!((reply, sockets.len()), (Reply::Done, 2));
    let route = || Request::RouteDns { subnet: Subnet::default(), port: 53 };
    assert_eq!(bench.ask(route(), vec![nothing()]), Err(Refusal::Descriptor), "that is no pipe");
    assert_eq!(bench.ask(route(), Vec::new()), Err(Refusal::Descriptor));
    let (reader, _writer) = io::pipe().unwrap();
    assert_eq!(bench.ask(route(), vec![reader.into()]), Ok(Reply::Done));
    let shown = Reply::Dns { routing: NameRouting::Off, message: "not asked".into() };
    assert_eq!(bench.ask(Request::ShowDns {}, Vec::new()), Ok(shown));
}
