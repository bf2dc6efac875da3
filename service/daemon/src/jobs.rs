//! Jobs: work that goes on after the reply, with progress, cancellation and a result that can be waited for.

use crate::{
    api::{JobObject, ManagerObject},
    error::Error,
    gate::Gate,
    ids,
};
use banger_dbus::{Dict, names};
use banger_model::{JobId, JobKind, JobState, Phase, Uid};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zbus::{Connection, OwnedObjectPath, object_server::SignalEmitter};

/// Shortest time between two progress signals of one job: at most 10 a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long a finished job can still be asked for its result.
const KEPT: Duration = Duration::from_secs(600);

/// Where a job is. `done` of `total` counts what the phase counts.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its state.
    pub state: JobState,
    /// What it is doing.
    pub phase: Phase,
    /// How much of the phase is done.
    pub done: u64,
    /// How much there is; 0 when that is not known.
    pub total: u64,
    /// Files, directories and links written into an image so far.
    pub entries: u64,
    /// How it ended.
    pub result: Option<Result<Dict, banger_dbus::Error>>,
}

/// One job.
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// To what: a name, readable by every local user, so never a reference.
    pub subject: String,
    /// Who asked for it.
    pub owner: Uid,
    /// Whether cancelling has an effect.
    pub cancellable: bool,
    /// Set when somebody cancels it.
    pub cancel: CancellationToken,
    status: watch::Sender<Status>,
}

impl Job {
    /// The job's object path.
    pub fn path(&self) -> OwnedObjectPath {
        names::path_of(self.id)
    }

    /// Where it is now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Enters a phase.
    pub fn phase(&self, phase: Phase) {
        self.status.send_modify(|s| (s.phase, s.done, s.total) = (phase, 0, 0));
    }

    /// Says how much the phase has to do.
    pub fn total(&self, total: u64) {
        self.status.send_modify(|s| s.total = total);
    }

    /// Says how much of the phase is done. Never goes back.
    pub fn advance(&self, done: u64) {
        self.status.send_if_modified(|s| {
            let forward = done > s.done;
            s.done = s.done.max(done);
            forward
        });
    }

    /// Says how many files, directories and links the image has by now. Never goes back, whatever the phase.
    pub fn entries(&self, written: u64) {
        self.status.send_if_modified(|s| {
            let forward = written > s.entries;
            s.entries = s.entries.max(written);
            forward
        });
    }

    /// Asks it to stop.
    ///
    /// # Errors
    /// [`Error::NotCancellable`] when it cannot be; cancelling one that has ended is no error.
    pub fn request_cancel(&self) -> Result<(), Error> {
        if self.status().state.is_final() {
            return Ok(());
        }
        if !self.cancellable {
            return Err(Error::NotCancellable { kind: self.kind.as_str() });
        }
        self.status.send_if_modified(|s| {
            let running = s.state == JobState::Running;
            if running {
                s.state = JobState::Cancelling;
            }
            running
        });
        self.cancel.cancel();
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The error that it ended with.
    pub async fn wait(&self) -> Result<Dict, banger_dbus::Error> {
        let mut changes = self.status.subscribe();
        match changes.wait_for(|s| s.result.is_some()).await.map(|s| s.result.clone()) {
            Ok(Some(result)) => result,
            // The sender lives in this job, so the channel cannot have closed.
            _ => Err(Error::Internal("the job went away".into()).into()),
        }
    }

    fn finish(&self, result: Result<Dict, banger_dbus::Error>) {
        self.status.send_modify(|s| {
            s.state = match &result {
                Ok(_) => JobState::Done,
                Err(banger_dbus::Error::Cancelled(_)) => JobState::Cancelled,
                Err(_) => JobState::Failed,
            };
            s.phase = Phase::Finished;
            s.result = Some(result);
        });
    }
}

impl banger_image::Progress for Job {
    fn phase(&self, phase: Phase) {
        Job::phase(self, phase);
    }

    fn total(&self, total: u64) {
        Job::total(self, total);
    }

    fn advance(&self, done: u64) {
        Job::advance(self, done);
    }

    fn entries(&self, written: u64) {
        Job::entries(self, written);
    }
}

/// What a job is started with.
pub struct NewJob {
    /// What it does.
    pub kind: JobKind,
    /// To what.
    pub subject: String,
    /// For whom.
    pub owner: Uid,
    /// Whether it can be cancelled.
    pub cancellable: bool,
}

/// The jobs of this service.
pub struct Jobs {
    bus: Connection,
    gate: Arc<Gate>,
    all: Mutex<HashMap<JobId, Arc<Job>>>,
}

impl Jobs {
    /// No jobs yet; their objects will be exported on `bus`.
    pub fn new(bus: Connection, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { bus, gate, all: Mutex::default() })
    }

