//! `banger kernel`.

use super::{catalogue, each};
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    job::{self, Follow},
    modules,
    output::{self, Format},
};
use banger_dbus::{DictWriter, KernelInfo, KernelProxy};
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
  banger kernel import linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb cloud
  banger kernel import --package kernel-core.rpm --package kernel-modules-core.rpm fedora
  banger kernel import --kernel /boot/vmlinuz-6.12 --modules /lib/modules/6.12 mine")]
    Import {
        /// A distribution's package (.deb, .rpm) or a tar archive of a kernel; several where it is split.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "modules"])]
        package: Vec<PathBuf>,
        /// The kernel: a bzImage or an ELF.
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// An initrd of its own.
        #[arg(long, value_name = "FILE")]
        initrd: Option<PathBuf>,
        /// The folder of its modules, the one that holds modules.dep.
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its name here; packages may stand before it.
        #[arg(required = true, value_name = "[PACKAGE…] NAME")]
        words: Vec<String>,
    },
    /// Pull a kernel that the catalogue names.
    Pull {
        /// The kernel's name in the catalogue.
        kernel: String,
        /// Its name here; the same if not given.
        #[arg(long)]
        name: Option<String>,
    },
    /// List the kernels that can be pulled.
    Catalogue(#[command(flatten)] FormatArgs),
    /// Show everything about a kernel.
    #[command(visible_alias = "inspect")]
    Show {
        /// The kernel: its name, id or a unique prefix of its id.
        kernel: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show or set the kernel of every VM that names none and whose image wants none.
    Default {
        /// The kernel: its name, id or a unique prefix of its id.
        #[arg(conflicts_with = "unset")]
        kernel: Option<String>,
        /// Return to what is configured.
        #[arg(long)]
        unset: bool,
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
        KernelCommand::Import { mut package, kernel, initrd, modules, mut words } => {
            let name = words.pop().unwrap_or_default();
            package.extend(words.into_iter().map(PathBuf::from));
            if !package.is_empty() && kernel.is_some() {
                return Err(Error::Usage("give either packages or --kernel".into()));
            }
            let packages = package.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
            let files = DictWriter::new()
                .with_some("packages", Some(packages).filter(|packages| !packages.is_empty()))
                .with_some("kernel", kernel.map(|path| open(&path)).transpose()?)
                .with_some("initrd", initrd.map(|path| open(&path)).transpose()?);
            import(context, &name, files, modules.as_deref()).await
        }
        KernelCommand::Pull { kernel, name } => pull(context, &kernel, name).await,
        KernelCommand::Catalogue(format) => catalogue::list(context, "kernel", format.format).await,
        KernelCommand::Show { kernel, format } => show(context, &kernel, format.format).await,
        KernelCommand::Default { kernel: None, unset: false } => show_default(context).await,
        KernelCommand::Default { kernel, .. } => {
            let manager = context.manager().await?;
            let name = kernel.unwrap_or_default();
            context.signals.guard(manager.set_default_kernel(&name, &bus::none())).await?;
            show_default(context).await
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

async fn pull(context: &mut Context, kernel: &str, name: Option<String>) -> Result<(), Error> {
    let manager = context.manager().await?;
    let called = name.clone().unwrap_or_else(|| kernel.to_owned());
    let options = DictWriter::new().with_some("name", name).done();
    job::run(context, Follow::of(kernel), manager.pull_kernel(kernel, &options)).await?;
    output::print_line(&called)
}

async fn find(context: &mut Context, name: &str) -> Result<KernelProxy<'static>, Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_kernel(name, &bus::none())).await?;
    bus::kernel(&context.connection, path).await
}

async fn show(context: &mut Context, name: &str, format: Format) -> Result<(), Error> {
    let kernel = find(context, name).await?;
    let kernel = KernelInfo::from_dict(context.signals.guard(kernel.describe(&bus::none())).await?)?;
    if format == Format::Json {
        return output::print_json(&[kernel]);
    }
    output::print(&output::facts(&[
        ("name", kernel.name),
        ("id", kernel.id.to_string()),
        ("release", output::or_dash(&kernel.release)),
        ("source", kernel.source),
        ("size", kernel.size.to_string()),
        ("modules", yes(kernel.has_modules)),
        ("initrd", yes(kernel.has_initrd)),
        ("default", yes(kernel.default)),
        ("used by", output::list(&kernel.used_by)),
    ]))
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

async fn kernels(context: &mut Context) -> Result<Vec<KernelInfo>, Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_kernels(&bus::none())).await?;
    Ok(listed.into_iter().map(|(_, dict)| KernelInfo::from_dict(dict)).collect::<Result<_, _>>()?)
}

async fn show_default(context: &mut Context) -> Result<(), Error> {
    match kernels(context).await?.into_iter().find(|kernel| kernel.default) {
        Some(kernel) => output::print_line(&kernel.name),
        None => Err(Error::Usage(
            "the default kernel is not here: `banger kernel ls` shows those that there are, and `banger kernel default \
             NAME` sets one"
                .into(),
        )),
    }
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let kernels = kernels(context).await?;
    if format == Format::Json {
        return output::print_json(&kernels);
    }
    let row = |kernel: &KernelInfo| {
        vec![
            kernel.name.clone(),
            output::or_dash(&kernel.release),
            output::or_dash(&kernel.source),
            kernel.size.to_string(),
            yes(kernel.has_modules),
            yes(kernel.has_initrd),
            if kernel.default { "*" } else { "" }.to_owned(),
            output::list(&kernel.used_by),
        ]
    };
    let rows: Vec<_> = kernels.iter().map(row).collect();
    output::print(&output::table(
        &["NAME", "RELEASE", "SOURCE", "SIZE", "MODULES", "INITRD", "DEFAULT", "USED BY"],
        &rows,
    ))
}

async fn remove(context: &mut Context, name: &str) -> Result<(), Error> {
    let kernel = find(context, name).await?;
    job::run(context, Follow::passing(name), kernel.delete(&bus::none())).await?;
    output::print_line(name)
}
