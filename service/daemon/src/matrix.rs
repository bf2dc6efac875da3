//! Every moment of every plan, and every moment of the recovery after it, with a fault there: the service, the helper,
//! the VMM or all of them end. A life of the service is a runtime: dropping it ends everything that the life had under
//! way, as a kill does. The moments come from the plans, so that a step is covered by existing.

use crate::{
    fault::moment,
    ops::lifecycle::{self, Stop},
    reconcile::reconcile,
    service::Service,
    testing::{Bench, bench, job},
};
use banger_guest::wire::{Decoder, GuestInfo, Hello, Kind, StreamId, Welcome, encode, pack, unpack};
use banger_host::{FakeHost, Host, StartVm, VmmKind};
use banger_model::{Accel, DiskNumber, Plan, Point, RecoverStep, Slot, StartStep, Subnet, VmId, VmState};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Runtime, sync::Notify};
use tokio_util::sync::CancellationToken;

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Service,
    Helper,
    Vmm,
    All,
}

/// A VM on the host that no service knows.
const UNKNOWN: VmId = VmId::from_bits(0xdead);

/// A guest's two sockets, answered as a well guest does, for as long as it lives.
struct Guest {
    folder: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
    over: Arc<AtomicBool>,
}

impl Guest {
    fn boot(folder: PathBuf) -> Guest {
        std::fs::create_dir_all(&folder).unwrap();
        let open = Arc::<Mutex<Vec<UnixStream>>>::default();
        let over = Arc::<AtomicBool>::default();
        for (name, agent) in [("console.sock", false), ("agent.sock", true)] {
            let _ = std::fs::remove_file(folder.join(name));
            let listener = UnixListener::bind(folder.join(name)).unwrap();
            let (open, over) = (open.clone(), over.clone());
            std::thread::spawn(move || {
                // One at a time: each life of the service has one connection to each.
                for mut port in listener.incoming().map_while(Result::ok) {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    open.lock().unwrap().push(port.try_clone().unwrap());
                    // A service that has gone is no error.
                    let _ = if agent { answer(&mut port) } else { drain(&mut port) };
                }
            });
        }
        Guest { folder, open, over }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for name in ["console.sock", "agent.sock"] {
            // Who accepts sees that it is over.
            let _ = UnixStream::connect(self.folder.join(name));
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        for port in self.open.lock().unwrap().drain(..) {
            let _ = port.shutdown(Shutdown::Both);
        }
    }
}

fn drain(port: &mut UnixStream) -> std::io::Result<()> {
    std::io::copy(port, &mut std::io::sink()).map(drop)
}

fn answer(port: &mut UnixStream) -> std::io::Result<()> {
    let mut decoder = Decoder::hunting(Kind::Hello);
    let mut bytes = [0; 4096];
    loop {
        let length = port.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        decoder.push(&bytes[..length]);
        if let Some(frame) = decoder.pop().unwrap() {
            let nonce = unpack::<Hello>(&frame.payload).unwrap().nonce;
            let version = banger_guest::wire::VERSION;
            let welcome = pack(&Welcome { nonce, version, info: GuestInfo::default() }).unwrap();
            let mut out = Vec::new();
            encode(Kind::Welcome, StreamId(0), &welcome, &mut out).unwrap();
            port.write_all(&out)?;
            return drain(port);
        }
    }
}

/// One host, its VMs and the folders of the service, for one case of the matrix.
struct World {
    bench: Bench,
    /// Keeps the first life's tasks, of which there are none.
    _runtime: Runtime,
    vm: VmId,
    guests: Rc<RefCell<Vec<(VmId, Guest)>>>,
    /// What cancels the start that is to be undone.
    cancel: Cancel,
}

type Cancel = Rc<RefCell<Option<CancellationToken>>>;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

impl World {
    /// A world in which `plan` can begin on a VM, and another VM runs.
    fn new(plan: Plan) -> World {
        let runtime = runtime();
        let bench = runtime.block_on(bench());
        let state = match plan {
            Plan::Stop => VmState::Running,
            Plan::Delete => VmState::Failed,
            Plan::Start | Plan::Rollback | Plan::Recover => VmState::Created,
        };
        let vm = bench.add_vm("a", state);
        let bystander = bench.add_vm("b", VmState::Running);
        let world = World { bench, _runtime: runtime, vm, guests: Rc::default(), cancel: Rc::default() };
        world.revive(vm);
        world.make_devices(bystander, true);
        world.revive(bystander);
        match plan {
            Plan::Stop => world.make_devices(vm, true),
            // An undo that failed has left something.
            Plan::Delete => world.make_devices(vm, false),
            Plan::Start | Plan::Rollback | Plan::Recover => {}
        }
        world
    }

