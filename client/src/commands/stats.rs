//! `banger vm stats`, and what listens in a guest.

use super::vm::{find, summaries};
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    output::{self, Format},
    pump,
};
use banger_dbus::{VmInfo, VmStats, model::Bytes, names};
use clap::Args;
use std::{
    io::{self, IsTerminal},
    os::fd::OwnedFd,
    time::Duration,
};

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Time between the two looks that a share needs, where there is only one table.
const SHORT: Duration = Duration::from_millis(500);

/// Clears a terminal and goes to its beginning (ECMA-48, 8.3.57 and 8.3.39).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Whose figures, and how.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Show them once, and end.
    #[arg(long)]
    pub no_stream: bool,
    /// How it is written.
    #[command(flatten)]
    pub format: FormatArgs,
    /// The VMs: name, id or a unique prefix of an id; without one, all that run.
    pub vms: Vec<String>,
}

/// Shows them, again and again unless told otherwise.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn stats(context: &mut Context, args: StatsArgs) -> Result<(), Error> {
    let mut pause = SHORT;
    look(context, &args.vms).await?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            signal = context.signals.end() => return Err(Error::Interrupted(signal)),
        }
        pause = PAUSE;
        let all = look(context, &args.vms).await?;
        if !args.no_stream && args.format.format == Format::Table && io::stdout().is_terminal() {
            output::print(CLEAR)?;
        }
        match args.format.format {
            Format::Json => output::print_json(&all)?,
            Format::Table => output::print(&output::table(
                &[
                    "NAME",
                    "CPU",
                    "MEMORY",
                    "GUEST MEMORY",
                    "DISK READ",
                    "WRITTEN",
                    "RECEIVED",
                    "SENT",
                    "TASKS",
                ],
                &all.iter().map(row).collect::<Vec<_>>(),
            ))?,
        }
        if args.no_stream {
            return Ok(());
        }
    }
}

async fn look(context: &mut Context, names: &[String]) -> Result<Vec<VmStats>, Error> {
    let mut all = Vec::new();
    if names.is_empty() {
        for summary in summaries(context).await? {
            if !matches!(summary.state.as_str(), "running" | "paused") {
                continue;
            }
            let vm = bus::vm(&context.connection, names::path_of(summary.id)).await?;
            // One that has stopped meanwhile is not shown.
            if let Ok(dict) = vm.stats(&bus::none()).await {
                all.push(VmStats::from_dict(dict)?);
            }
        }
    }
    for name in names {
        let vm = find(context, name).await?;
        all.push(VmStats::from_dict(context.signals.guard(vm.stats(&bus::none())).await?)?);
    }
    Ok(all)
}

fn row(stats: &VmStats) -> Vec<String> {
    let or_dash = |bytes: Option<Bytes>| bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    let guest = match (stats.guest_memory, stats.guest_memory_available) {
        (Some(all), Some(free)) => format!("{} / {all}", Bytes(all.0.saturating_sub(free.0))),
        _ => "-".to_owned(),
    };
    vec![
        stats.name.clone(),
        stats.cpu_permille.map_or_else(|| "-".to_owned(), |n| format!("{}.{} %", n / 10, n % 10)),
        stats.memory.to_string(),
        guest,
        or_dash(stats.read),
        or_dash(stats.written),
        stats.received.to_string(),
        stats.sent.to_string(),
        stats.guest_tasks.map_or_else(|| "-".to_owned(), |tasks| tasks.to_string()),
    ]
}

/// Writes what listens in a VM's guest.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn ports(context: &mut Context, name: &str, format: Format) -> Result<(), Error> {
    let vm = find(context, name).await?;
    let info = VmInfo::from_dict(context.signals.guard(vm.describe(&bus::none())).await?)?;
    let listening = info.listening.unwrap_or_default();
    if format == Format::Json {
        return output::print_json(&listening);
    }
    let rows: Vec<_> = listening.into_iter().map(|socket| vec![socket, "tcp".to_owned()]).collect();
    output::print(&output::table(&["LISTENING", "PROTOCOL"], &rows))
}

/// Connects standard input and output with a port of a VM's guest.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn connect(context: &mut Context, name: &str, port: u16) -> Result<(), Error> {
    let vm = find(context, name).await?;
    let socket: OwnedFd = context.signals.guard(vm.open_port(port, &bus::none())).await?.into();
    let broken = |error| Error::file("use", "the connection", error);
    let to = socket.try_clone().map_err(broken)?;
    let sent = pump::start(io::stdin(), to.try_clone().map_err(broken)?);
    tokio::spawn(async move {
        let _ = sent.await;
        // The other side learns that there is no more; one that is gone knows.
        let _ = rustix::net::shutdown(&to, rustix::net::Shutdown::Write);
    });
    let received = pump::start(socket, io::stdout());
    tokio::select! {
        end = received => match end {
            Ok(pump::End::Failed(error)) => Err(broken(error)),
            Ok(pump::End::Closed) => Err(Error::OutputClosed),
            _ => Ok(()),
        },
        signal = context.signals.end() => Err(Error::Interrupted(signal)),
    }
}
