//! The helper killed at every moment of its verbs and of its own start, and what it does about a run folder that is
//! not as it left it.

use crate::{
    catcher::Catcher,
    world::{World, image, journalled},
};
use banger_dbus::DictWriter;
use banger_harness::inside::{self, assert_no_residue, eventually, kill_9};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Kills the helper at each of its moments, the first time that it comes there.
struct Killer {
    seen: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Killer {
    fn start() -> Killer {
        let (seen, over) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<AtomicBool>::default());
        let (noted, ended) = (seen.clone(), over.clone());
        let thread = thread::spawn(move || {
            let catcher = Catcher::start();
            catcher.want(move |moment| {
                moment.point.starts_with("hostd/") && noted.lock().unwrap().insert(moment.point.clone())
            });
            while !ended.load(Ordering::Relaxed) {
                if let Some(caught) = catcher.next_within(Duration::from_millis(20)) {
                    kill_9("banger-hostd");
                    drop(caught);
                }
            }
        });
        Killer { seen, over, thread: Some(thread) }
    }

    fn moments(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_killed_at_each_of_its_own_moments() {
    image();
    let world = World::new().await;
    let id = world.create("helpless").await;
    let vm = world.vm(&id).await;
    let none = banger_dbus::Dict::new();
    let killer = Killer::start();
    let mut before = None;
    // Until a whole life of the VM, and a start of the service, come to no moment that is new.
    while before.as_ref() != Some(&killer.moments()) {
        before = Some(killer.moments());
        let job = vm.start(&none).await.unwrap();
        let started = world.end_of(job).await;
        let state = world.settled().await["helpless"].state.clone();
        assert_eq!(state, if started.is_ok() { "running" } else { "failed" }, "{started:?}");
        kill_9("bangerd");
        let vms = world.settled().await;
        assert_eq!(vms["helpless"].state, state);
        world.assert_truthful(&vms);
        let job = vm.stop(&none).await.unwrap();
        world.end_of(job).await.unwrap();
        assert!(inside::vm_pids().is_empty());
        assert_no_residue();
        assert_eq!(journalled(), Vec::<String>::new());
    }
    let seen = killer.moments();
    drop(killer);
    for moment in
        ["start-vm/folder", "start-vm/spawned", "start-vm/recorded", "start-vm/told", "stop-vm/ended"]
    {
        // Verbs are named as they are in the log.
        let verb = moment.replace("start-vm", "StartVm").replace("stop-vm", "StopVm");
        assert!(seen.contains(&format!("hostd/{verb}")), "{moment} is not among {seen:?}");
    }
    assert!(seen.contains("hostd/find-again/before") && seen.contains("hostd/find-again/after"), "{seen:?}");
    world.delete_all().await;
}

fn run_folder(id: &str) -> PathBuf {
    PathBuf::from("/run/banger/vm").join(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_of_which_nothing_is_written_down_any_more_is_ended() {
    image();
    let world = World::new().await;
    let id = world.create("unwritten").await;
    for broken in [None, Some("{\"vm\":"), Some("{}")] {
        world.start_all(std::slice::from_ref(&id)).await;
        match broken {
            None => fs::remove_dir_all(run_folder(&id)).unwrap(),
            Some(text) => fs::write(run_folder(&id).join("record.json"), text).unwrap(),
        }
        assert_eq!(kill_9("banger-hostd"), 1);
        eventually("its process is gone", || inside::vm_pids().is_empty());
        // Its end is noticed by its console, so it may take a moment.
        for state in ["running", "stopped"] {
            while world.settled().await["unwritten"].state == state && state == "running" {}
        }
        assert_eq!(world.settled().await["unwritten"].state, "stopped");
        assert_no_residue();
    }
    world.start_all(&[id]).await;
    world.delete_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_helper_left_half_made_is_no_obstacle() {
    image();
    let world = World::new().await;
    let id = world.create("half-made").await;
    // As after a kill before the record was written; the helper that runs now does not know of it either.
    fs::create_dir(run_folder(&id)).unwrap();
    fs::write(run_folder(&id).join("stderr"), "").unwrap();
    world.start_all(std::slice::from_ref(&id)).await;
    let job = world.vm(&id).await.stop(&DictWriter::new().with("force", true).done()).await.unwrap();
    world.end_of(job).await.unwrap();
    fs::create_dir(run_folder(&id)).unwrap();
    assert_eq!(kill_9("banger-hostd"), 1);
    eventually("its folder is gone", || !run_folder(&id).exists());
    world.delete_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_told_to_end_leave_vms_alone() {
    image();
    let world = World::new().await;
    let id = world.create("left-alone").await;
    world.start_all(&[id]).await;
    let before = inside::vm_pids();
    for name in ["bangerd", "banger-hostd"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let pids = inside::pids(name);
            assert_eq!(pids.len(), 1, "{name}");
            kill(Pid::from_raw(pids[0]), signal).unwrap();
            eventually(&format!("{name} has ended"), || !inside::pids(name).contains(&pids[0]));
            // Asking starts the service; the helper is started by whoever holds its socket.
            let vms = world.settled().await;
            assert_eq!(inside::vm_pids(), before, "{signal} to {name} ended a VM");
            world.assert_truthful(&vms);
            assert_eq!(vms["left-alone"].state, "running");
            eventually("the helper is there", || inside::pids("banger-hostd").len() == 1);
        }
    }
    world.delete_all().await;
}
