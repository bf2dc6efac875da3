//! A job that does what a script says.

use super::State;
use banger_dbus::{
    Dict, Error, JobInfo,
    model::{JobId, Uid},
};
use std::sync::{Arc, Mutex};
use tokio::{sync::watch, task::JoinHandle};
use zbus::object_server::SignalEmitter;

/// How a job goes.
#[derive(Debug, Clone)]
pub enum Script {
    Succeed(Dict),
    Fail(Error),
    UntilCancelled,
    /// It does not end, and ignores being cancelled.
    Never,
}

pub struct Job {
    pub id: JobId,
    state: Arc<State>,
    kind: String,
    subject: String,
    script: Script,
    cancelled: watch::Sender<bool>,
    before: Mutex<Option<JoinHandle<()>>>,
}

impl Job {
    pub fn new(state: Arc<State>, id: JobId, kind: &str, subject: &str, script: Script) -> Self {
        let cancelled = watch::Sender::new(false);
        Self {
            id,
            state,
            kind: kind.into(),
            subject: subject.into(),
            script,
            cancelled,
            before: Mutex::new(None),
        }
    }

    /// Work that is to be over before the job is.
    pub fn after(&self, work: JoinHandle<()>) {
        *self.before.lock().unwrap() = Some(work);
    }

    pub fn info(&self) -> JobInfo {
        JobInfo {
            id: self.id,
            kind: self.kind.clone(),
            state: "running".into(),
            owner_uid: Uid(1000),
            subject: self.subject.clone(),
            phase: "resolving".into(),
            done: 0,
            total: 0,
            entries: 0,
            error: None,
        }
    }
}

pub struct JobObject(pub Arc<Job>);

#[zbus::interface(name = "org.banger.Job")]
impl JobObject {
    /// Tells some progress, and then ends as scripted: whoever waits has subscribed.
    async fn wait(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        _options: Dict,
    ) -> Result<Dict, Error> {
        self.0.state.note(format!("Wait {}", self.0.subject));
        Self::progress(&emitter, "pulling", 50 << 20, 100 << 20).await?;
        let before = self.0.before.lock().unwrap().take();
        if let Some(work) = before {
            work.await.expect("worked");
        }
        match &self.0.script {
            Script::Succeed(result) => {
                Self::progress(&emitter, "publishing", 0, 0).await?;
                Self::progress(&emitter, "finished", 0, 0).await?;
                Ok(result.clone())
            }
            Script::Fail(error) => Err(error.clone()),
            Script::UntilCancelled => {
                let mut cancelled = self.0.cancelled.subscribe();
                cancelled.wait_for(|yes| *yes).await.expect("kept");
                Err(Error::Cancelled(format!("{} was cancelled", self.0.subject)))
            }
            Script::Never => std::future::pending().await,
        }
    }

    async fn cancel(&self, _options: Dict) {
        self.0.state.note(format!("Cancel {}", self.0.subject));
        self.0.cancelled.send_replace(true);
    }

    #[zbus(property)]
    fn phase(&self) -> &str {
        "resolving"
    }

    #[zbus(property)]
    fn done(&self) -> u64 {
        0
    }

    #[zbus(property)]
    fn total(&self) -> u64 {
        0
    }

    #[zbus(signal)]
    async fn progress(emitter: &SignalEmitter<'_>, phase: &str, done: u64, total: u64) -> zbus::Result<()>;
}
