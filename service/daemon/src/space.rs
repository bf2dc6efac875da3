//! The host's disk is watched: before it is full, VMs that run are paused, and they go on when there is room again.
//!
//! A guest that writes to a disk for which the host has no room would see its writes fail. [`decide`] says what is to be
//! done and when to look again; [`watch`] looks and does it.

use crate::{config::DisksConfig, error::Error, ops::pause, service::Service, store::VmRow};
use banger_model::{Bytes, VmState};
use std::{io, path::Path, sync::Arc, time::Duration};

/// How fast a disk may fill at most, in bytes a second: what guests write goes to the page cache first, which is as fast as
/// memory. By this it follows from the room that is left when to look again.
const FASTEST: u64 = Bytes::gib(2).0;
/// The shortest time between two looks. Looking takes microseconds.
const OFTEN: Duration = Duration::from_millis(200);
/// The longest: somebody else may make room, or take it.
const SELDOM: Duration = Duration::from_secs(5);
/// What a paused VM says of itself begins so. By this it is known again which VMs were paused here, and not by somebody
/// who wants them paused.
const WHY: &str = "the host's disk is almost full";

/// The room that a filesystem has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What may still be written.
    pub free: Bytes,
    /// All that it holds.
    pub size: Bytes,
}

impl Room {
    /// Of the filesystem that this folder is on.
    ///
    /// # Errors
    /// What statvfs(3) says.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let told = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(told.f_frsize));
        // What is kept for root is not ours.
        Ok(Self { free: bytes(told.f_bavail), size: bytes(told.f_blocks) })
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// VMs that run have to pause.
    Pause,
    /// There is neither too little room for those that run nor enough for those that were paused.
    Leave,
    /// VMs that were paused for this can go on.
    Resume,
}

/// Below how much room VMs are paused. They go on when there is twice as much.
pub fn mark(config: &DisksConfig, size: Bytes) -> Bytes {
    config.reserve.max(Bytes(size.0 / 100 * u64::from(config.reserve_percent.min(50))))
}

/// What to do, and when to look again.
pub fn decide(config: &DisksConfig, room: Room) -> (Verdict, Duration) {
    let mark = mark(config, room.size);
    let verdict = match room.free {
        free if free < mark => Verdict::Pause,
        free if free >= Bytes(mark.0.saturating_mul(2)) => Verdict::Resume,
        _ => Verdict::Leave,
    };
    let above = room.free.0.saturating_sub(mark.0);
    (verdict, Duration::from_millis(above.saturating_mul(1000) / FASTEST).clamp(OFTEN, SELDOM))
}

/// Whether a VM has to be paused, or may go on.
fn concerns(vm: &VmRow, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Pause => vm.state == VmState::Running,
        Verdict::Resume => vm.state == VmState::Paused && vm.error.starts_with(WHY),
        Verdict::Leave => false,
    }
}