    fn host(&self) -> &Arc<FakeHost> {
        &self.bench.host
    }

    /// Journals a start and makes what it makes.
    fn make_devices(&self, id: VmId, started: bool) {
        let vm = self.bench.service.vm(id).unwrap();
        self.bench.service.store.begin_steps(id).unwrap();
        runtime().block_on(async {
            self.host().attach_loop(id, vm.slot, DiskNumber::ROOT, true, null().into()).await.unwrap();
            self.host().make_tap(id, vm.slot, Subnet::default()).await.unwrap();
            if started {
                let (kernel, initrd) = (null().into(), null().into());
                let (accel, vmm, size) = (Accel::Tcg, VmmKind::Qemu, vm.spec.size);
                let start = StartVm {
                    vm: id,
                    slot: vm.slot,
                    size,
                    accel,
                    vmm,
                    manner: banger_host::Manner::default(),
                    snapshot: None,
                    kernel,
                    initrd,
                };
                self.host().start_vm(start).await.unwrap();
            }
        });
    }

    /// A guest that answers as soon as it is started.
    fn revive(&self, vm: VmId) {
        let folder = self.bench.service.socket(vm, "x").parent().unwrap().to_owned();
        self.guests.borrow_mut().push((vm, Guest::boot(folder)));
    }

    /// Lets a fault happen.
    fn strike(host: &FakeHost, guests: &RefCell<Vec<(VmId, Guest)>>, victim: Victim) {
        if matches!(victim, Victim::Vmm | Victim::All) {
            for (vm, guest) in guests.borrow_mut().drain(..) {
                host.exit(vm, "signal 9", "");
                drop(guest);
            }
        }
        if matches!(victim, Victim::Helper | Victim::All) {
            host.restart();
        }
    }

    /// A life of the service: `work` until it is done, or the service dies at the first moment that `fatal` names.
    /// The moment, if there was one.
    fn life(
        &self,
        victim: Victim,
        mut fatal: impl FnMut(Point, Option<VmId>) -> bool + 'static,
        work: impl AsyncFnOnce(Arc<Service>),
    ) -> Option<Point> {
        let runtime = runtime();
        let struck = Rc::new(Cell::new(None));
        let death = Arc::new(Notify::new());
        let (host, guests, cancel) = (self.host().clone(), self.guests.clone(), self.cancel.clone());
        let (noted, told) = (struck.clone(), death.clone());
        moment::set(Some(Box::new(move |point, vm| {
            if point.step == StartStep::AwaitGuest.word()
                && let Some(cancel) = cancel.take()
            {
                cancel.cancel();
            }
            if noted.get().is_some() || !fatal(point, vm) {
                return false;
            }
            noted.set(Some(point));
            World::strike(&host, &guests, victim);
            let dies = matches!(victim, Victim::Service | Victim::All);
            if dies {
                told.notify_one();
            }
            dies
        })));
        runtime.block_on(async {
            let (service, _bus) = Bench::another_life(self.bench.folder(), self.host()).await;
            tokio::select! {
                () = work(service) => {}
                () = death.notified() => {}
            }
        });
        moment::set(None);
        runtime.shutdown_background();
        struck.get()
    }

