//! `banger image`.

use super::{
    catalogue, each,
    sources::{self, ImportArgs, RegisterArgs},
};
use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    credentials::{self, RegistryArgs},
    error::Error,
    job::{self, Follow},
    output::{self, Format},
    progress::note,
};
use banger_dbus::{
    Dict, DictWriter, ImageInfo, ImageProxy, dict,
    model::Bytes,
    zbus::{Fd, OwnedObjectPath},
};
use clap::{Subcommand, ValueEnum};
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// Images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Pull an image from a registry and make it a root filesystem; prints its name.
    #[command(after_help = "\
Examples:
  banger image pull debian:bookworm
  banger image pull --name app --size 4G 127.0.0.1:5000/team/app:1.2
  banger image pull --creds alice registry.example/team/app

Credentials are found where `podman login`, `docker login` and `skopeo login` keep them.")]
    Pull {
        /// The reference, such as debian:bookworm or localhost:5000/team/app@sha256:…
        reference: String,
        /// The image's name here; made of the reference if not given.
        #[arg(long)]
        name: Option<String>,
        /// Size of the filesystem, such as 2G; 1.25 times its content and at least 1 GiB if not given.
        #[arg(long)]
        size: Option<Bytes>,
        /// The platform, such as linux/amd64.
        #[arg(long)]
        platform: Option<String>,
        /// How to log in to the registry.
        #[command(flatten)]
        registry: RegistryArgs,
        /// Where it is looked for; a plain name is looked for in the catalogue first.
        #[arg(long, value_parser = ["auto", "catalogue", "registry"])]
        source: Option<String>,
    },
    /// List the images that the catalogue names.
    Catalogue(#[command(flatten)] FormatArgs),
    /// List images.
    #[command(visible_alias = "list")]
    Ls(#[command(flatten)] FormatArgs),
    /// Show everything about an image.
    #[command(visible_alias = "inspect")]
    Show {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Give an image one more name.
    Tag {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
        /// The new name.
        name: String,
    },
    /// Take a name away from an image; the image stays.
    Untag {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
        /// The name; the image's only one if not given.
        name: Option<String>,
    },
    /// Let every user of this host see and use a private image.
    Share {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
    },
    /// Remove images.
    Rm {
        /// The images: name, id or a unique prefix of an id.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove what nothing needs: cached layers and your images without a name, with --all all your images that no VM
    /// is made of.
    Prune {
        /// Remove images that no VM is made of, too.
        #[arg(short, long)]
        all: bool,
        /// Remove images alone; cached layers stay.
        #[arg(long)]
        dangling: bool,
        /// Only what is older, such as 90m, 12h or 30d.
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<Duration>,
        /// Only what takes more of the disk, such as 500M.
        #[arg(long, value_name = "SIZE")]
        larger_than: Option<Bytes>,
        /// Do not ask.
        #[arg(short, long, visible_alias = "force", visible_short_alias = 'f')]
        yes: bool,
        /// Only tell what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make an image of an archive (OCI layout, docker save, root filesystem) or of an ext4 filesystem; prints its name.
    #[command(after_help = "\
Examples:
  banger image import layout/
  skopeo copy docker://alpine oci-archive:/dev/stdout | banger image import --name alpine -
  banger image import --name box --cmd /bin/sh rootfs.tar.zst")]
    Import(#[command(flatten)] ImportArgs),
    /// Make an image of an ext4 filesystem that stays in your file; only you see it.
    Register(#[command(flatten)] RegisterArgs),
    /// Copy the file of a registered image, which is banger's own from then on.
    Promote {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
    },
    /// Write an image to a file, as an ext4 filesystem or as an OCI archive.
    Export {
        /// The image: its name, id or a unique prefix of its id.
        image: String,
        /// The file; - for standard output.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// What to write.
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
    },
}

/// What an image is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Its filesystem.
    #[default]
    Ext4,
    /// The archive of an OCI image layout.
    Oci,
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn image(context: &mut Context, command: ImageCommand) -> Result<(), Error> {
    match command {
        ImageCommand::Pull { reference, name, size, platform, source, registry } => {
            let options = DictWriter::new().with_some("name", name).with_some("size", size);
            let login = credentials::descriptor(context, &registry, &reference).await?;
            let options = options.with_some("platform", platform).with_some("source", source);
            let options = options.with_some("credentials", login);
            pull(context, &reference, options).await
        }
        ImageCommand::Catalogue(format) => catalogue::list(context, "image", format.format).await,
        ImageCommand::Ls(format) => list(context, format.format).await,
        ImageCommand::Show { image, format } => show(context, &image, format.format).await,
        ImageCommand::Tag { image, name } => {
            let image = find(context, &image).await?;
            Ok(context.signals.guard(image.tag(&name, &bus::none())).await?)
        }
        ImageCommand::Untag { image, name } => untag(context, &image, name).await,
        ImageCommand::Share { image } => {
            let image = find(context, &image).await?;
            Ok(context.signals.guard(image.share(&bus::none())).await?)
        }
        ImageCommand::Rm { images } => {
            each(context, images, async |context, name| remove(context, name).await).await
        }
        ImageCommand::Prune { all, dangling, older_than, larger_than, yes, dry_run } => {
            let options = DictWriter::new()
                .with("all", all)
                .with_some("dangling", dangling.then_some(true))
                .with_some("older-than", older_than.map(|age| age.as_secs()))
                .with_some("larger-than", larger_than);
            prune(context, &options.done(), yes, dry_run).await
        }
        ImageCommand::Import(args) => sources::import(context, args).await,
        ImageCommand::Register(args) => sources::register(context, args).await,
        ImageCommand::Promote { image } => sources::promote(context, &image).await,
        ImageCommand::Export { image, output, format } => export(context, &image, &output, format).await,
    }
}

async fn find(context: &mut Context, name: &str) -> Result<ImageProxy<'static>, Error> {
    let manager = context.manager().await?;
    let path = context.signals.guard(manager.get_image(name, &bus::none())).await?;
    bus::image(&context.connection, path).await
}

async fn pull(context: &mut Context, reference: &str, options: DictWriter) -> Result<(), Error> {
    let manager = context.manager().await?;
    let options = options.done();
    let call = manager.pull_image(reference, &options);
    let mut result = job::run(context, Follow::of(reference), call).await?;
    let image: OwnedObjectPath = dict::require(&mut result, "image")?;
    let image = bus::image(&context.connection, image).await?;
    output::print_line(&describe(context, &image).await?.name)
}

async fn describe(context: &mut Context, image: &ImageProxy<'_>) -> Result<ImageInfo, Error> {
    Ok(ImageInfo::from_dict(context.signals.guard(image.describe(&bus::none())).await?)?)
}

async fn untag(context: &mut Context, name: &str, what: Option<String>) -> Result<(), Error> {
    let image = find(context, name).await?;
    let what = match (what, describe(context, &image).await?.names.as_slice()) {
        (Some(what), _) => what,
        (None, [only]) => only.clone(),
        (None, names) => {
            return Err(Error::Usage(format!(
                "say which of its names to take away: {}",
                output::list(names)
            )));
        }
    };
    context.signals.guard(image.untag(&what, &bus::none())).await
}

/// An age in seconds, minutes, hours, days or weeks.
fn age(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err("write a number with s, m, h, d or w".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a number with s, m, h, d or w".to_owned())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long ago".into())
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_images(&bus::none())).await?;
    let mut images =
        listed.into_iter().map(|(_, dict)| ImageInfo::from_dict(dict)).collect::<Result<Vec<_>, _>>()?;
    images.sort_by(|a, b| (a.name.is_empty(), &a.name).cmp(&(b.name.is_empty(), &b.name)));
    if format == Format::Json {
        return output::print_json(&images);
    }
    let row = |image: &ImageInfo| {
        vec![
            if image.name.is_empty() { "<none>".to_owned() } else { image.names.join(", ") },
            image.id.to_string(),
            output::or_dash(&image.reference),
            image.size.to_string(),
            output::ago(image.created),
            output::list(&image.used_by),
        ]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    output::print(&output::table(&["NAME", "ID", "REFERENCE", "SIZE", "CREATED", "USED BY"], &rows))
}

async fn show(context: &mut Context, name: &str, format: Format) -> Result<(), Error> {
    let image = find(context, name).await?;
    let image = describe(context, &image).await?;
    if format == Format::Json {
        return output::print_json(&[image]);
    }
    output::print(&output::facts(&[
        ("name", output::list(&image.names)),
        ("id", image.id.to_string()),
        ("source", image.source),
        ("reference", output::or_dash(&image.reference)),
        ("digest", output::or_dash(&image.digest)),
        ("platform", output::or_dash(&image.platform)),
        ("size", image.size.to_string()),
        ("content", image.content.to_string()),
        ("downloaded", image.compressed.to_string()),
        ("on disk", image.used.to_string()),
        ("layers", output::list(&image.layers)),
        ("signature", output::or_dash(&image.signature)),
        ("kernel", output::or_dash(&image.kernel)),
        ("owner", image.owner_uid.to_string()),
        ("private", if image.private { "yes" } else { "no" }.to_owned()),
        ("created", output::ago(image.created)),
        ("entrypoint", output::list(&image.entrypoint)),
        ("command", output::list(&image.command)),
        ("environment", output::list(&image.environment)),
        ("user", output::or_dash(&image.user)),
        ("working folder", output::or_dash(&image.working_directory)),
        ("used by", output::list(&image.used_by)),
        ("not available", output::or_dash(&image.unavailable)),
    ]))
}

async fn remove(context: &mut Context, name: &str) -> Result<(), Error> {
    let image = find(context, name).await?;
    job::run(context, Follow::passing(name), image.delete(&bus::none())).await?;
    output::print_line(name)
}

/// What a prune did, or would do.
struct Pruned {
    count: u32,
    bytes: Bytes,
    images: Vec<String>,
}

impl Pruned {
    fn words(&self) -> String {
        let things = if self.count == 1 { "thing" } else { "things" };
        let images = match self.images.as_slice() {
            [] => String::new(),
            images => format!(", among them the images {}", images.join(", ")),
        };
        format!("{} {things} of {}{images}", self.count, self.bytes)
    }
}

async fn prune_once(context: &mut Context, options: &Dict, dry_run: bool) -> Result<Pruned, Error> {
    let manager = context.manager().await?;
    let mut options = options.clone();
    options.extend(DictWriter::new().with("dry-run", dry_run).done());
    let mut result = job::run(context, Follow::passing("prune"), manager.prune_images(&options)).await?;
    Ok(Pruned {
        count: dict::take(&mut result, "count")?.unwrap_or_default(),
        bytes: dict::take(&mut result, "bytes")?.unwrap_or_default(),
        images: dict::take(&mut result, "images")?.unwrap_or_default(),
    })
}

async fn prune(context: &mut Context, options: &Dict, yes: bool, dry_run: bool) -> Result<(), Error> {
    if dry_run || !yes {
        let would = prune_once(context, options, true).await?;
        if dry_run {
            return output::print_line(&format!("would remove {}", would.words()));
        }
        if would.count == 0 {
            return output::print_line("nothing to remove");
        }
        if !confirm(context, &format!("Remove {}?", would.words())).await? {
            return output::print_line("nothing removed");
        }
    }
    let did = prune_once(context, options, false).await?;
    output::print_line(&format!("removed {}", did.words()))
}

/// Asks a person.
async fn confirm(context: &mut Context, question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "{question} Nobody is there to answer: say --yes, or look with --dry-run"
        )));
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    // A thread of its own: reading a terminal cannot be waited for together with a signal.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = told => answer.unwrap_or_else(|_| Ok(String::new())),
        signal = context.signals.end() => {
            note("");
            return Err(Error::Interrupted(signal));
        }
    };
    let answer = answer.map_err(|e| Error::file("read", "standard input", e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn export(context: &mut Context, name: &str, to: &Path, format: ExportFormat) -> Result<(), Error> {
    let image = find(context, name).await?;
    let standard = to == Path::new("-");
    let target: OwnedFd = match standard {
        true if io::stdout().is_terminal() => {
            return Err(Error::Usage(
                "an image is nothing for a terminal: give --output FILE, or a pipe".into(),
            ));
        }
        true => {
            io::stdout().as_fd().try_clone_to_owned().map_err(|e| Error::file("use", "standard output", e))?
        }
        false => File::create(to).map_err(|e| Error::file("create", to, e))?.into(),
    };
    let format = if format == ExportFormat::Oci { "oci" } else { "ext4" };
    let options = DictWriter::new().with("format", format.to_owned()).done();
    let call = image.export(Fd::from(target), &options);
    let result = job::run(context, Follow::of(name), call).await;
    if result.is_err() && !standard && to.is_file() {
        // Half an image helps nobody.
        let _ = std::fs::remove_file(to);
    }
    result.map(|_| ())
}
