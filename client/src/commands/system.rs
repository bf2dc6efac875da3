//! `banger system`.

use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    output::{self, Format},
};
use banger_dbus::{dict, model::Bytes};
use clap::Subcommand;
use serde::Serialize;

/// The host as a whole.
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Show how much of the disk banger takes.
    Df(#[command(flatten)] FormatArgs),
}

/// What banger takes of the disk, in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Usage {
    images: Bytes,
    images_count: u32,
    /// Of these, what no VM is made of.
    images_unused: Bytes,
    blobs: Bytes,
    kernels: Bytes,
    vms: Bytes,
    vms_count: u32,
    volumes: Bytes,
    volumes_count: u32,
    other: Bytes,
    total: Bytes,
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn system(context: &mut Context, command: SystemCommand) -> Result<(), Error> {
    let SystemCommand::Df(format) = command;
    let manager = context.manager().await?;
    let mut told = context.signals.guard(manager.disk_usage(&bus::none())).await?;
    let usage = Usage {
        images: dict::require(&mut told, "images")?,
        images_count: dict::require(&mut told, "images-count")?,
        images_unused: dict::require(&mut told, "images-unused")?,
        blobs: dict::require(&mut told, "blobs")?,
        kernels: dict::require(&mut told, "kernels")?,
        vms: dict::require(&mut told, "vms")?,
        vms_count: dict::require(&mut told, "vms-count")?,
        volumes: dict::take(&mut told, "volumes")?.unwrap_or_default(),
        volumes_count: dict::take(&mut told, "volumes-count")?.unwrap_or_default(),
        other: dict::require(&mut told, "other")?,
        total: dict::require(&mut told, "total")?,
    };
    if format.format == Format::Json {
        return output::print_json(&[usage]);
    }
    let row = |kind: &str, count: String, size: Bytes, reclaimable: Bytes| {
        vec![kind.to_owned(), count, size.to_string(), reclaimable.to_string()]
    };
    let none = || "-".to_owned();
    output::print(&output::table(
        &["KIND", "COUNT", "SIZE", "RECLAIMABLE"],
        &[
            row("images", usage.images_count.to_string(), usage.images, usage.images_unused),
            row("cached layers", none(), usage.blobs, usage.blobs),
            row("kernels", none(), usage.kernels, Bytes(0)),
            row("VMs", usage.vms_count.to_string(), usage.vms, Bytes(0)),
            row("volumes", usage.volumes_count.to_string(), usage.volumes, Bytes(0)),
            row("other", none(), usage.other, Bytes(0)),
            row("total", none(), usage.total, Bytes(usage.images_unused.0 + usage.blobs.0)),
        ],
    ))
}
