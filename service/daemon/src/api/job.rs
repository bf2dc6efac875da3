//! `org.banger.Job`.

use super::no_options;
use crate::{
    gate::Gate,
    jobs::{Job, Status, log_failure},
};
use banger_dbus::{Dict, Error};
use banger_polkit::{Details, Operation};
use std::sync::Arc;
use zbus::{message::Header, object_server::SignalEmitter};

/// A job on the bus.
pub struct JobObject {
    gate: Arc<Gate>,
    job: Arc<Job>,
}

impl JobObject {
    /// The object of this job.
    pub fn new(gate: Arc<Gate>, job: Arc<Job>) -> Self {
        Self { gate, job }
    }

    /// Tells a status, and what changed since the one told before.
    pub async fn announce(&self, emitter: &SignalEmitter<'_>, status: &Status, before: Option<&Status>) {
        // Before the progress of the same moment, so that whoever shows both shows what belongs together.
        if before.map(|s| s.entries) != Some(status.entries) {
            log_failure(self.entries_changed(emitter).await);
        }
        if before.map(|s| (s.phase, s.done, s.total)) != Some((status.phase, status.done, status.total)) {
            let phase = status.phase.as_str();
            log_failure(Self::progress(emitter, phase, status.done, status.total).await);
            log_failure(self.done_changed(emitter).await);
            log_failure(self.total_changed(emitter).await);
        }
        if before.map(|s| s.phase) != Some(status.phase) {
            log_failure(self.phase_changed(emitter).await);
        }
        if before.map(|s| s.state) != Some(status.state) {
            log_failure(self.state_changed(emitter).await);
        }
    }
}

/// Work that goes on after the reply that named it. It stays for ten minutes after its end, so that
/// nobody can miss that.
#[zbus::interface(name = "org.banger.Job")]
impl JobObject {
    /// Waits for the end of the job.
    ///
    /// Replies with what the job made (`image` o, `vm` o or `kernel` o, for example), or with the error
    /// that it ended with, by its own name. A job of another user is not there.
    #[zbus(out_args("result"))]
    async fn wait(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let caller = self.gate.caller(&header).await?;
        self.gate.must_see(&caller, self.job.owner, "job", &self.job.id.to_string())?;
        self.job.wait().await
    }

    /// Asks the job to stop. It undoes what it did and then ends with `org.banger.Error.Cancelled`.
    ///
    /// Cancelling a job that has ended does nothing. The job of another user needs the authorization
    /// `org.banger.manager.job-cancel-others`.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<(), Error> {
        no_options(options)?;
        let caller = self.gate.caller(&header).await?;
        self.gate.authorize(&caller, Operation::CancelJob, Some(self.job.owner), Details::new()).await?;
        Ok(self.job.request_cancel()?)
    }

    /// What the job does, such as `pull-image` or `create-vm`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> &str {
        self.job.kind.as_str()
    }

    /// The name of what it does it to.
    #[zbus(property(emits_changed_signal = "const"))]
    fn subject(&self) -> &str {
        &self.job.subject
    }

    /// The user who asked for it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> u32 {
        self.job.owner.0
    }

    /// Whether cancelling it has an effect.
    #[zbus(property(emits_changed_signal = "const"))]
    fn cancellable(&self) -> bool {
        self.job.cancellable
    }

    /// `running`, `cancelling`, `done`, `failed` or `cancelled`.
    #[zbus(property)]
    fn state(&self) -> String {
        self.job.status().state.as_str().into()
    }

    /// What it is doing at the moment, such as `resolving`, `pulling` or `booting`.
    #[zbus(property)]
    fn phase(&self) -> String {
        self.job.status().phase.as_str().into()
    }

    /// How much of the phase is done, in the phase's own unit; never goes back within a phase.
    #[zbus(property)]
    fn done(&self) -> u64 {
        self.job.status().done
    }

    /// How much the phase has to do; 0 where that is not known.
    #[zbus(property)]
    fn total(&self) -> u64 {
        self.job.status().total
    }

    /// How many files, directories and links are written into the image so far; 0 where the job makes none. Never
    /// goes back.
    #[zbus(property)]
    fn entries(&self) -> u64 {
        self.job.status().entries
    }

    /// How far the job is; at most ten times a second.
    #[zbus(signal)]
    async fn progress(emitter: &SignalEmitter<'_>, phase: &str, done: u64, total: u64) -> zbus::Result<()>;
}
