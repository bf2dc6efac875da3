//! `banger vm snapshot` and what belongs to it.

use super::{each, vm::find};
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    job::{self, Follow},
    output::{self, Format},
};
use banger_dbus::{DictWriter, SnapshotInfo};
use clap::Subcommand;

/// Snapshots of VMs.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Keep a running VM as it is at this moment, memory and disk.
    Snapshot {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The snapshot's name.
        name: String,
    },
    /// List a VM's snapshots with their sizes.
    Snapshots {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Delete snapshots of a VM.
    SnapshotRm {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The snapshots' names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Take a VM back to a snapshot; what it did since is lost.
    Restore {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The snapshot's name.
        name: String,
    },
    /// Make another VM that goes on from where this one is; prints its name.
    Fork {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The new VM's name.
        name: String,
        /// From this snapshot instead of this moment.
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
    },
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn run(context: &mut Context, command: SnapshotCommand) -> Result<(), Error> {
    match command {
        SnapshotCommand::Snapshot { vm, name } => {
            let proxy = find(context, &vm).await?;
            job::run(context, Follow::passing(&vm), proxy.snapshot(&name, &bus::none())).await.map(drop)
        }
        SnapshotCommand::Restore { vm, name } => {
            let proxy = find(context, &vm).await?;
            job::run(context, Follow::passing(&vm), proxy.restore(&name, &bus::none())).await.map(drop)
        }
        SnapshotCommand::Fork { vm, name, snapshot } => {
            let proxy = find(context, &vm).await?;
            let options = DictWriter::new().with_some("snapshot", snapshot).done();
            job::run(context, Follow::passing(&name), proxy.fork(&name, &options)).await?;
            output::print_line(&name)
        }
        SnapshotCommand::SnapshotRm { vm, names } => {
            let proxy = find(context, &vm).await?;
            each(context, names, async |context, name| {
                context.signals.guard(proxy.delete_snapshot(name, &bus::none())).await?;
                output::print_line(name)
            })
            .await
        }
        SnapshotCommand::Snapshots { vm, format } => list(context, &vm, format.format).await,
    }
}

async fn list(context: &mut Context, vm: &str, format: Format) -> Result<(), Error> {
    let proxy = find(context, vm).await?;
    let listed = context.signals.guard(proxy.list_snapshots(&bus::none())).await?;
    let all = listed.into_iter().map(SnapshotInfo::from_dict).collect::<Result<Vec<_>, _>>()?;
    if format == Format::Json {
        return output::print_json(&all);
    }
    let row = |one: &SnapshotInfo| {
        vec![
            one.name.clone(),
            one.memory.to_string(),
            one.disk.to_string(),
            format!("{}, {}", one.vmm, one.accel),
            output::ago(one.created),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::print(&output::table(&["NAME", "MEMORY", "DISK", "MACHINE", "CREATED"], &rows))
}
