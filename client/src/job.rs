//! Following a job to its end, whatever that is; Ctrl-C cancels it.

use crate::{
    bus,
    context::Context,
    error::Error,
    progress::{Progress, Step, note},
    signals::Signals,
};
use banger_dbus::{
    Dict, Error as BusError, JobProxy,
    zbus::{self, OwnedObjectPath},
};
use futures_util::StreamExt;
use std::{future::Future, time::Duration};

/// How long a call that begins a job may still take once somebody wants to leave.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a job is shown, and what Ctrl-C means to it.
pub struct Follow<'a> {
    /// What it works on, to begin each line.
    pub subject: &'a str,
    /// Whether the display vanishes when the job ends, because something else is to be seen then.
    pub passing: bool,
    /// Whether Ctrl-C cancels it; what cleans up is better let through.
    pub cancellable: bool,
}

impl<'a> Follow<'a> {
    /// A job that a person asked for and looks at.
    pub fn of(subject: &'a str) -> Self {
        Self { subject, passing: false, cancellable: true }
    }

    /// A job on the way to something else.
    pub fn passing(subject: &'a str) -> Self {
        Self { passing: true, ..Self::of(subject) }
    }
}

/// A job that has begun.
pub struct Begun<T> {
    /// What the call replied.
    pub reply: T,
    /// The signal that came meanwhile.
    pub interrupted: Option<i32>,
}

/// Makes the call that begins a job. A signal while it is under way is kept, because the job may be there
/// already; a second one, or waiting in vain, leaves.
///
/// # Errors
/// [`Error::Interrupted`], or the call's own.
pub async fn begin<T>(
    signals: &mut Signals,
    call: impl Future<Output = zbus::Result<T>>,
) -> Result<Begun<T>, Error> {
    tokio::pin!(call);
    let signal = tokio::select! {
        reply = &mut call => return Ok(Begun { reply: reply?, interrupted: None }),
        signal = signals.end() => signal,
    };
    tokio::select! {
        // Refused meanwhile, perhaps because a prompt was dismissed: there is nothing to cancel.
        reply = call => match reply {
            Ok(reply) => Ok(Begun { reply, interrupted: Some(signal) }),
            Err(_) => Err(Error::Interrupted(signal)),
        },
        _ = signals.end() => Err(Error::Interrupted(signal)),
        () = tokio::time::sleep(PATIENCE) => Err(Error::Interrupted(signal)),
    }
}

/// Begins a job by `call` and follows it to its end.
///
/// # Errors
/// [`Error::Interrupted`] if a signal cancelled it, or the job's own.
pub async fn run(
    context: &mut Context,
    how: Follow<'_>,
    call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<Dict, Error> {
    let begun = begin(&mut context.signals, call).await?;
    follow(context, how, begun).await
}

/// Follows a job to its end.
///
/// # Errors
/// [`Error::Interrupted`] if a signal cancelled it, or the job's own.
pub async fn follow(
    context: &mut Context,
    how: Follow<'_>,
    begun: Begun<OwnedObjectPath>,
) -> Result<Dict, Error> {
    let job = bus::job(&context.connection, begun.reply).await?;
    let mut progress = Progress::new(context.quiet, how.subject, how.passing);
    let result = watch(&job, &how, begun.interrupted, &mut context.signals, &mut progress).await;
    progress.finish();
    result
}

async fn watch(
    job: &JobProxy<'_>,
    how: &Follow<'_>,
    mut interrupted: Option<i32>,
    signals: &mut Signals,
    progress: &mut Progress,
) -> Result<Dict, Error> {
    // Subscribed before the state is read, so that no step is missed between the two. The end cannot be
    // missed at all: a job that has ended answers at once.
    let options = bus::none();
    let mut steps = signals.guard(job.receive_progress()).await?;
    let mut changes = signals.guard(bus::job_changes(job)).await?;
    let mut entries = 0;
    if interrupted.is_some() {
        cancel(job).await;
    }
    let end = job.wait(&options);
    let state = state(job);
    tokio::pin!(end, state);
    let mut read = false;
    loop {
        tokio::select! {
            // In this order, so that what was told before the end is shown before it.
            biased;
            signal = signals.end() => match interrupted {
                // The second time means at once.
                Some(first) => return Err(Error::Interrupted(first)),
                None if how.cancellable => {
                    interrupted = Some(signal);
                    note("Cancelling; once more leaves at once.");
                    cancel(job).await;
                }
                None => {
                    interrupted = Some(signal);
                    note("Cleaning up; once more leaves at once.");
                }
            },
            step = &mut state, if !read => {
                read = true;
                if let Some(step) = step {
                    entries = entries.max(step.entries);
                    progress.show(&step);
                }
            }
            Some(change) = changes.next() => entries = bus::entries_in(&change).unwrap_or(entries),
            Some(signal) = steps.next() => {
                read = true;
                if let Ok(told) = signal.args() {
                    let (phase, done, total) = (told.phase.to_owned(), told.done, told.total);
                    progress.show(&Step { phase, done, total, entries });
                }
            }
            result = &mut end => return ended(result, interrupted),
        }
    }
}

/// Where the job is now. It is for show: what cannot be read is not shown.
async fn state(job: &JobProxy<'_>) -> Option<Step> {
    let (phase, done, total, entries) = tokio::join!(job.phase(), job.done(), job.total(), job.entries());
    // An older service does not count entries.
    let entries = entries.unwrap_or(0);
    Some(Step { phase: phase.ok()?, done: done.ok()?, total: total.ok()?, entries })
}

/// A job that has ended meanwhile, or cannot be cancelled, tells so by its result.
async fn cancel(job: &JobProxy<'_>) {
    let _ = job.cancel(&bus::none()).await;
}

fn ended(result: zbus::Result<Dict>, interrupted: Option<i32>) -> Result<Dict, Error> {
    match (result.map_err(BusError::from), interrupted) {
        (Ok(_) | Err(BusError::Cancelled(_)), Some(signal)) => Err(Error::Interrupted(signal)),
        (Ok(result), None) => Ok(result),
        (Err(error), _) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: BusError) -> zbus::Result<Dict> {
        Err(zbus::Error::DBus(std::sync::Arc::new(error)))
    }

    #[test]
    fn an_end_is_what_it_was() {
        assert!(ended(Ok(Dict::new()), None).is_ok());
        assert!(matches!(ended(Ok(Dict::new()), Some(2)), Err(Error::Interrupted(2))));
        let cancelled = || failed(BusError::Cancelled("x".into()));
        assert!(matches!(ended(cancelled(), Some(15)), Err(Error::Interrupted(15))));
        assert!(matches!(ended(cancelled(), None), Err(Error::Bus(BusError::Cancelled(_)))));
        let rollback = failed(BusError::RollbackFailed("x".into()));
        assert!(matches!(ended(rollback, Some(2)), Err(Error::Bus(BusError::RollbackFailed(_)))));
    }
}
