//! Images that do not come from a registry: `banger image import`, `register` and `promote`, `banger vm commit`.

use crate::{
    bus,
    context::Context,
    error::Error,
    job::{self, Begun, Follow},
    layout, modules, output,
};
use banger_dbus::{
    Dict, DictWriter, ImageInfo, dict,
    model::Bytes,
    zbus::{Fd, OwnedObjectPath},
};
use clap::{Args, ValueEnum};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};
use tokio::sync::oneshot;

/// How a stream that the client makes itself ends.
type Packed = Option<oneshot::Receiver<Result<(), Error>>>;

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// By its first bytes and names.
    Auto,
    /// The archive of an OCI image layout, or its folder.
    Oci,
    /// What `docker save` writes.
    Docker,
    /// The archive of a root filesystem.
    Rootfs,
    /// An ext4 filesystem.
    Ext4,
}

/// An image to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The archive, the filesystem or the layout's folder; - for standard input.
    path: PathBuf,
    /// The image's name here; what the archive calls it, or the file is called, if not given.
    #[arg(long)]
    name: Option<String>,
    /// What it is.
    #[arg(long, value_enum)]
    format: Option<ImportFormat>,
    /// Which image of an archive that has several: its name there, or its digest.
    #[arg(long, value_name = "REF")]
    select: Option<String>,
    /// The platform, such as linux/amd64.
    #[arg(long)]
    platform: Option<String>,
    /// Size of the filesystem, such as 2G.
    #[arg(long)]
    size: Option<Bytes>,
    /// A word of the entrypoint, for a root filesystem or an ext4 image. May be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A word of the command, for a root filesystem or an ext4 image. May be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A variable, for a root filesystem or an ext4 image. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user that it runs as, for a root filesystem or an ext4 image.
    #[arg(short, long)]
    user: Option<String>,
    /// The folder that it runs in, for a root filesystem or an ext4 image.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
}

/// A file to register.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The image's name.
    #[arg(long)]
    name: String,
    /// The ext4 filesystem, which stays yours.
    #[arg(long, value_name = "FILE")]
    rootfs: PathBuf,
    /// A kernel for it, a bzImage or an ELF.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel_name")]
    kernel: Option<PathBuf>,
    /// The kernel's initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's modules, the folder that holds modules.dep.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// A kernel that is here, by name.
    #[arg(long, value_name = "KERNEL")]
    kernel_name: Option<String>,
}

/// Imports an image and prints its name.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn import(context: &mut Context, args: ImportArgs) -> Result<(), Error> {
    let (input, packed) = input(&args.path)?;
    let shown = args.name.clone().unwrap_or_else(|| args.path.display().to_string());
    let format = args.format.and_then(|format| format.to_possible_value());
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let options = DictWriter::new()
        .with_some("format", format.map(|format| format.get_name().to_owned()))
        .with_some("default-name", default_name(&args.path))
        .with_some("select", args.select)
        .with_some("platform", args.platform)
        .with_some("size", args.size)
        .with_some("entrypoint", some(args.entrypoint))
        .with_some("command", some(args.cmd))
        .with_some("environment", some(args.env))
        .with_some("user", args.user)
        .with_some("working-directory", args.workdir)
        .done();
    let manager = context.manager().await?;
    let name = args.name.unwrap_or_default();
    let call = manager.import_image(Fd::from(input), &name, &options);
    let begun = job::begin(&mut context.signals, call).await?;
    let result = feed(context, &shown, begun, packed).await?;
    print_name(context, result).await
}

