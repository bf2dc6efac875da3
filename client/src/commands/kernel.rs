//! `banger kernel`.

use super::each;
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    job::{self, Follow},
    modules,
    output::{self, Format},
};
use banger_dbus::{DictWriter, KernelInfo};
use clap::Subcommand;
use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Kernels.
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// Take a kernel in.
    #[command(after_help = "\
Example:
  banger kernel import --kernel /boot/vmlinuz-6.12 --modules /lib/modules/6.12 mine")]
    Import {
        /// The kernel: a bzImage or an ELF.
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// An initrd of its own.
        #[arg(long, value_name = "FILE")]
        initrd: Option<PathBuf>,
        /// The folder of its modules, the one that holds modules.dep.
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its name here.
        name: String,
    },
    /// List kernels; `host` is the host's own.
    #[command(visible_alias = "list")]
    Ls(#[command(flatten)] FormatArgs),
    /// Remove kernels.
    Rm {
        /// The kernels: name, id or a unique prefix of an id.
        #[arg(required = true)]
        kernels: Vec<String>,
    },
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn kernel(context: &mut Context, command: KernelCommand) -> Result<(), Error> {
    match command {
        KernelCommand::Import { kernel, initrd, modules, name } => {
            let files = DictWriter::new()
                .with_some("kernel", kernel.map(|path| open(&path)).transpose()?)
                .with_some("initrd", initrd.map(|path| open(&path)).transpose()?);
            import(context, &name, files, modules.as_deref()).await
        }
        KernelCommand::Ls(format) => list(context, format.format).await,
        KernelCommand::Rm { kernels } => {
            each(context, kernels, async |context, name| remove(context, name).await).await
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    Ok(File::open(path).map_err(|e| Error::file("open", path, e))?.into())
}

async fn import(
    context: &mut Context,
    name: &str,
    files: DictWriter,
    folder: Option<&Path>,
) -> Result<(), Error> {
    let packed = folder.map(modules::pack).transpose()?;
    let (tree, packed) = packed.unzip();
    let manager = context.manager().await?;
    let options = files.with_some("modules", tree).done();
    let begun = job::begin(&mut context.signals, manager.import_kernel(name, &options)).await?;
    let job = bus::job(&context.connection, begun.reply.clone()).await?;
    // The service has its own descriptors now: only when ours are closed does it see the end of the tree.
    drop(options);
    let packing = async {
        match packed {
            Some(packed) => packed.await.unwrap_or_else(|_| Err(Error::Usage("the packing stopped".into()))),
            None => Ok(()),
        }
    };
    let followed = job::follow(context, Follow::of(name), begun);
    tokio::pin!(followed);
    tokio::select! {
        result = &mut followed => result?,
        // A tree that could not be read to its end must not be taken for a whole one.
        Err(error) = packing => {
            job.cancel(&bus::none()).await?;
            return match followed.await {
                Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
                _ => Err(error),
            };
        }
    };
    output::print_line(name)
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_kernels(&bus::none())).await?;
    let kernels =
        listed.into_iter().map(|(_, dict)| KernelInfo::from_dict(dict)).collect::<Result<Vec<_>, _>>()?;
    if format == Format::Json {
        return output::print_json(&kernels);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let row = |kernel: &KernelInfo| {
        vec![
            kernel.name.clone(),
            output::or_dash(&kernel.release),
            output::or_dash(&kernel.source),
            kernel.size.to_string(),
            yes(kernel.has_modules),
            yes(kernel.has_initrd),
        ]
    };
    let rows: Vec<_> = kernels.iter().map(row).collect();
    output::print(&output::table(&["NAME", "RELEASE", "SOURCE", "SIZE", "MODULES", "INITRD"], &rows))
}

async fn remove(context: &mut Context, name: &str) -> Result<(), Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_kernel(name, &bus::none())).await?;
    let kernel = bus::kernel(&context.connection, path).await?;
    job::run(context, Follow::passing(name), kernel.delete(&bus::none())).await?;
    output::print_line(name)
}
