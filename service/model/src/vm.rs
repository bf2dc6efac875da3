//! A VM's life: its states, and what may happen in each.

use crate::error::ModelError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// It has a disk and has never run.
    Created,
    /// Its resources are being made, or its guest boots.
    Starting,
    /// Its guest answered that it is ready.
    Running,
    /// Its guest's processors stand still, and everything else of it stays as it is.
    Paused,
    /// Its guest was asked to stop, or is being ended.
    Stopping,
    /// It ran and no longer does.
    Stopped,
    /// It did not come up, or ended by itself without having been asked.
    Failed,
    /// It is being removed for good.
    Deleting,
}

/// What happens to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmEvent {
    /// Somebody starts it.
    Start,
    /// Its guest is ready.
    Ready,
    /// Its guest's processors are stopped.
    Pause,
    /// They run again.
    Resume,
    /// Somebody stops it, or the guest announced its shutdown.
    Stop,
    /// Its process is gone, as it was meant to be.
    Stopped,
    /// It did not start, or its process is gone unexpectedly.
    Fail,
    /// Somebody deletes it.
    Delete,
}

impl VmState {
    /// Every state.
    pub const ALL: [VmState; 8] = [
        VmState::Created,
        VmState::Starting,
        VmState::Running,
        VmState::Paused,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Failed,
        VmState::Deleting,
    ];

    /// The state after `event`: the one table of transitions.
    ///
    /// # Errors
    /// [`ModelError::Transition`] where the table has no row.
    pub fn after(self, event: VmEvent) -> Result<VmState, ModelError> {
        use VmEvent as E;
        use VmState as S;
        match (self, event) {
            (S::Created | S::Stopped | S::Failed, E::Start) => Ok(S::Starting),
            (S::Starting, E::Ready) => Ok(S::Running),
            (S::Running, E::Pause) => Ok(S::Paused),
            (S::Paused, E::Resume) => Ok(S::Running),
            (S::Starting | S::Running | S::Paused, E::Stop) => Ok(S::Stopping),
            (S::Stopping, E::Stopped) => Ok(S::Stopped),
            // A guest may power itself off; its process's end may be noticed once it is paused.
            (S::Running | S::Paused, E::Stopped) => Ok(S::Stopped),
            (S::Starting | S::Running | S::Paused | S::Stopping, E::Fail) => Ok(S::Failed),
            (S::Created | S::Stopped | S::Failed, E::Delete) => Ok(S::Deleting),
            (state, event) => Err(ModelError::Transition { state, event }),
        }
    }

    /// Whether a VMM process may exist in this state.
    pub fn may_have_process(self) -> bool {
        matches!(self, VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping)
    }

    /// The word for it on the bus and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            VmState::Created => "created",
            VmState::Starting => "starting",
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Stopping => "stopping",
            VmState::Stopped => "stopped",
            VmState::Failed => "failed",
            VmState::Deleting => "deleting",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for VmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VmEvent::Start => "start",
            VmEvent::Ready => "become ready",
            VmEvent::Pause => "be paused",
            VmEvent::Resume => "be resumed",
            VmEvent::Stop => "stop",
            VmEvent::Stopped => "have stopped",
            VmEvent::Fail => "fail",
            VmEvent::Delete => "be deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [VmEvent; 8] = [
        VmEvent::Start,
        VmEvent::Ready,
        VmEvent::Pause,
        VmEvent::Resume,
        VmEvent::Stop,
        VmEvent::Stopped,
        VmEvent::Fail,
        VmEvent::Delete,
    ];

    #[test]
    fn the_table() {
        use VmEvent as E;
        use VmState as S;
        let allowed = [
            (S::Created, E::Start, S::Starting),
            (S::Created, E::Delete, S::Deleting),
            (S::Starting, E::Ready, S::Running),
            (S::Starting, E::Stop, S::Stopping),
            (S::Starting, E::Fail, S::Failed),
            (S::Running, E::Pause, S::Paused),
            (S::Running, E::Stop, S::Stopping),
            (S::Running, E::Stopped, S::Stopped),
            (S::Running, E::Fail, S::Failed),
            (S::Paused, E::Resume, S::Running),
            (S::Paused, E::Stop, S::Stopping),
            (S::Paused, E::Stopped, S::Stopped),
            (S::Paused, E::Fail, S::Failed),
            (S::Stopping, E::Stopped, S::Stopped),
            (S::Stopping, E::Fail, S::Failed),
            (S::Stopped, E::Start, S::Starting),
            (S::Stopped, E::Delete, S::Deleting),
            (S::Failed, E::Start, S::Starting),
            (S::Failed, E::Delete, S::Deleting),
        ];
        for state in VmState::ALL {
            for event in EVENTS {
                let expected = allowed.iter().find(|(s, e, _)| (*s, *e) == (state, event)).map(|row| row.2);
                assert_eq!(state.after(event).ok(), expected, "{state} {event}");
            }
        }
    }

    #[test]
    fn nothing_is_deleted_while_a_process_may_exist() {
        for state in VmState::ALL {
            assert!(!(state.may_have_process() && state.after(VmEvent::Delete).is_ok()), "{state}");
        }
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let error = VmState::Running.after(VmEvent::Delete).unwrap_err();
        assert_eq!(error.to_string(), "the VM is running: it cannot be deleted now");
    }
}