    /// The jobs that there are, newest last.
    pub fn list(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> = self.table().values().cloned().collect();
        jobs.sort_by_key(|job| job.id);
        jobs
    }

    /// How many jobs of this user are under way.
    pub fn under_way(&self, owner: Uid) -> usize {
        self.table().values().filter(|job| job.owner == owner && !job.status().state.is_final()).count()
    }

    /// Exports a job's object, then begins `work`. The work sees cancellation through the job's token and
    /// undoes what it did before it returns [`Error::Cancelled`].
    ///
    /// # Errors
    /// When the object cannot be exported.
    pub async fn start<F, W>(self: &Arc<Self>, new: NewJob, work: F) -> Result<Arc<Job>, Error>
    where
        F: FnOnce(Arc<Job>) -> W,
        W: Future<Output = Result<Dict, Error>> + Send + 'static,
    {
        let NewJob { kind, subject, owner, cancellable } = new;
        let status = Status {
            state: JobState::Running,
            phase: Phase::Queued,
            done: 0,
            total: 0,
            entries: 0,
            result: None,
        };
        let job = Arc::new(Job {
            id: JobId::from_bits(ids::ascending()?),
            kind,
            subject,
            owner,
            cancellable,
            cancel: CancellationToken::new(),
            status: watch::Sender::new(status),
        });
        self.bus.object_server().at(job.path(), JobObject::new(self.gate.clone(), job.clone())).await?;
        self.table().insert(job.id, job.clone());
        self.manager(async |to| ManagerObject::job_added(to, job.path()).await).await;
        tracing::info!(job = %job.id, kind = kind.as_str(), subject = job.subject, uid = owner.0, "job begins");

        tokio::spawn(self.clone().report(job.clone()));
        let work = work(job.clone());
        let ending = job.clone();
        tokio::spawn(async move {
            // A panic in the work must not leave its waiters waiting.
            let result = match tokio::spawn(work).await {
                Ok(result) => result,
                Err(panic) => Err(Error::Internal(format!("the operation broke off: {panic}"))),
            };
            match &result {
                Ok(_) => tracing::info!(job = %ending.id, "job done"),
                Err(error) => tracing::warn!(job = %ending.id, %error, "job failed"),
            }
            ending.finish(result.map_err(Into::into));
        });
        Ok(job)
    }

    /// Turns changes of the job's status into signals, at most ten a second, until it has been ended for
    /// [`KEPT`]; then removes it.
    async fn report(self: Arc<Self>, job: Arc<Job>) {
        let mut changes = job.status.subscribe();
        changes.mark_changed();
        let mut shown: Option<Status> = None;
        while changes.changed().await.is_ok() {
            let status = changes.borrow_and_update().clone();
            self.signal(&job, &status, shown.as_ref()).await;
            let last = status.state.is_final();
            shown = Some(status);
            if last {
                break;
            }
            // The end is told at once, everything else waits for its turn.
            let ended = async {
                let mut end = job.status.subscribe();
                let _ = end.wait_for(|s| s.state.is_final()).await;
            };
            let _ = tokio::time::timeout(PROGRESS_INTERVAL, ended).await;
        }
        tokio::time::sleep(KEPT).await;
        self.table().remove(&job.id);
        if let Err(error) = self.bus.object_server().remove::<JobObject, _>(job.path()).await {
            tracing::warn!(job = %job.id, %error, "the job's object stays");
        }
        self.manager(async |to| ManagerObject::job_removed(to, job.path()).await).await;
    }

    async fn signal(&self, job: &Job, status: &Status, before: Option<&Status>) {
        match self.bus.object_server().interface::<_, JobObject>(job.path()).await {
            Ok(object) => object.get().await.announce(object.signal_emitter(), status, before).await,
            Err(error) => tracing::warn!(job = %job.id, %error, "the job's object is not there"),
        }
        if before.map(|s| (s.phase, s.done, s.total)) != Some((status.phase, status.done, status.total)) {
            let progress = (job.path(), status.phase.as_str(), status.done, status.total);
            self.manager(async |to| {
                ManagerObject::job_progress(to, progress.0, progress.1, progress.2, progress.3).await
            })
            .await;
        }
    }

    async fn manager(&self, tell: impl AsyncFnOnce(&SignalEmitter<'_>) -> zbus::Result<()>) {
        match SignalEmitter::new(&self.bus, names::MANAGER_PATH) {
            Ok(emitter) => log_failure(tell(&emitter).await),
            Err(error) => log_failure::<()>(Err(error)),
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<Job>>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A signal that cannot be sent means that the bus is gone; the service ends for that reason elsewhere. An object
/// that is not there is not shown yet, or no longer.
pub fn log_failure<T>(sent: zbus::Result<T>) {
    match sent {
        Ok(_) | Err(zbus::Error::InterfaceNotFound) => {}
        Err(error) => tracing::warn!(%error, "the bus was not told"),
    }
}
