//! What is known of VMs beyond the database: whose turn it is, and the connections of those that run.

use crate::console::Console;
use banger_agent::{Agent, ExitStatus, Figures};
use banger_model::{Backoff, VmId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a guest may take to measure itself.
const MEASURE: Duration = Duration::from_secs(2);

/// How a start came out, once it has.
pub type Outcome = Option<Result<(), banger_dbus::Error>>;

/// A VM that exists.
pub struct Machine {
    /// Held by the one operation that may change the VM, so that two on one VM are ordered.
    pub turn: tokio::sync::Mutex<()>,
    live: Mutex<Option<Arc<Live>>>,
    start: Mutex<CancellationToken>,
    /// The start that is asked for and has not come out yet.
    starting: Mutex<Option<watch::Receiver<Outcome>>>,
    /// The start that comes by itself, after a pause.
    retry: Mutex<CancellationToken>,
    /// How long that pause is.
    pub backoff: Mutex<Backoff>,
    changes: watch::Sender<u64>,
    exit: Mutex<Option<ExitStatus>>,
    /// When its processors' time was last looked at, and what it was, in microseconds.
    pub looked: Mutex<Option<(Instant, u64)>>,
}

/// A VM's process and the connections to it.
pub struct Live {
    /// Its process id, for showing.
    pub pid: u32,
    /// Its console.
    pub console: Arc<Console>,
    /// Set when an operation has taken the ending of this process into its hands.
    pub ending: CancellationToken,
    /// Since when this service knows it.
    pub since: Instant,
    agent: watch::Sender<Option<Arc<Agent>>>,
    exit: Mutex<Option<ExitStatus>>,
    sessions: watch::Sender<u32>,
}

/// Somebody's use of a guest, until this is dropped.
pub struct Session(Arc<Live>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|sessions| *sessions = sessions.saturating_sub(1));
    }
}

impl Live {
    /// A process with these connections.
    pub fn new(pid: u32, console: Arc<Console>, agent: Option<Agent>) -> Arc<Self> {
        Arc::new(Self {
            pid,
            console,
            ending: CancellationToken::new(),
            since: Instant::now(),
            agent: watch::Sender::new(agent.map(Arc::new)),
            exit: Mutex::default(),
            sessions: watch::Sender::new(0),
        })
    }

    /// The connection to the guest, when there is one.
    pub fn agent(&self) -> Option<Arc<Agent>> {
        self.agent.borrow().clone()
    }

