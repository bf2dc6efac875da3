//! What is done to VMs, in one word, with `vm` before it or without: as podman does to containers.

use super::{change::SetArgs, each, stats::StatsArgs};
use crate::{
    bus,
    commands::{
        change, stats,
        vm::{self, find},
    },
    context::Context,
    error::{self, Error},
    job::{self, Follow},
    output, pump,
};
use banger_dbus::{Dict, DictWriter, dict};
use clap::Subcommand;
use std::{io, os::fd::OwnedFd};

/// VMs as they live.
#[derive(Debug, Subcommand)]
pub enum LifeCommand {
    /// Start VMs; returns when their guests are ready.
    Start {
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Shut VMs down.
    Stop {
        /// Seconds until it is ended the hard way.
        #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
        timeout: Option<u32>,
        /// End it at once.
        #[arg(short, long)]
        force: bool,
        /// All that run; for root those of every user.
        #[arg(short, long, conflicts_with = "vms")]
        all: bool,
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required_unless_present = "all")]
        vms: Vec<String>,
    },
    /// Shut VMs down and start them again.
    Restart {
        /// Seconds until it is ended the hard way.
        #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
        timeout: Option<u32>,
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Send a signal to the main process of VMs; KILL ends a VM at once, as pulling the plug would.
    Kill {
        /// The signal, by name or number.
        #[arg(short, long, default_value = "KILL", value_parser = signal)]
        signal: i32,
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Stop the processors of VMs; everything else of them stays as it is.
    Pause {
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Let the processors of paused VMs run again.
    #[command(visible_alias = "unpause")]
    Resume {
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Wait until VMs have stopped; prints the exit code of each one's main process, 0 where none is known.
    Wait {
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Remove VMs with their disks.
    Rm {
        /// Those that run, too.
        #[arg(short, long)]
        force: bool,
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Give a VM another name.
    Rename {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// Its new name, a DNS label.
        name: String,
    },
    /// Change a VM: its size, and when it starts and stops by itself.
    #[command(visible_alias = "update")]
    Set(SetArgs),
    /// Write what a VM's serial console said to standard output.
    Logs {
        /// Go on with what it says, until the VM stops.
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines.
        #[arg(short = 'n', long, visible_alias = "tail", value_name = "N")]
        lines: Option<u32>,
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
    },
    /// Show what VMs take of processor, memory, disk and network.
    #[command(visible_alias = "top")]
    Stats(StatsArgs),
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn life(context: &mut Context, command: LifeCommand) -> Result<(), Error> {
    let none = bus::none();
    match command {
        LifeCommand::Start { vms } => jobs(context, vms, async |vm| vm.start(&none).await).await,
        LifeCommand::Stop { timeout, force, all, vms } => {
            let vms = if all { all_with_a_process(context).await? } else { vms };
            let options =
                DictWriter::new().with_some("timeout", timeout).with_some("force", force.then_some(true));
            let options = options.done();
            jobs(context, vms, async |vm| vm.stop(&options).await).await
        }
        LifeCommand::Restart { timeout, vms } => {
            let options = DictWriter::new().with_some("timeout", timeout).done();
            jobs(context, vms, async |vm| vm.restart(&options).await).await
        }
        LifeCommand::Kill { signal, vms } => {
            jobs(context, vms, async |vm| vm.kill(signal, &none).await).await
        }
        LifeCommand::Pause { vms } => jobs(context, vms, async |vm| vm.pause(&none).await).await,
        LifeCommand::Resume { vms } => jobs(context, vms, async |vm| vm.resume(&none).await).await,
        LifeCommand::Wait { vms } => wait(context, vms).await,
        LifeCommand::Rm { force, vms } => {
            let options = DictWriter::new().with_some("force", force.then_some(true)).done();
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.delete(&options)).await?;
                output::print_line(name)
            })
            .await
        }
        LifeCommand::Rename { vm, name } => change::rename(context, &vm, &name).await,
        LifeCommand::Set(args) => change::set(context, args).await,
        LifeCommand::Logs { follow, lines, vm } => {
            let options = DictWriter::new()
                .with_some("lines", lines)
                .with_some("follow", follow.then_some(true))
                .done();
            let proxy = find(context, &vm).await?;
            let log = context.signals.guard(proxy.open_log(&options)).await?;
            logs(context, log.into()).await
        }
        LifeCommand::Stats(args) => stats::stats(context, args).await,
    }
}

/// Begins a job with each VM, one after the other, and follows it.
async fn jobs(
    context: &mut Context,
    vms: Vec<String>,
    begin: impl AsyncFn(
        &banger_dbus::VMProxy<'static>,
    ) -> banger_dbus::zbus::Result<banger_dbus::zbus::OwnedObjectPath>,
) -> Result<(), Error> {
    each(context, vms, async |context, name| {
        let proxy = find(context, name).await?;
        job::run(context, Follow::passing(name), begin(&proxy)).await.map(drop)
    })
    .await
}

/// The names of the VMs that there is something to stop of.
async fn all_with_a_process(context: &mut Context) -> Result<Vec<String>, Error> {
    let up = |state: &str| matches!(state, "starting" | "running" | "paused" | "stopping");
    let vms = vm::summaries(context).await?.into_iter();
    Ok(vms.filter(|vm| up(&vm.state)).map(|vm| vm.name).collect())
}

async fn wait(context: &mut Context, vms: Vec<String>) -> Result<(), Error> {
    each(context, vms, async |context, name| {
        let proxy = find(context, name).await?;
        let result = context.signals.guard(proxy.wait(&bus::none())).await?;
        output::print_line(&code(result)?.to_string())
    })
    .await
}

/// The code that a shell would give for how a VM's main process ended.
fn code(mut result: Dict) -> Result<i32, Error> {
    let told = |error| Error::Bus(banger_dbus::Error::from(error));
    let signal: Option<i32> = dict::take(&mut result, "signal").map_err(told)?;
    let code: Option<i32> = dict::take(&mut result, "code").map_err(told)?;
    Ok(signal.map(|signal| error::of_signal(signal).into()).or(code).unwrap_or(0))
}

async fn logs(context: &mut Context, log: OwnedFd) -> Result<(), Error> {
    let copied = pump::start(log, io::stdout());
    let end = tokio::select! {
        end = copied => end,
        signal = context.signals.end() => return Err(Error::Interrupted(signal)),
    };
    match end {
        Ok(pump::End::Failed(error)) => Err(Error::file("copy", "the log", error)),
        Ok(pump::End::Closed) => Err(Error::OutputClosed),
        _ => Ok(()),
    }
}

/// Linux's signals on x86 that have a name (signal(7)), which are the guest's.
const SIGNALS: [(&str, i32); 20] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
    ("PWR", 30),
];

/// `TERM`, `SIGTERM`, `term` or `15`.
fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number @ 1..=64) = text.parse() {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = SIGNALS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(|| "no signal: write a name such as TERM, or 1 to 64".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(signal(text), Ok(15), "{text}");
        }
        assert_eq!(signal("64"), Ok(64));
        for text in ["", "0", "65", "-1", "SIG", "NONE"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_end_is_a_shells_code() {
        let with = |key, value: i32| DictWriter::new().with(key, value).done();
        assert_eq!(code(with("code", 42)).unwrap(), 42);
        assert_eq!(code(with("signal", 15)).unwrap(), 143);
        assert_eq!(code(Dict::new()).unwrap(), 0);
    }
}
