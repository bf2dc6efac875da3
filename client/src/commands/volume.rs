//! `banger volume`.

use super::each;
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    job::{self, Follow},
    output::{self, Format},
};
use banger_dbus::{DictWriter, VolumeInfo, VolumeProxy, model::Bytes};
use clap::Subcommand;

/// Volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume; it takes no room until it is used.
    #[command(after_help = "\
Examples:
  banger volume create --size 20G data
  banger run --rm -v data:/srv debian -- ls /srv")]
    Create {
        /// Its size, such as 20G.
        #[arg(long)]
        size: Option<Bytes>,
        /// Its name.
        name: String,
    },
    /// List volumes.
    #[command(visible_alias = "list")]
    Ls(#[command(flatten)] FormatArgs),
    /// Show everything about a volume.
    #[command(visible_alias = "inspect")]
    Show {
        /// The volume: its name, id or a unique prefix of its id.
        volume: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Remove volumes with all that is in them.
    Rm {
        /// The volumes: name, id or a unique prefix of an id.
        #[arg(required = true)]
        volumes: Vec<String>,
    },
    /// Remove every volume of yours that no VM has.
    Prune {
        /// Do it; without this, only those are listed that would go.
        #[arg(short, long)]
        force: bool,
    },
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn volume(context: &mut Context, command: VolumeCommand) -> Result<(), Error> {
    match command {
        VolumeCommand::Create { size, name } => {
            let manager = context.manager().await?;
            let options = DictWriter::new().with_some("size", size).done();
            context.signals.guard(manager.create_volume(&name, &options)).await?;
            output::print_line(&name)
        }
        VolumeCommand::Ls(format) => list(context, format.format).await,
        VolumeCommand::Show { volume, format } => show(context, &volume, format.format).await,
        VolumeCommand::Rm { volumes } => {
            each(context, volumes, async |context, name| remove(context, name).await).await
        }
        VolumeCommand::Prune { force } => prune(context, force).await,
    }
}

async fn find(context: &mut Context, name: &str) -> Result<VolumeProxy<'static>, Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_volume(name, &bus::none())).await?;
    bus::volume(&context.connection, path).await
}

async fn volumes(context: &mut Context) -> Result<Vec<VolumeInfo>, Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_volumes(&bus::none())).await?;
    Ok(listed.into_iter().map(|(_, dict)| VolumeInfo::from_dict(dict)).collect::<Result<_, _>>()?)
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let volumes = volumes(context).await?;
    if format == Format::Json {
        return output::print_json(&volumes);
    }
    let row = |volume: &VolumeInfo| {
        let (size, used) = (volume.size.to_string(), volume.used.to_string());
        vec![volume.name.clone(), volume.id.short(), size, used, output::list(&volume.used_by)]
    };
    let rows: Vec<_> = volumes.iter().map(row).collect();
    output::print(&output::table(&["NAME", "ID", "SIZE", "USED", "USED BY"], &rows))
}

async fn show(context: &mut Context, name: &str, format: Format) -> Result<(), Error> {
    let volume = find(context, name).await?;
    let volume = VolumeInfo::from_dict(context.signals.guard(volume.describe(&bus::none())).await?)?;
    if format == Format::Json {
        return output::print_json(&[volume]);
    }
    output::print(&output::facts(&[
        ("name", volume.name),
        ("id", volume.id.to_string()),
        ("size", format!("{}, {} used", volume.size, volume.used)),
        ("owner", volume.owner_uid.to_string()),
        ("used by", output::list(&volume.used_by)),
    ]))
}

async fn remove(context: &mut Context, name: &str) -> Result<(), Error> {
    let volume = find(context, name).await?;
    job::run(context, Follow::passing(name), volume.delete(&bus::none())).await?;
    output::print_line(name)
}

async fn prune(context: &mut Context, force: bool) -> Result<(), Error> {
    // For root the list has everybody's; what is pruned is one's own.
    let me = banger_dbus::model::Uid(rustix::process::getuid().as_raw());
    let unused: Vec<VolumeInfo> = volumes(context)
        .await?
        .into_iter()
        .filter(|volume| volume.used_by.is_empty() && volume.owner_uid == me)
        .collect();
    if force {
        let ids = unused.iter().map(|volume| volume.id.to_string()).collect();
        return each(context, ids, async |context, id| remove(context, id).await).await;
    }
    for volume in &unused {
        output::print_line(&volume.name)?;
    }
    if !unused.is_empty() && !context.quiet {
        crate::progress::note(
            "these would be removed with all that is in them: `banger volume prune --force` does it",
        );
    }
    Ok(())
}
