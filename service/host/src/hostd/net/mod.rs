//! The VMs' network: one bridge, a TAP in it for each VM, the rules of their packets, and what the host has to route.
//!
//! [`Network`] holds what is to be, and makes it so: [`rules`] and [`forwarding`] decide, [`bridge`], [`nft`] and
//! [`foreign`] act, [`mod@watch`] sees when the host changes underneath. All of it goes when the last VM has been gone for a
//! while, or this process ends without one. What is to be is written down in `network.json`, for another life of this
//! process: VMs run on without it.

mod bridge;
mod foreign;
mod forwarding;
mod netlink;
mod nft;
mod ports;
mod rules;
mod saved;
mod watch;

pub use bridge::{NAME as BRIDGE, Tap};
pub use watch::start as watch;

use crate::devices::await_gone;
use crate::refused::{Refused, Result, not_ready, refused, system};
use banger_host::Refusal;
use banger_model::{Firewall, NetworkMode, NetworkRules, Origin, Slot, Subnet, Used, VmId};
use forwarding::Changed;
use rules::{Guest, Rules};
use saved::Saved;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watch::Bell;

/// So many TAPs are kept ready while the bridge is there.
const WARM: usize = 4;

/// How long until what could not be removed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The VMs' network on this host.
#[derive(Debug)]
pub struct Network {
    file: PathBuf,
    /// How long everything stays when the last VM has gone: the next one starts quicker.
    linger: Duration,
    bell: Bell,
    state: Mutex<State>,
}

/// What is there, and what is to be.
#[derive(Debug, Default)]
struct State {
    /// The bridge's network and number, while there is one.
    bridge: Option<(Subnet, u32)>,
    guests: BTreeMap<VmId, Guest>,
    /// The rules in force, as far as known.
    in_force: Option<Rules>,
    /// The host's ports that guests' are published on.
    ports: BTreeMap<VmId, Vec<OwnedFd>>,
    /// TAPs that are nobody's yet.
    warm: Vec<Tap>,
    changed: Changed,
    /// Since when there is no guest.
    idle: Option<Instant>,
}

