//! The service, the helper, the VMs' processes, and all of them, killed at every moment of a start, its undoing, a
//! stop and a delete; and, where the service has to start again, killed once more at every moment of that.
//!
//! All moments of a round happen in one life of the service: each has a VM of its own that waits there.

use crate::{
    catcher::{Catcher, Caught},
    world::{Victim, World, image, journalled},
};
use banger_dbus::{DictWriter, VmInfo};
use banger_harness::inside::{self, assert_no_residue};
use banger_host::{Host, HostClient};
use banger_model::{Plan, Point, Slot, Subnet, VmId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The plans that somebody begins. Recovery begins by itself.
const BEGUN: [Plan; 4] = [Plan::Start, Plan::Rollback, Plan::Stop, Plan::Delete];

/// A VM that does nothing meanwhile.
const BYSTANDER: &str = "bystander";

/// A VM on the host that the service does not know.
const UNKNOWN: VmId = VmId::from_bits(0xdead);

#[tokio::test(flavor = "multi_thread")]
async fn the_service_killed_at_every_moment() {
    round(Victim::Service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_killed_at_every_moment_of_a_plan() {
    round(Victim::Helper).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vmms_killed_at_every_moment() {
    round(Victim::Vmm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_every_moment() {
    round(Victim::All).await;
}

/// The network in which the VMs of this host are, as the helper has written it down.
fn subnet() -> Subnet {
    let text = std::fs::read_to_string("/run/banger/network.json").unwrap();
    let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(saved["subnet"].clone()).unwrap()
}

/// A VM that is to meet its fault at this moment.
struct Doomed {
    point: Point,
    name: String,
    id: String,
}

async fn round(victim: Victim) {
    image();
    let world = World::new().await;
    let mut doomed = Vec::new();
    for point in BEGUN.into_iter().flat_map(Point::of) {
        let name = point.to_string().replace('/', "-");
        let id = world.create(&name).await;
        doomed.push(Doomed { point, name, id });
    }
    let bystander = world.create(BYSTANDER).await;
    let of_stop = doomed.iter().filter(|vm| vm.point.plan == Plan::Stop).map(|vm| vm.id.clone());
    world.start_all(&of_stop.chain([bystander]).collect::<Vec<_>>()).await;

    let catcher = Catcher::start();
    let held = bring_all_to_their_moments(&world, &catcher, &doomed).await;
    assert_eq!(held.len(), doomed.len());
    if victim.has_service() {
        // The helper holds something of a VM that the service never heard of, or has forgotten.
        let host = HostClient::new("/run/banger/hostd.sock");
        host.make_tap(UNKNOWN, Slot::try_from(4000).unwrap(), subnet()).await.unwrap();
    }
    victim.kill();
    drop(held);
    if victim.has_service() {
        let seen = recover_under_fire(&world, &catcher, victim).await;
        let all: BTreeSet<String> = Point::of(Plan::Recover).map(|point| point.to_string()).collect();
        // With every VM dead there is none to connect to; with the helper dead there is none unknown.
        let possible = |point: &&String| {
            victim == Victim::Service || !(point.contains("/adopt/") || point.contains("/end-unknown/"))
        };
        let missed: Vec<&String> =
            all.iter().filter(possible).filter(|point| !seen.contains(*point)).collect();
        assert!(missed.is_empty(), "recovery never came to {missed:?}");
    }
    catcher.want(|_| false);

    let vms = world.settled().await;
    world.assert_truthful(&vms);
    for vm in &doomed {
        assert_outcome(victim, vm, vms.get(&vm.name));
    }
    let bystander = vms[BYSTANDER].state.as_str();
    match victim {
        Victim::Service | Victim::Helper => assert_eq!(bystander, "running"),
        Victim::Vmm | Victim::All => assert!(["failed", "stopped"].contains(&bystander), "{bystander}"),
    }
    assert_everything_goes_on(&world, &vms, &doomed).await;
}

/// Begins each VM's plan and returns when each waits at its moment.
async fn bring_all_to_their_moments(world: &World, catcher: &Catcher, doomed: &[Doomed]) -> Vec<Caught> {
    let goal: HashMap<String, String> =
        doomed.iter().map(|vm| (vm.id.clone(), vm.point.to_string())).collect();
    // A start is undone when it is cancelled, and the last moment for that is before its guest is awaited.
    const CANCELLED: &str = "start/await-guest/before";
    let cancelled: Arc<Mutex<BTreeSet<String>>> = Arc::new(Mutex::new(
        doomed.iter().filter(|vm| vm.point.plan == Plan::Rollback).map(|vm| vm.id.clone()).collect(),
    ));
    let to_cancel = cancelled.clone();
    catcher.want(move |moment| {
        goal.get(&moment.vm) == Some(&moment.point)
            || (moment.point == CANCELLED && to_cancel.lock().unwrap().contains(&moment.vm))
    });
    let mut starts = HashMap::new();
    for vm in doomed {
        let object = world.vm(&vm.id).await;
        let none = Default::default();
        match vm.point.plan {
            Plan::Start | Plan::Rollback => {
                starts.insert(vm.id.clone(), object.start(&none).await.unwrap());
            }
            Plan::Stop => drop(object.stop(&none).await.unwrap()),
            Plan::Delete | Plan::Recover => drop(object.delete(&none).await.unwrap()),
        }
    }
    let mut held = Vec::new();
    while held.len() < doomed.len() {
        let caught = catcher.next();
        if cancelled.lock().unwrap().remove(&caught.moment.vm) {
            world.cancel(starts[&caught.moment.vm].clone()).await;
            continue;
        }
        held.push(caught);
    }
    held
}

/// Lets the service start again, and kills it each time that it comes to a moment that it has not come to before.
/// Returns the moments.
async fn recover_under_fire(world: &World, catcher: &Catcher, victim: Victim) -> BTreeSet<String> {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = seen.clone();
    catcher.want(move |moment| {
        moment.point.starts_with("recover/") && noted.lock().unwrap().insert(moment.point.clone())
    });
    loop {
        let answered = async {
            // Whoever asks has it started; one that is killed before it answers is asked again.
            while world.list().await.is_none() {}
        };
        tokio::pin!(answered);
        let up = loop {
            tokio::select! {
                () = &mut answered => break true,
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
            if let Some(caught) = catcher.next_within(Duration::ZERO) {
                victim.kill();
                drop(caught);
                break false;
            }
        };
        if up {
            return seen.lock().unwrap().clone();
        }
    }
}

fn assert_outcome(victim: Victim, vm: &Doomed, info: Option<&VmInfo>) {
    let state = info.map_or("gone", |info| info.state.as_str());
    let allowed: &[&str] = match vm.point.plan {
        // Whoever is still there goes on with it, or undoes it and says why.
        Plan::Start if !victim.has_service() => &["running", "failed"],
        Plan::Start | Plan::Rollback => &["failed"],
        Plan::Stop => &["stopped"],
        // Before it is written down, a delete that is lost has never been.
        Plan::Delete if victim.has_service() && vm.point.to_string() == "delete/mark/before" => &["created"],
        Plan::Delete | Plan::Recover => &["gone"],
    };
    let why = info.and_then(|info| info.error.clone()).unwrap_or_default();
    assert!(
        allowed.contains(&state),
        "{victim:?} at {}: the VM is {state} ({why}), not {allowed:?}\n{}",
        vm.point,
        inside::service_log()
    );
}

/// Nothing is left of what does not run, and each VM can be started, stopped and deleted again.
async fn assert_everything_goes_on(world: &World, vms: &BTreeMap<String, VmInfo>, doomed: &[Doomed]) {
    let force = DictWriter::new().with("force", true).done();
    for vm in vms.values().filter(|vm| vm.state == "running") {
        let job = world.vm(&vm.id.to_string()).await.stop(&force).await.unwrap();
        world.end_of(job).await.unwrap();
    }
    assert!(inside::vm_pids().is_empty());
    assert_no_residue();
    assert_eq!(journalled(), Vec::<String>::new());
    // One of each plan, so that the boots do not take all the time; every other is deleted as it is.
    let again: Vec<String> = BEGUN
        .iter()
        .filter_map(|plan| doomed.iter().find(|vm| vm.point.plan == *plan && vms.contains_key(&vm.name)))
        .map(|vm| vm.id.clone())
        .collect();
    world.start_all(&again).await;
    let vms = world.settled().await;
    assert_eq!(vms.values().filter(|vm| vm.state == "running").count(), again.len());
    world.assert_truthful(&vms);
    world.delete_all().await;
}
