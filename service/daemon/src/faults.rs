//! Failures that a real host does not produce on demand: each step of a start refused, each undo refused, and
//! what a start of the service makes of what a killed one left.

use crate::{
    config::AccelChoice,
    error::Error,
    fault::moment,
    ops::{
        create::{self, Create},
        lifecycle::{self, Stop},
    },
    reconcile::reconcile,
    testing::{Bench, bench, bench_on},
};
use banger_host::{Host, Refusal, Verb};
use banger_model::{DiskNumber, Lane, Plan, Point, StartStep, Uid, VmId, VmState};
use std::{fs::File, io::Write, os::unix::net::UnixListener, time::Duration};

/// The verb that carries out a step, and the one that undoes it. Derived from the plan, so that a step that
/// is added must say what it does here.
fn verbs(step: StartStep) -> Option<(Verb, Verb)> {
    match step {
        StartStep::AttachDisk => Some((Verb::AttachLoop, Verb::DetachDisk)),
        // Without volumes, nothing is asked of the host.
        StartStep::AttachVolumes => None,
        StartStep::MakeTap => Some((Verb::MakeTap, Verb::RemoveTap)),
        StartStep::OpenNetwork => Some((Verb::OpenNetwork, Verb::CloseNetwork)),
        StartStep::StartVmm => Some((Verb::StartVm, Verb::StopVm)),
        StartStep::AwaitGuest => None,
    }
}

fn state(bench: &Bench, vm: VmId) -> VmState {
    bench.service.vm(vm).unwrap().state
}

async fn start(bench: &Bench, vm: VmId) -> Result<(), Error> {
    let job = bench.job().await;
    lifecycle::start(&bench.service, vm, &job).await
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_on_the_host() {
    for step in StartStep::PLAN.iter().copied() {
        let Some((act, _)) = verbs(step) else { continue };
        let bench = bench().await;
        let vm = bench.add_vm("a", VmState::Created);
        bench.host.fail_next(act, Refusal::System, "it does not want to");
        let error = start(&bench, vm).await.unwrap_err();
        assert!(error.to_string().contains("it does not want to"), "{step:?}: {error}");
        assert!(bench.host.is_empty(), "{step:?}: {:?}", bench.host.calls());
        assert_eq!(state(&bench, vm), VmState::Failed, "{step:?}");
        assert_eq!(bench.service.store.begun_steps(vm).unwrap(), [], "{step:?}");
    }
}

#[tokio::test]
async fn a_start_that_fails_passes_every_moment_of_its_plan_and_of_its_undoing() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Created);
    let (told, heard) = std::sync::mpsc::channel();
    moment::set(Some(Box::new(move |point, of| {
        told.send((point, of)).unwrap();
        false
    })));
    start(&bench, vm).await.unwrap_err();
    moment::set(None);
    let (points, of): (Vec<Point>, Vec<_>) = heard.try_iter().unzip();
    assert!(of.iter().all(|of| *of == Some(vm)));
    // Two lanes go beside each other, each in its order, and the machine comes after both.
    let lane = |point: &Point| {
        let step = StartStep::PLAN.iter().find(|step| step.word() == point.step);
        step.filter(|_| point.plan == Plan::Start).map_or(Lane::Machine, |step| step.lane())
    };
    let of_lane = |wanted: Lane, points: &[Point]| -> Vec<Point> {
        points.iter().copied().filter(|point| lane(point) == wanted).collect()
    };
    let expected: Vec<Point> = Point::of(Plan::Start).chain(Point::of(Plan::Rollback)).collect();
    for wanted in [Lane::Disks, Lane::Network, Lane::Machine] {
        assert_eq!(of_lane(wanted, &points), of_lane(wanted, &expected));
    }
    let machine = points.iter().position(|point| lane(point) == Lane::Machine).unwrap();
    assert!(points[machine..].iter().all(|point| lane(point) == Lane::Machine), "{points:?}");
}

#[tokio::test]
async fn a_vmm_that_is_gone_at_once_is_reported_and_cleaned_up() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Stopped);
    // Nobody listens on the VM's sockets: its process has ended by the time anybody looks.
    let error = start(&bench, vm).await.unwrap_err();
    assert!(matches!(error, Error::VmmFailed { .. }), "{error}");
    assert!(bench.host.is_empty());
    assert_eq!(state(&bench, vm), VmState::Failed);
    assert!(bench.service.vm(vm).unwrap().error.contains("did not start"));
}