impl Network {
    /// The network whose state is written down in `file`. Nothing is made yet.
    pub fn new(file: PathBuf, linger: Duration) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { file, linger, bell: Bell::new()?, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses that the host uses without us, and the firewalls in the way.
    pub fn look(&self) -> Result<(Vec<Used>, Vec<Firewall>)> {
        let used = bridge::used().map_err(system("the host's addresses and routes"))?;
        // Without nft there is no firewall that it could list; the first VM's start says what is missing.
        Ok((used, foreign::look().unwrap_or_default()))
    }

    /// A TAP for a VM, up in the bridge, which is made if it is not there.
    pub fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Result<Tap> {
        let mut state = self.lock();
        let index = self.bridge(&mut state, subnet)?;
        let tap = match state.warm.pop() {
            Some(tap) => tap,
            None => bridge::make_tap(index).map_err(not_ready("making a TAP"))?,
        };
        // Whose TAP had the name is gone, though nobody has looked yet.
        state.guests.retain(|_, guest| guest.tap != tap.name);
        let guest = Guest { slot, tap: tap.name.clone(), index: tap.index, rules: NetworkRules::default() };
        state.guests.insert(vm, guest);
        state.idle = None;
        self.save(&state)?;
        let addresses = [subnet.guest_v4(slot).into(), subnet.guest_v6(slot).into()];
        if let Err(error) = bridge::give_tap(&tap.name, index, slot.mac(), &addresses) {
            state.guests.remove(&vm);
            state.rest();
            return Err(system(format!("setting up {}", tap.name))(error));
        }
        self.bell.ring();
        Ok(tap)
    }

    /// The name of a VM's TAP, if it has one.
    pub fn tap_of(&self, vm: VmId) -> Option<String> {
        self.lock().guests.get(&vm).map(|guest| guest.tap.clone())
    }

    /// Waits until a VM's TAP is gone, and forgets the VM.
    pub fn await_tap_gone(&self, vm: VmId) -> io::Result<()> {
        let Some(guest) = self.lock().guests.get(&vm).cloned() else { return Ok(()) };
        await_gone(&guest.tap, || Ok(!guest.has_tap()?))?;
        self.forget(&mut self.lock(), &[vm]).map_err(|failure| io::Error::other(failure.message))
    }

    /// Lets a VM's packets do what `rules` say, and nothing else. It has a TAP.
    pub fn open(&self, vm: VmId, rules: NetworkRules) -> Result<()> {
        let mut state = self.lock();
        let guest = state.guests.get(&vm).cloned();
        let guest = guest.ok_or_else(|| refused(Refusal::WrongState, format!("VM {vm} has no TAP")))?;
        for (other, theirs) in state.guests.iter().filter(|(id, _)| **id != vm) {
            for port in &rules.ports {
                if theirs.rules.ports.iter().any(|taken| taken.collides(port)) {
                    tracing::info!(%vm, %other, %port, "a port is another VM's");
                    return Err(refused(
                        Refusal::InUse,
                        format!("the host's port of {port} is another VM's: publish another port"),
                    ));
                }
            }
        }
        // Those that stay are let go and taken again: nobody else can be quicker under this lock but other programs.
        let before = state.ports.remove(&vm);
        drop(before);
        let taken = rules.ports.iter().map(ports::take).collect::<Result<Vec<OwnedFd>>>();
        let done = taken.and_then(|ports| {
            state.ports.insert(vm, ports);
            state.guests.insert(vm, Guest { rules, ..guest.clone() });
            // One is made isolated; to say so again takes as long as to change it.
            let shared = [&guest, &state.guests[&vm]].map(|guest| guest.rules.mode == NetworkMode::Shared);
            if shared[0] != shared[1] {
                bridge::set_isolated(&guest.tap, !shared[1])
                    .map_err(system(format!("setting up {}", guest.tap)))?;
            }
            self.apply(&mut state)
        });
        if let Err(failure) = done {
            // As it was before, as far as that can be.
            let ports = guest.rules.ports.iter().flat_map(ports::take).collect();
            state.ports.insert(vm, ports);
            state.guests.insert(vm, guest);
            return Err(match self.apply(&mut state) {
                Ok(()) => failure,
                Err(also) => {
                    Refused { kind: Refusal::Rollback, message: format!("{failure}; not undone: {also}") }
                }
            });
        }
        Ok(())
    }

    /// Takes back what [`Network::open`] allowed.
    pub fn close(&self, vm: VmId) -> Result<()> {
        let mut state = self.lock();
        state.ports.remove(&vm);
        let Some(guest) = state.guests.get_mut(&vm) else { return Ok(()) };
        let rules = std::mem::take(&mut guest.rules);
        // With its VMM the TAP may be gone.
        if rules.mode == NetworkMode::Shared && guest.has_tap().is_ok_and(|has| has) {
            bridge::set_isolated(&guest.tap, true).map_err(system(format!("setting up {}", guest.tap)))?;
        }
        if rules == NetworkRules::default() {
            return Ok(());
        }
        self.apply(&mut state)
    }

    /// Takes on the network of the VMs that another life of this process started, and removes it if there are none.
    pub fn find_again(&self, living: &BTreeSet<VmId>) -> io::Result<()> {
        let mut state = self.lock();
        let saved = Saved::read(&self.file)?;
        if saved.is_none() && bridge::index_of(bridge::NAME)?.is_none() {
            return Ok(());
        }
        if let Some(saved) = saved {
            state.changed = saved.changed;
            for (vm, guest) in saved.guests {
                if living.contains(&vm) && guest.has_tap()? {
                    state.guests.insert(vm, guest);
                }
            }
            if !state.guests.is_empty() {
                state.bridge = Some((saved.subnet, bridge::make(&saved.subnet)?));
            }
        }
        if state.guests.is_empty() {
            return self.take_down(&mut state);
        }
        let rules: Vec<_> = state.guests.iter().map(|(vm, guest)| (*vm, guest.rules.ports.clone())).collect();
        for (vm, published) in rules {
            let taken = published.iter().filter_map(|port| match ports::take(port) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::warn!(%vm, %port, %error, "a published port was not taken again");
                    None
                }
            });
            let taken = taken.collect();
            state.ports.insert(vm, taken);
        }
        self.apply(&mut state).map_err(|failure| io::Error::other(failure.message))?;
        self.bell.ring();
        Ok(())
    }

    /// Sees to it that the host is as it has to be: after something has changed, or some time has passed. Says how long
    /// it is until there is something to do without that.
    fn review(&self) -> Option<Duration> {
        let mut state = self.lock();
        let (_, index) = state.bridge?;
        let gone = state.guests.iter().filter(|(_, guest)| {
            // Its VMM has ended: whoever asks for it later finds nothing.
            guest.has_tap().is_ok_and(|has| !has)
        });
        let gone: Vec<VmId> = gone.map(|(vm, _)| *vm).collect();
        let mut done = if gone.is_empty() { Ok(()) } else { self.forget(&mut state, &gone) };
        if let Some(since) = state.idle {
            let left = self.linger.saturating_sub(since.elapsed());
            if left.is_zero() {
                if let Err(error) = self.take_down(&mut state) {
                    tracing::error!(%error, "the VMs' network was not removed");
                    state.idle = Some(Instant::now());
                    return Some(AGAIN);
                }
                return None;
            }
            self.warm(&mut state, index);
            nft::prepare();
            return Some(left);
        }
        if done.is_ok() && !self.stands(&mut state) {
            state.in_force = None;
            done = self.apply(&mut state);
        }
        if let Err(error) = done {
            tracing::error!(%error, "the VMs' network is not as it has to be");
        }
        foreign::open();
        self.warm(&mut state, index);
        nft::prepare();
        None
    }

    /// Whether our tables are there, and all that has to route does.
    fn stands(&self, state: &mut State) -> bool {
        let before = state.changed.clone();
        let routed = self.route(state);
        let tables = [["inet", "banger"], ["bridge", "banger"]];
        let listed = |table: [&str; 2]| nft::list(&["-t", "list", "table", table[0], table[1]]).is_ok();
        routed.is_ok() && before == state.changed && tables.into_iter().all(listed)
    }

    /// Makes TAPs ahead.
    fn warm(&self, state: &mut State, bridge: u32) {
        while state.warm.len() < WARM {
            match bridge::make_tap(bridge) {
                Ok(tap) => state.warm.push(tap),
                Err(error) => return tracing::warn!(%error, "no TAP is made ahead"),
            }
        }
    }

    /// Ends without VMs as if it had never been; with VMs, another life goes on with it.
    pub fn end(&self) -> io::Result<()> {
        let mut state = self.lock();
        match state.guests.is_empty() && state.bridge.is_some() {
            true => self.take_down(&mut state),
            false => Ok(()),
        }
    }

    /// The bridge of that network, made when it is not there.
    fn bridge(&self, state: &mut State, subnet: Subnet) -> Result<u32> {
        match state.bridge {
            Some((there, index))
                if there == subnet && bridge::index_of(bridge::NAME).ok() == Some(Some(index)) =>
            {
                return Ok(index);
            }
            Some((there, _)) if there != subnet && !state.guests.is_empty() => {
                let message = format!("VMs run in {there}: stop them before others start in {subnet}");
                return Err(refused(Refusal::WrongState, message));
            }
            Some((there, _)) if there != subnet => {
                self.take_down(state).map_err(system("removing the former network"))?;
            }
            _ => {}
        }
        let used = bridge::used().map_err(system("the host's addresses and routes"))?;
        if let Some(conflict) = subnet.conflict(&used) {
            return Err(refused(Refusal::Conflict, conflict.to_string()));
        }
        // Written down first: whatever happens now, another life finds it.
        Saved::write(&self.file, subnet, &state.guests, &state.changed).map_err(system("network.json"))?;
        let made =
            bridge::make(&subnet).map_err(not_ready(format!("making {}", bridge::NAME))).and_then(|index| {
                state.bridge = Some((subnet, index));
                self.apply(state).map(|()| index)
            });
        if made.is_ok() {
            foreign::open();
            return made;
        }
        // Those that go on in a bridge that somebody has removed are not to lose the rest, too.
        if state.guests.is_empty()
            && let Err(error) = self.take_down(state)
        {
            tracing::error!(%error, "half a network was not removed");
        }
        made
    }

    /// Puts the rules, and the host's routing, in force; then writes it down.
    fn apply(&self, state: &mut State) -> Result<()> {
        let Some((subnet, _)) = state.bridge else { return Ok(()) };
        self.route(state)?;
        let guests: Vec<Guest> = state.guests.values().cloned().collect();
        let rules = Rules::new(&subnet, &guests, &state.changed.guarded());
        nft::put(&rules, state.in_force.take()).map_err(not_ready("the rules of the VMs' packets"))?;
        state.in_force = Some(rules);
        // Only now: without the rules guests could reach what listens on 127.0.0.1.
        let local = guests.iter().any(|guest| guest.rules.ports.iter().any(|port| port.is_local()));
        bridge::set_route_localnet(local).map_err(system("published ports on 127.0.0.1"))?;
        self.save(state)
    }

    /// Lets the host route where VMs need it.
    fn route(&self, state: &mut State) -> Result<()> {
        let Some((subnet, _)) = state.bridge else { return Ok(()) };
        let wanted = state.guests.values().any(|guest| guest.rules.is_routed());
        let uplinks: BTreeSet<String> = match wanted {
            true => {
                let used = bridge::used().map_err(system("the host's addresses and routes"))?;
                used.into_iter().filter(|one| one.origin == Origin::Route).map(|one| one.interface).collect()
            }
            false => BTreeSet::new(),
        };
        let remember = |changed: &Changed| Saved::write(&self.file, subnet, &state.guests, changed);
        state.changed = forwarding::settle(wanted, &state.changed, &uplinks, remember)
            .map_err(not_ready("letting the host route"))?;
        Ok(())
    }

    /// Forgets VMs whose TAPs are gone.
    fn forget(&self, state: &mut State, vms: &[VmId]) -> Result<()> {
        for vm in vms {
            state.ports.remove(vm);
            state.guests.remove(vm);
        }
        state.rest();
        self.bell.ring();
        self.apply(state)
    }

    fn save(&self, state: &State) -> Result<()> {
        let Some((subnet, _)) = state.bridge else { return Ok(()) };
        Saved::write(&self.file, subnet, &state.guests, &state.changed).map_err(system("network.json"))
    }

    /// Removes everything. What could not be removed is tried again by whoever comes here next.
    fn take_down(&self, state: &mut State) -> io::Result<()> {
        forwarding::settle(false, &state.changed, &BTreeSet::new(), |_| Ok(()))?;
        state.changed = Changed::default();
        state.ports.clear();
        foreign::close()?;
        state.warm.clear();
        bridge::remove()?;
        state.in_force = None;
        nft::dismiss();
        nft::run(&rules::remove())?;
        state.bridge = None;
        state.idle = None;
        Saved::remove(&self.file)?;
        tracing::info!("no VM is left: the VMs' network is removed");
        Ok(())
    }
}

impl Guest {
    /// Whether its TAP is there.
    fn has_tap(&self) -> io::Result<bool> {
        Ok(bridge::index_of(&self.tap)? == Some(self.index))
    }
}

impl State {
    /// Notes when the last guest has gone.
    fn rest(&mut self) {
        if self.guests.is_empty() {
            self.idle.get_or_insert_with(Instant::now);
        }
    }
}