    /// The connection to the guest, as soon as there is one: after the service was started again it is still being made.
    pub async fn agent_within(&self, wait: Duration) -> Option<Arc<Agent>> {
        let mut changes = self.agent.subscribe();
        let found = tokio::time::timeout(wait, changes.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Replaces the connection to the guest. What the old one knew of the main process stays known.
    pub fn set_agent(&self, agent: Option<Agent>) {
        let known = self.exit();
        *lock(&self.exit) = known;
        self.agent.send_replace(agent.map(Arc::new));
    }

    /// Ends the connection to the guest, and waits for the one that is made after it.
    pub async fn renew_agent(&self, wait: Duration) {
        let Some(old) = self.agent() else { return };
        let mut changes = self.agent.subscribe();
        old.close();
        let is_new = |agent: &Option<Arc<Agent>>| agent.as_ref().is_some_and(|new| !Arc::ptr_eq(new, &old));
        // Whoever needs it finds out whether there is one.
        let _ = tokio::time::timeout(wait, changes.wait_for(is_new)).await;
    }

    /// How the guest's main process ended, if it has.
    pub fn exit(&self) -> Option<ExitStatus> {
        let told = self.agent().and_then(|agent| agent.main_ended());
        told.or(*lock(&self.exit))
    }

    /// What the guest measures of itself; `None` when it does not answer at the moment.
    pub async fn figures(&self) -> Option<Figures> {
        let agent = self.agent()?;
        tokio::time::timeout(MEASURE, agent.measure()).await.ok()?.ok()
    }

    /// Notes that somebody uses the guest.
    pub fn session(self: &Arc<Self>) -> Session {
        self.sessions.send_modify(|sessions| *sessions += 1);
        Session(self.clone())
    }

    /// How many use the guest through this service: commands, connections, consoles.
    pub fn users(&self) -> u32 {
        self.sessions.borrow().saturating_add(self.console.viewers())
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            start: Mutex::default(),
            starting: Mutex::default(),
            retry: Mutex::default(),
            backoff: Mutex::default(),
            changes: watch::Sender::new(0),
            exit: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    /// Its process, when it has one.
    pub fn live(&self) -> Option<Arc<Live>> {
        lock(&self.live).clone()
    }

    /// Says what cancels the start that is under way.
    pub fn set_start(&self, cancel: &CancellationToken) {
        *lock(&self.start) = cancel.clone();
    }

    /// Cancels the start that is under way, if one is: who wants it stopped does not wait for its guest. A start that
    /// is asked for after this is another one, and none comes by itself.
    pub fn interrupt_start(&self) {
        *lock(&self.starting) = None;
        lock(&self.retry).cancel();
        lock(&self.start).cancel();
    }

    /// Begins a start: what tells its outcome, or, where one is asked for already, what that comes to.
    pub fn begin_start(&self) -> Result<watch::Sender<Outcome>, watch::Receiver<Outcome>> {
        let mut starting = lock(&self.starting);
        match &*starting {
            // One whose teller is gone never came out.
            Some(first) if first.borrow().is_none() && first.has_changed().is_ok() => Err(first.clone()),
            _ => {
                let (told, first) = watch::channel(None);
                *starting = Some(first);
                Ok(told)
            }
        }
    }

    /// What cancels a start that comes by itself; one that was to come before comes no more.
    pub fn new_retry(&self) -> CancellationToken {
        let token = CancellationToken::new();
        std::mem::replace(&mut *lock(&self.retry), token.clone()).cancel();
        token
    }

    /// Says which process it has.
    pub fn set_live(&self, live: Option<Arc<Live>>) {
        *lock(&self.looked) = None;
        *lock(&self.live) = live;
    }

    /// Tells that something about it is another.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// What hears of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps how it ended for those who wait, also once there is no row of it any more.
    pub fn set_exit(&self, exit: Option<ExitStatus>) {
        *lock(&self.exit) = exit;
    }

    /// How it ended.
    pub fn exit(&self) -> Option<ExitStatus> {
        *lock(&self.exit)
    }
}

/// All VMs.
#[derive(Default)]
pub struct Machines {
    all: Mutex<HashMap<VmId, Arc<Machine>>>,
}

impl Machines {
    /// The VM's entry, made when it is not there yet.
    pub fn of(&self, id: VmId) -> Arc<Machine> {
        lock(&self.all).entry(id).or_insert_with(|| Arc::new(Machine::new())).clone()
    }

    /// The VM's process, when it has one. A VM of which nothing is known stays so: a list of many makes no entries.
    pub fn live(&self, id: VmId) -> Option<Arc<Live>> {
        let machine = lock(&self.all).get(&id).cloned();
        machine?.live()
    }

    /// Forgets a VM that no longer exists, and tells those who wait for it.
    pub fn forget(&self, id: VmId) {
        if let Some(machine) = lock(&self.all).remove(&id) {
            machine.interrupt_start();
            machine.changed();
        }
    }
}

/// A panic elsewhere leaves these values whole: every change is made in one go.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_two_starts_gets_what_the_first_comes_to() {
        let machine = Machine::new();
        let first = machine.begin_start().unwrap();
        let second = machine.begin_start().unwrap_err();
        let failed = Err(banger_dbus::Error::NoSpace("full".into()));
        first.send_replace(Some(failed.clone()));
        assert_eq!(*second.borrow(), Some(failed));
        assert!(machine.begin_start().is_ok(), "it has come out: the next one is another");
    }

    #[test]
    fn a_start_after_a_stop_is_another_one() {
        let machine = Machine::new();
        let _first = machine.begin_start().unwrap();
        machine.interrupt_start();
        let third = machine.begin_start().unwrap();
        drop(third);
        assert!(machine.begin_start().is_ok(), "one that broke off is nobody's first");
    }

    #[test]
    fn of_two_starts_that_come_by_themselves_the_older_does_not() {
        let machine = Machine::new();
        let (older, newer) = (machine.new_retry(), machine.new_retry());
        assert!(older.is_cancelled() && !newer.is_cancelled());
        machine.interrupt_start();
        assert!(newer.is_cancelled());
    }
}
