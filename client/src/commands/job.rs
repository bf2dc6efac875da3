//! `banger job`.

use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    job::{self, Begun, Follow},
    output::{self, Format},
    progress::{Lines, Step},
};
use banger_dbus::{Error as BusError, JobInfo, Object, model::JobId, zbus::OwnedObjectPath};
use clap::Subcommand;
use futures_util::StreamExt;
use std::{collections::HashMap, time::Instant};

/// Jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs: those that run, and those that ended within ten minutes.
    #[command(visible_alias = "list")]
    Ls(#[command(flatten)] FormatArgs),
    /// Watch a job until it ends, or all jobs until Ctrl-C. Ctrl-C here cancels nothing.
    Watch {
        /// The job: its id or a unique prefix of it.
        job: Option<String>,
    },
    /// Cancel a job: it undoes what it did.
    Cancel {
        /// The job: its id or a unique prefix of it.
        job: String,
    },
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done, or the job that was watched failed.
pub async fn job(context: &mut Context, command: JobCommand) -> Result<(), Error> {
    match command {
        JobCommand::Ls(format) => list(context, format.format).await,
        JobCommand::Watch { job: None } => watch_all(context).await,
        JobCommand::Watch { job: Some(id) } => {
            let info = find(context, &id).await?;
            let how = Follow { subject: &subject(&info), passing: false, cancellable: false };
            let begun = Begun { reply: info.id.path(), interrupted: None };
            job::follow(context, how, begun).await.map(drop)
        }
        JobCommand::Cancel { job } => {
            let info = find(context, &job).await?;
            let job = bus::job(&context.connection, info.id.path()).await?;
            context.signals.guard(job.cancel(&bus::none())).await
        }
    }
}

/// A job's kind and what it works on.
fn subject(job: &JobInfo) -> String {
    format!("{} {}", job.kind, job.subject).trim_end().to_owned()
}

/// Where a job is.
fn step(job: &JobInfo) -> Step {
    Step { phase: job.phase.clone(), done: job.done, total: job.total, entries: job.entries }
}

async fn jobs(context: &mut Context) -> Result<Vec<JobInfo>, Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_jobs(&bus::none())).await?;
    Ok(listed.into_iter().map(|(_, dict)| JobInfo::from_dict(dict)).collect::<Result<_, _>>()?)
}

/// The job of this id or unique prefix of an id.
async fn find(context: &mut Context, wanted: &str) -> Result<JobInfo, Error> {
    let fitting = jobs(context).await?.into_iter().filter(|job| job.id.to_string().starts_with(wanted));
    let mut fitting: Vec<JobInfo> = fitting.collect();
    match (fitting.pop(), fitting.len()) {
        (Some(job), 0) => Ok(job),
        (None, _) => Err(Error::Bus(BusError::NotFound(format!(
            "there is no job {wanted:?}: `banger job ls` shows those that there are"
        )))),
        (Some(_), others) => Err(Error::Bus(BusError::Ambiguous(format!(
            "{wanted:?} fits {} jobs: write more of the id",
            others + 1
        )))),
    }
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let jobs = jobs(context).await?;
    if format == Format::Json {
        return output::print_json(&jobs);
    }
    let row = |job: &JobInfo| {
        let what = match (&job.error, job.state.as_str()) {
            (Some(error), _) => error.clone(),
            (None, "running" | "cancelling") => step(job).line(),
            _ => "-".into(),
        };
        vec![job.id.to_string(), job.kind.clone(), output::or_dash(&job.subject), job.state.clone(), what]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    output::print(&output::table(&["ID", "KIND", "SUBJECT", "STATE", "PROGRESS"], &rows))
}

/// Lines about every job, as they come, until somebody has seen enough.
async fn watch_all(context: &mut Context) -> Result<(), Error> {
    let manager = context.manager().await?;
    // Subscribed before the list is read, so that no job falls between the two.
    let mut steps = context.signals.guard(manager.receive_job_progress()).await?;
    let mut known: HashMap<OwnedObjectPath, Lines> = HashMap::new();
    for job in
        jobs(context).await?.iter().filter(|job| matches!(job.state.as_str(), "running" | "cancelling"))
    {
        let mut lines = Lines::new(&subject(job));
        if let Some(line) = lines.next(&step(job), Instant::now()) {
            output::print_line(&line)?;
        }
        known.insert(job.id.path(), lines);
    }
    loop {
        let step = tokio::select! {
            step = steps.next() => step,
            _ = context.signals.end() => return Ok(()),
        };
        let Some(step) = step else {
            return Err(Error::Bus(BusError::from_name(
                "org.freedesktop.DBus.Error.Disconnected",
                String::new(),
            )));
        };
        let Ok(told) = step.args() else { continue };
        let step = Step { phase: told.phase.to_owned(), done: told.done, total: told.total, entries: 0 };
        if !known.contains_key(&told.job) {
            let lines = Lines::new(&name(context, &told.job).await?);
            known.insert(told.job.clone(), lines);
        }
        let line = known.get_mut(&told.job).and_then(|lines| lines.next(&step, Instant::now()));
        if let Some(line) = line {
            output::print_line(&line)?;
        }
        if step.phase == "finished" {
            known.remove(&told.job);
        }
    }
}

/// What to call a job that has just begun; its id if it is another user's.
async fn name(context: &mut Context, path: &OwnedObjectPath) -> Result<String, Error> {
    let found = jobs(context).await?.into_iter().find(|job| job.id.path() == *path);
    let id = JobId::from_path(path.as_str()).map_or_else(|| path.to_string(), |id| id.short());
    Ok(found.map_or_else(|| format!("job {id}"), |job| subject(&job)))
}