    /// What is wrong, if anything is.
    fn untruth(&self) -> Option<String> {
        let store = &self.bench.service.store;
        let rows = store.vms().unwrap();
        for row in &rows {
            let runs = self.host().vm(row.id, |held| held.pid.is_some() && held.exit.is_none()) == Some(true);
            let held = self.host().vm(row.id, |_| ()).is_some();
            let journal = store.begun_steps(row.id).unwrap();
            let folder = self.bench.service.vm_folder(row.id).exists();
            let right = match row.state {
                VmState::Running => runs && !journal.is_empty(),
                VmState::Created | VmState::Stopped | VmState::Failed => !held && journal.is_empty(),
                _ => false,
            };
            if !right || !folder {
                return Some(format!("{row:?} runs {runs}, held {held}, {journal:?}, folder {folder}"));
            }
        }
        let known: HashSet<String> = rows.iter().map(|row| row.id.to_string()).collect();
        let folders = std::fs::read_dir(self.bench.service.vms()).unwrap();
        let mut names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if let Some(name) = names.find(|name| !known.contains(name)) {
            return Some(format!("the folder {name} is nobody's"));
        }
        self.host().vm(UNKNOWN, |held| format!("unknown: {held:?}"))
    }

    /// Gives what ended by itself the time to be noticed.
    async fn becomes_true(&self) {
        for _ in 0..1000 {
            if self.untruth().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Each VM that there is can be started, stopped and deleted, and nothing is left then.
    fn goes_on(&self, what: &str) {
        let alive: Vec<VmId> = self.guests.borrow().iter().map(|(vm, _)| *vm).collect();
        let rows = self.bench.service.store.vms().unwrap();
        rows.iter().filter(|row| !alive.contains(&row.id)).for_each(|row| self.revive(row.id));
        let how = Stop { patience: Duration::ZERO, force: false, keep: false };
        self.life(
            Victim::Helper,
            |_, _| false,
            async |service| {
                reconcile(&service).await.unwrap();
                let job = job(&service).await;
                for row in &rows {
                    let told = format!("{what}, then {}", row.name);
                    lifecycle::start(&service, row.id, &job).await.expect(&told);
                    assert_eq!(self.state(row.id), Some(VmState::Running), "{told}");
                    lifecycle::stop(&service, row.id, how, &job).await.expect(&told);
                    assert_eq!(self.state(row.id), Some(VmState::Stopped), "{told}");
                    lifecycle::delete(&service, row.id, false, &job).await.expect(&told);
                }
            },
        );
        assert!(self.host().is_empty(), "{what}");
        assert_eq!(self.untruth(), None, "{what}");
    }

    fn add_unknown(&self) {
        let slot = Slot::try_from(4000).unwrap();
        runtime().block_on(self.host().make_tap(UNKNOWN, slot, Subnet::default())).unwrap();
    }

    fn state(&self, vm: VmId) -> Option<VmState> {
        self.bench.service.vm(vm).ok().map(|vm| vm.state)
    }
}

/// Carries out `plan` on the VM, whatever comes of it. A start to be undone is cancelled by `cancel`.
async fn carry_out(service: &Arc<Service>, plan: Plan, vm: VmId, cancel: &Cancel) {
    let job = job(service).await;
    cancel.replace((plan == Plan::Rollback).then(|| job.cancel.clone()));
    let how = Stop { patience: Duration::ZERO, force: false, keep: false };
    let done = match plan {
        Plan::Start | Plan::Rollback => lifecycle::start(service, vm, &job).await,
        Plan::Stop => lifecycle::stop(service, vm, how, &job).await,
        Plan::Delete => lifecycle::delete(service, vm, false, &job).await,
        Plan::Recover => Ok(()),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "as may be with a fault");
    }
}

/// One fault at `point` of the VM's plan; if the service went with it, then `second` at moments of the recovery, which
/// `choose` picks. Returns the moments of recovery at which something happened.
fn case(
    point: Point,
    first: Victim,
    second: Victim,
    choose: impl Fn(&HashSet<Point>, Point) -> bool + Copy + 'static,
) -> HashSet<Point> {
    let what = format!("{first:?} at {point}, then {second:?}");
    let world = World::new(point.plan);
    let (vm, cancel) = (world.vm, world.cancel.clone());
    let struck = world.life(
        first,
        move |at, of| at == point && of == Some(vm),
        async |service| {
            reconcile(&service).await.unwrap();
            carry_out(&service, point.plan, vm, &cancel).await;
            world.becomes_true().await;
        },
    );
    assert_eq!(struck, Some(point), "{what}");
    let mut seen = HashSet::new();
    if matches!(first, Victim::Service | Victim::All) {
        world.add_unknown();
        loop {
            let known = seen.clone();
            let fatal = move |at: Point, _| at.plan == Plan::Recover && choose(&known, at);
            let recovery = async |service: Arc<Service>| {
                // It may be refused by a helper that ends; then the service is started again.
                if reconcile(&service).await.is_ok() {
                    world.becomes_true().await;
                }
            };
            match world.life(second, fatal, recovery) {
                Some(point) if seen.insert(point) => {}
                _ => break,
            }
        }
    }
    if let Some(untruth) = world.untruth() {
        panic!("{what}: {untruth}");
    }
    let state = world.state(vm);
    match point.plan {
        Plan::Delete => assert!(matches!(state, None | Some(VmState::Failed)), "{what}: {state:?}"),
        Plan::Stop => assert!(matches!(state, Some(VmState::Stopped | VmState::Failed)), "{what}: {state:?}"),
        _ => assert!(matches!(state, Some(VmState::Running | VmState::Failed)), "{what}: {state:?}"),
    }
    world.goes_on(&what);
    seen
}

/// Each moment of recovery once, in one world, one life after the other.
fn each_once(seen: &HashSet<Point>, at: Point) -> bool {
    !seen.contains(&at)
}

fn begun() -> impl Iterator<Item = Point> {
    Point::all().filter(|point| point.plan != Plan::Recover)
}

fn all_of_recovery() -> HashSet<Point> {
    Point::of(Plan::Recover).collect()
}

#[test]
fn the_service_dies_at_every_moment_and_at_every_moment_of_its_recovery() {
    let mut seen = HashSet::new();
    for point in begun() {
        seen.extend(case(point, Victim::Service, Victim::Service, each_once));
    }
    assert_eq!(seen, all_of_recovery());
}

#[test]
fn everything_dies_at_every_moment_and_at_every_moment_of_the_recovery() {
    let mut seen = HashSet::new();
    for point in begun() {
        seen.extend(case(point, Victim::All, Victim::All, each_once));
    }
    // Of what is dead nothing is connected to; what nobody knows went with the helper.
    let never = [RecoverStep::Adopt, RecoverStep::EndUnknown].map(RecoverStep::word);
    let possible = |point: &Point| !never.contains(&point.step);
    assert!(seen.is_superset(&all_of_recovery().into_iter().filter(possible).collect()), "{seen:?}");
}

#[test]
fn the_helper_or_the_vmm_dies_at_every_moment() {
    for victim in [Victim::Helper, Victim::Vmm] {
        begun().for_each(|point| drop(case(point, victim, victim, each_once)));
    }
}

#[test]
fn the_helper_or_the_vmm_dies_at_every_moment_of_a_recovery() {
    for plan in Plan::ALL.into_iter().filter(|plan| *plan != Plan::Recover) {
        let middle = Point::of(plan).nth(Point::of(plan).count() / 2).unwrap();
        for victim in [Victim::Helper, Victim::Vmm] {
            // Nobody dies who would have to start again, so each moment needs a world of its own.
            for wanted in Point::of(Plan::Recover) {
                case(middle, Victim::Service, victim, move |seen, at| seen.is_empty() && at == wanted);
            }
        }
    }
}