/// Watches. Never returns.
pub async fn watch(service: Arc<Service>) {
    let config = service.config.disks.clone();
    let mut low = false;
    loop {
        let wait = match Room::of(&service.config.state) {
            Ok(room) => {
                let (verdict, wait) = decide(&config, room);
                if let Err(error) = act(&service, verdict, room).await {
                    tracing::error!(%error, "the VMs were not all paused, or not all resumed");
                }
                let is_low = verdict == Verdict::Pause || low && verdict == Verdict::Leave;
                if is_low != low {
                    low = is_low;
                    tell(&service, low, room).await;
                }
                wait
            }
            Err(error) => {
                tracing::warn!(%error, "the host's disk cannot be looked at");
                SELDOM
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn tell(service: &Service, low: bool, room: Room) {
    match low {
        true => {
            tracing::warn!(free = %room.free, "the host's disk is almost full: VMs are paused until there is room")
        }
        false => tracing::info!(free = %room.free, "the host's disk has room again: VMs go on"),
    }
    service.space_changed(low, room.free).await;
}

/// Pauses or resumes whom it concerns; goes on past a VM that fails, and tells of the last.
async fn act(service: &Arc<Service>, verdict: Verdict, room: Room) -> Result<(), Error> {
    if verdict == Verdict::Leave {
        return Ok(());
    }
    let mut result = Ok(());
    for vm in service.store.vms()?.into_iter().filter(|vm| concerns(vm, verdict)) {
        let done = match verdict {
            Verdict::Pause => pause::pause(service, vm.id, &why(service, room)).await,
            _ => pause::resume(service, vm.id).await,
        };
        match done {
            // It may have ended, or been paused by somebody else, meanwhile.
            Err(Error::Model(_) | Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(vm = %vm.id, name = %vm.name, %error, "neither paused nor resumed");
                result = Err(error);
            }
            Ok(()) => {
                tracing::warn!(vm = %vm.id, name = %vm.name, ?verdict, free = %room.free, "the host's disk")
            }
        }
    }
    result
}

fn why(service: &Service, room: Room) -> String {
    let enough = mark(&service.config.disks, room.size).0.saturating_mul(2);
    let state = service.config.state.display();
    format!("{WHY} ({} left): the VM goes on when {state} has {} of room", room.free, Bytes(enough))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use proptest::prelude::*;

    fn config(reserve: Bytes, percent: u8) -> DisksConfig {
        DisksConfig { reserve, reserve_percent: percent, ..DisksConfig::default() }
    }

    fn verdict(free: Bytes, size: Bytes) -> Verdict {
        decide(&DisksConfig::default(), Room { free, size }).0
    }

    #[test]
    fn a_gibibyte_or_two_percent() {
        for (size, mark) in [(Bytes::gib(20), Bytes::gib(1)), (Bytes::gib(500), Bytes::gib(10))] {
            assert_eq!(verdict(Bytes(mark.0 - 1), size), Verdict::Pause);
            assert_eq!(verdict(mark, size), Verdict::Leave);
            assert_eq!(verdict(Bytes(mark.0 * 2 - 1), size), Verdict::Leave);
            assert_eq!(verdict(Bytes(mark.0 * 2), size), Verdict::Resume);
        }
    }

    #[test]
    fn the_less_room_the_sooner_it_is_looked_again() {
        let wait = |free| decide(&DisksConfig::default(), Room { free, size: Bytes::gib(10) }).1;
        assert_eq!(wait(Bytes(0)), OFTEN);
        assert_eq!(wait(Bytes::gib(1)), OFTEN);
        assert_eq!(wait(Bytes::gib(3)), Duration::from_secs(1));
        assert_eq!(wait(Bytes::gib(1000)), SELDOM);
    }

    proptest! {
        /// Nothing that is written at the fastest goes from "resume" below the mark unseen by more than one look.
        #[test]
        fn it_is_looked_before_the_room_is_gone(free: u64, size: u64, reserve: u64, percent: u8) {
            let config = config(Bytes(reserve), percent);
            let (verdict, wait) = decide(&config, Room { free: Bytes(free), size: Bytes(size) });
            prop_assert!((OFTEN..=SELDOM).contains(&wait));
            let mark = mark(&config, Bytes(size));
            prop_assert_eq!(verdict == Verdict::Pause, free < mark.0);
            if wait > OFTEN {
                let written = wait.as_millis() as u64 * (FASTEST / 1000);
                prop_assert!(free - mark.0 >= written);
            }
        }
    }

    #[tokio::test]
    async fn only_who_was_paused_for_this_goes_on() {
        let bench = bench().await;
        let vm = |name: &str, state, error: &str| {
            let id = bench.add_vm(name, state);
            bench.service.store.set_vm_state(id, state, error).unwrap();
            bench.service.vm(id).unwrap()
        };
        let room = Room { free: Bytes::mib(1), size: Bytes::gib(1) };
        let why = why(&bench.service, room);
        assert!(why.starts_with(WHY) && why.contains("1 MiB left") && why.contains("2 GiB of room"), "{why}");
        let (ours, theirs) = (vm("ours", VmState::Paused, &why), vm("theirs", VmState::Paused, ""));
        let (runs, rests) = (vm("runs", VmState::Running, ""), vm("rests", VmState::Stopped, &why));
        for (verdict, who) in [
            (Verdict::Resume, [true, false, false, false]),
            (Verdict::Pause, [false, false, true, false]),
            (Verdict::Leave, [false; 4]),
        ] {
            let concerned = [&ours, &theirs, &runs, &rests].map(|vm| concerns(vm, verdict));
            assert_eq!(concerned, who, "{verdict:?}");
        }
    }
}