/// Registers a file and prints the image's name.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn register(context: &mut Context, args: RegisterArgs) -> Result<(), Error> {
    let open = |path: PathBuf| -> Result<OwnedFd, Error> {
        Ok(File::open(&path).map_err(|e| Error::file("open", &path, e))?.into())
    };
    let (tree, packed) = args.modules.as_deref().map(modules::pack).transpose()?.unzip();
    let options = DictWriter::new()
        .with("rootfs", open(args.rootfs)?)
        .with_some("kernel", args.kernel.map(open).transpose()?)
        .with_some("initrd", args.initrd.map(open).transpose()?)
        .with_some("modules", tree)
        .with_some("kernel-name", args.kernel_name)
        .done();
    let manager = context.manager().await?;
    let begun = job::begin(&mut context.signals, manager.register_image(&args.name, &options)).await?;
    // The service has its own descriptors now: only when ours are closed does it see the end of the tree.
    drop(options);
    let result = feed(context, &args.name, begun, packed).await?;
    print_name(context, result).await
}

/// Makes a registered image banger's own.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn promote(context: &mut Context, name: &str) -> Result<(), Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_image(name, &bus::none())).await?;
    let image = bus::image(&context.connection, path).await?;
    let result = job::run(context, Follow::of(name), image.promote(&bus::none())).await?;
    print_name(context, result).await
}

/// Makes an image of a VM's disk and prints its name.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn commit(context: &mut Context, vm: &str, name: &str) -> Result<(), Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_vm(vm, &bus::none())).await?;
    let vm = bus::vm(&context.connection, path).await?;
    let result = job::run(context, Follow::of(name), vm.commit(name, &bus::none())).await?;
    print_name(context, result).await
}

/// What is imported: a file, standard input, or a folder that is packed on the way.
fn input(path: &Path) -> Result<(OwnedFd, Packed), Error> {
    if path == Path::new("-") {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return Ok((stdin.map_err(|e| Error::file("use", "standard input", e))?, None));
    }
    if path.is_dir() {
        let (stream, packed) = layout::pack(path)?;
        return Ok((stream, Some(packed)));
    }
    Ok((File::open(path).map_err(|e| Error::file("open", path, e))?.into(), None))
}

/// Follows a job that reads what the client packs meanwhile.
async fn feed(
    context: &mut Context,
    subject: &str,
    begun: Begun<OwnedObjectPath>,
    packed: Packed,
) -> Result<Dict, Error> {
    let job = bus::job(&context.connection, begun.reply.clone()).await?;
    let packing = async {
        match packed {
            Some(packed) => packed.await.unwrap_or_else(|_| Err(Error::Usage("the packing stopped".into()))),
            None => Ok(()),
        }
    };
    let followed = job::follow(context, Follow::of(subject), begun);
    tokio::pin!(followed);
    tokio::select! {
        result = &mut followed => result,
        // What could not be read to its end must not be taken for whole.
        Err(error) = packing => {
            job.cancel(&bus::none()).await?;
            match followed.await {
                Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
                _ => Err(error),
            }
        }
    }
}

async fn print_name(context: &mut Context, mut result: Dict) -> Result<(), Error> {
    let image: OwnedObjectPath = dict::require(&mut result, "image")?;
    let image = bus::image(&context.connection, image).await?;
    let image = ImageInfo::from_dict(context.signals.guard(image.describe(&bus::none())).await?)?;
    output::print_line(&image.name)
}

/// A file's name as an image's: `Web App.tar.gz` is `web-app`.
fn default_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let mut stem = name.as_str();
    for end in [".gz", ".zst", ".tar", ".tgz", ".ext4", ".img", ".raw", ".oci"] {
        stem = stem.strip_suffix(end).unwrap_or(stem);
    }
    let label = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = stem.chars().map(label).take(63).collect();
    Some(name.trim_matches('-').to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lends_its_name() {
        for (path, name) in [
            ("/tmp/Web App.tar.gz", Some("web-app")),
            ("busybox.tar", Some("busybox")),
            ("debian_12.ext4", Some("debian-12")),
            ("layout/", Some("layout")),
            ("-", None),
            ("...tar", None),
        ] {
            assert_eq!(default_name(Path::new(path)).as_deref(), name, "{path}");
        }
        assert_eq!(default_name(Path::new(&"x".repeat(80))).unwrap().len(), 63);
    }
}
