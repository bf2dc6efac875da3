//! What is known of VMs beyond the database: whose turn it is, and the connections of those that run.

use crate::console::Console;
use banger_agent::Agent;
use banger_model::VmId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A VM that exists.
pub struct Machine {
    /// Held by the one operation that may change the VM, so that two on one VM are ordered.
    pub turn: tokio::sync::Mutex<()>,
    live: Mutex<Option<Arc<Live>>>,
    start: Mutex<CancellationToken>,
}

/// A VM's process and the connections to it.
pub struct Live {
    /// Its process id, for showing.
    pub pid: u32,
    /// Its console.
    pub console: Arc<Console>,
    /// Set when an operation has taken the ending of this process into its hands.
    pub ending: CancellationToken,
    agent: watch::Sender<Option<Arc<Agent>>>,
}

impl Live {
    /// A process with these connections.
    pub fn new(pid: u32, console: Arc<Console>, agent: Option<Agent>) -> Arc<Self> {
        Arc::new(Self {
            pid,
            console,
            ending: CancellationToken::new(),
            agent: watch::Sender::new(agent.map(Arc::new)),
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

    /// Replaces the connection to the guest.
    pub fn set_agent(&self, agent: Option<Agent>) {
        self.agent.send_replace(agent.map(Arc::new));
    }
}

impl Machine {
    /// Its process, when it has one.
    pub fn live(&self) -> Option<Arc<Live>> {
        lock(&self.live).clone()
    }

    /// Says what cancels the start that is under way.
    pub fn set_start(&self, cancel: &CancellationToken) {
        *lock(&self.start) = cancel.clone();
    }

    /// Cancels the start that is under way, if one is: who wants it stopped does not wait for its guest.
    pub fn interrupt_start(&self) {
        lock(&self.start).cancel();
    }

    /// Says which process it has.
    pub fn set_live(&self, live: Option<Arc<Live>>) {
        *lock(&self.live) = live;
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
        let fresh = || Machine {
            turn: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            start: Mutex::default(),
        };
        lock(&self.all).entry(id).or_insert_with(|| Arc::new(fresh())).clone()
    }

    /// Forgets a VM that no longer exists.
    pub fn forget(&self, id: VmId) {
        lock(&self.all).remove(&id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