#[tokio::test]
async fn without_kvm_a_guest_is_emulated_and_other_failures_are_not_blamed_on_it() {
    let starts = |bench: &Bench| bench.host.calls().iter().filter(|call| call.0 == Verb::StartVm).count();
    for (verb, kind, expected) in [
        (Verb::StartVm, Refusal::HostNotReady, 2),
        (Verb::StartVm, Refusal::System, 1),
        (Verb::AttachLoop, Refusal::HostNotReady, 0),
    ] {
        let bench = bench_on(AccelChoice::Auto).await;
        let vm = bench.add_vm("a", VmState::Created);
        bench.host.fail_next(verb, kind, "no");
        start(&bench, vm).await.unwrap_err();
        assert_eq!(starts(&bench), expected, "{verb} {kind:?}");
        assert!(bench.host.is_empty());
        // The emulated one did not come up either, so nothing is known about KVM.
        assert_eq!(bench.service.store.fact("kvm").unwrap(), None);
    }
}

#[tokio::test]
async fn an_undo_that_fails_is_told_beside_the_cause_and_made_up_for_later() {
    for step in StartStep::PLAN.iter().copied() {
        let Some((_, undo)) = verbs(step) else { continue };
        let bench = bench().await;
        let vm = bench.add_vm("a", VmState::Created);
        bench.host.fail_next(undo, Refusal::Rollback, "it stays");
        let error = start(&bench, vm).await.unwrap_err();
        let Error::Rollback { also, .. } = &error else { panic!("{step:?}: {error}") };
        assert!(also.contains("it stays") && also.contains(step.undo().unwrap()), "{step:?}: {also}");
        // The other steps were undone all the same, and this one is still in the journal. What a process that
        // could not be ended holds stays with it.
        let left = bench.service.store.begun_steps(vm).unwrap();
        let held = step == StartStep::StartVmm;
        assert!(left.contains(&step) && (held || left.len() == 1), "{step:?}: {left:?}");
        reconcile(&bench.service).await.unwrap();
        assert_eq!(bench.service.store.begun_steps(vm).unwrap(), [], "{step:?}");
        assert!(bench.host.is_empty(), "{step:?}: {:?}", bench.host.calls());
    }
}

#[tokio::test]
async fn what_an_undo_left_is_removed_before_the_vm_is_or_starts_again() {
    for again in [true, false] {
        let bench = bench().await;
        let vm = bench.add_vm("a", VmState::Created);
        bench.host.fail_next(Verb::StopVm, Refusal::Rollback, "it stays");
        start(&bench, vm).await.unwrap_err();
        assert!(!bench.host.is_empty());
        let job = bench.job().await;
        match again {
            // It does not come up this time either, and not because of what was left.
            true => assert!(matches!(start(&bench, vm).await, Err(Error::VmmFailed { .. }))),
            false => lifecycle::delete(&bench.service, vm, false, &job).await.unwrap(),
        }
        assert!(bench.host.is_empty(), "{:?}", bench.host.calls());
    }
}

#[tokio::test]
async fn a_guest_that_says_nothing_is_ended_and_its_console_quoted() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Created);
    let folder = bench.service.socket(vm, "console.sock").parent().unwrap().to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    let _agent = UnixListener::bind(folder.join("agent.sock")).unwrap();
    let console = UnixListener::bind(folder.join("console.sock")).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let guest = std::thread::spawn(move || {
        let mut port = console.accept().unwrap().0;
        port.write_all(b"hangs here\r\n").unwrap();
        // Its process would be ended now; here, the test ends it.
        assert!(ended.recv().is_err());
    });
    let error = start(&bench, vm).await.unwrap_err();
    assert!(matches!(error, Error::GuestSilent { seconds: 1, .. }), "{error}");
    assert!(error.to_string().ends_with("\nhangs here"), "{error}");
    assert!(bench.host.is_empty());
    assert_eq!(state(&bench, vm), VmState::Failed);
    drop(end);
    guest.join().unwrap();
}

#[tokio::test]
async fn a_start_that_is_cancelled_is_undone() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Created);
    let job = bench.job().await;
    job.cancel.cancel();
    let error = lifecycle::start(&bench.service, vm, &job).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(bench.host.is_empty());
}

#[tokio::test]
async fn stopping_and_deleting_ask_nothing_of_a_vm_that_does_not_run() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Created);
    let job = bench.job().await;
    let how = Stop { patience: Duration::ZERO, force: false, keep: false };
    lifecycle::stop(&bench.service, vm, how, &job).await.unwrap();
    assert_eq!(state(&bench, vm), VmState::Created);
    lifecycle::delete(&bench.service, vm, false, &job).await.unwrap();
    assert!(matches!(bench.service.vm(vm), Err(Error::NotFound { .. })));
    assert!(!bench.service.vm_folder(vm).exists());
}

#[tokio::test]
async fn a_vm_that_may_have_a_process_is_not_deleted_without_force() {
    let bench = bench().await;
    let vm = bench.add_vm("a", VmState::Running);
    let job = bench.job().await;
    let error = lifecycle::delete(&bench.service, vm, false, &job).await.unwrap_err();
    assert_eq!(error.to_string(), "the VM is running: it cannot be deleted now");
    lifecycle::delete(&bench.service, vm, true, &job).await.unwrap();
    assert!(matches!(bench.service.vm(vm), Err(Error::NotFound { .. })));
}

fn request(bench: &Bench, name: Option<&str>) -> Create {
    Create {
        name: name.map(|name| name.parse().unwrap()),
        image: bench.service.image(bench.image).unwrap(),
        kernel: "mine".into(),
        spec: bench.spec(),
        volumes: Vec::new(),
        start: false,
        owner: Uid(1000),
    }
}

#[tokio::test]
async fn a_created_vm_has_a_disk_and_a_name_of_its_own() {
    let bench = bench().await;
    let job = bench.job().await;
    for name in [Some("a"), None, None] {
        let vm = create::reserve(&bench.service, &request(&bench, name)).unwrap();
        let id = vm.id;
        create::create(bench.service.clone(), vm, false, job.clone()).await.unwrap();
        let vm = bench.service.vm(id).unwrap();
        assert!(bench.service.disk(&vm).path.exists() && vm.has_disk);
    }
    let taken = create::reserve(&bench.service, &request(&bench, Some("a"))).unwrap_err();
    assert_eq!(taken.to_string(), "there is already a VM \"a\": choose another name");
}

#[tokio::test]
async fn a_vm_whose_disk_cannot_be_made_is_not_there() {
    let bench = bench().await;
    let job = bench.job().await;
    let vm = create::reserve(&bench.service, &request(&bench, Some("a"))).unwrap();
    let id = vm.id;
    std::fs::remove_file(bench.service.rootfs(bench.image)).unwrap();
    create::create(bench.service.clone(), vm, true, job).await.unwrap_err();
    assert!(matches!(bench.service.vm(id), Err(Error::NotFound { .. })));
    assert!(!bench.service.vm_folder(id).exists());
}

#[tokio::test]
async fn a_start_of_the_service_settles_every_state() {
    let bench = bench().await;
    let vms = VmState::ALL.map(|state| (state, bench.add_vm(state.as_str(), state)));
    // One of each kind of leftover: a half-pulled image, a half-made VM, a VM that nobody knows.
    std::fs::create_dir_all(bench.service.images().join("0123456789abcdef.staging")).unwrap();
    std::fs::create_dir_all(bench.service.vms().join("0123456789abcdef")).unwrap();
    let unknown = VmId::from_bits(7);
    let slot = bench.service.store.free_slot().unwrap().unwrap();
    let disk = File::open(bench.service.rootfs(bench.image)).unwrap();
    bench.host.attach_loop(unknown, slot, DiskNumber::ROOT, false, disk.into()).await.unwrap();

    reconcile(&bench.service).await.unwrap();
    for (before, vm) in vms {
        let after = bench.service.vm(vm).ok().map(|vm| vm.state);
        let expected = match before {
            VmState::Deleting => None,
            VmState::Starting => Some(VmState::Failed),
            VmState::Running | VmState::Paused | VmState::Stopping => Some(VmState::Stopped),
            resting => Some(resting),
        };
        assert_eq!(after, expected, "{before}");
    }
    assert!(bench.host.is_empty());
    assert_eq!(std::fs::read_dir(bench.service.images()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(bench.service.vms()).unwrap().count(), VmState::ALL.len() - 1);
}
