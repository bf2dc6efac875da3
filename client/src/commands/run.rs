//! `banger run`: from an image's name to a command's output.

use super::{change::LifeArgs, exec::code};
use crate::{
    attach::{Command, attach},
    bus,
    cli::{MachineArgs, ProcessArgs, StreamArgs},
    context::Context,
    credentials::{self, RegistryArgs},
    error::Error,
    job::{self, Begun, Follow},
    output,
    progress::note,
    terminal,
};
use banger_dbus::{
    Dict, DictWriter, Error as BusError, ImageInfo, VMProxy, dict,
    model::{Bytes, ImageId},
    zbus::OwnedObjectPath,
};
use clap::{Args, ValueEnum};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Each time; a newer one takes the name.
    Always,
    /// Not at all.
    Never,
}

/// Run a command in a new VM: pull the image if needed, create, start, attach.
///
/// The exit code is the command's own; 125 if banger failed, 126 if the command cannot be executed, 127 if
/// there is none. Without a command the image's own is run. Without --rm the VM stays afterwards and runs on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger run --rm debian -- sh -c 'echo hello; exit 42'
  banger run --rm -it debian bash
  banger run --rm -i debian -- sha256sum < file
  banger run -d --name web --memory 1G --disk 10G nginx
  banger run --rm 127.0.0.1:5000/team/app:1.2")]
pub struct RunArgs {
    /// Delete the VM afterwards, whatever happened.
    #[arg(long)]
    pub rm: bool,
    /// Start it in the background and print its name.
    #[arg(short, long)]
    pub detach: bool,
    /// How the command is attached.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// The VM's name, a DNS label; made up if not given.
    #[arg(long)]
    pub name: Option<String>,
    /// What the VM is.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// When it starts and stops by itself.
    #[command(flatten)]
    pub life: LifeArgs,
    /// How the command is run.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// If the image is pulled: the size of its filesystem, such as 2G.
    #[arg(long)]
    pub size: Option<Bytes>,
    /// When to pull the image.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub pull: Pull,
    /// If the image is pulled: how to log in to the registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// An image's name, or a reference such as debian:bookworm.
    pub image: String,
    /// The command; without it, the image's own.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Runs it; the exit code is the command's.
///
/// # Errors
/// [`Error`] if it could not be run.
pub async fn run(context: &mut Context, mut args: RunArgs) -> Result<u8, Error> {
    let command = Command {
        environment: args.process.environment(args.stream.tty && !args.detach)?,
        argv: std::mem::take(&mut args.command),
        user: args.process.user.take(),
        working_directory: args.process.workdir.take(),
        entrypoint: true,
        interactive: args.stream.interactive,
        tty: args.stream.tty,
    };
    let image = find_or_pull(context, &args).await?;

    let (options, command) = creation(&args, image, command);
    let manager = context.manager().await?;
    let name = args.name.clone().unwrap_or_default();
    let begun = job::begin(&mut context.signals, manager.create_vm(&name, &options)).await?;
    let (vm, job) = begun.reply;
    let vm = bus::vm(&context.connection, vm).await?;
    let begun = Begun { reply: job, interrupted: begun.interrupted };

    let result = in_vm(context, &args, &vm, begun, command).await;
    let leaves = !args.detach || result.is_err();
    match result {
        result if args.rm && leaves => {
            let removed = remove(context, &vm).await;
            // What went wrong first matters more; a failed removal is told all the same.
            match (result, removed) {
                (Ok(code), removed) => removed.map(|()| code),
                (Err(error), Ok(())) => Err(error),
                (Err(error), Err(removal)) => {
                    removal.report(context.verbose);
                    Err(error)
                }
            }
        }
        result => result,
    }
}

/// What the VM is to be, and the command to attach. A VM in the background runs its command by itself; one
/// to attach to runs nothing, or the image's own command would run twice.
fn creation(args: &RunArgs, image: ImageId, command: Command) -> (Dict, Option<Command>) {
    let options = args.machine.options(image.to_string()).with_some("remove", args.rm.then_some(true));
    let options = args.life.options(options);
    if !args.detach {
        return (options.with("main", "none".to_owned()).done(), Some(command));
    }
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let options = options
        .with_some("command", some(command.argv))
        .with_some("environment", some(command.environment))
        .with_some("user", command.user)
        .with_some("working-directory", command.working_directory);
    (options.done(), None)
}

impl MachineArgs {
    /// The options of CreateVM that these and the image are.
    pub fn options(&self, image: String) -> DictWriter {
        let volumes = self.volumes.iter().map(|v| (v.name.clone(), v.path.clone(), v.read_only));
        let volumes: Vec<(String, String, bool)> = volumes.collect();
        self.network
            .options(DictWriter::new())
            .with("image", image)
            .with_some("kernel", self.kernel.clone())
            .with_some("cpus", self.cpus)
            .with_some("memory", self.memory)
            .with_some("disk", self.disk)
            .with_some("vmm", self.vmm.clone())
            .with_some("disk-bytes-per-second", self.disk_bytes_per_second)
            .with_some("network-bytes-per-second", self.network_bytes_per_second)
            .with_some("volumes", Some(volumes).filter(|volumes| !volumes.is_empty()))
            .with_some("work", self.work_disk.then_some(true))
    }
}

async fn in_vm(
    context: &mut Context,
    args: &RunArgs,
    vm: &VMProxy<'_>,
    begun: Begun<OwnedObjectPath>,
    command: Option<Command>,
) -> Result<u8, Error> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => context.signals.guard(vm.name()).await?,
    };
    job::follow(context, Follow::passing(&name), begun).await?;
    let Some(command) = command else {
        output::print_line(&name)?;
        return Ok(0);
    };
    let result = attach(context, vm, command).await;
    if !args.rm && !context.quiet && terminal::is_watched() {
        note(&format!(
            "The VM {name} runs on: `banger exec -it {name} sh` looks inside, `banger vm rm --force {name}` removes it."
        ));
    }
    Ok(code(result?))
}

/// Deletes the VM, which may be gone already: it deletes itself when it stops.
async fn remove(context: &mut Context, vm: &VMProxy<'_>) -> Result<(), Error> {
    let options = DictWriter::new().with("force", true).done();
    let how = Follow { subject: "clean up", passing: true, cancellable: false };
    let quiet = std::mem::replace(&mut context.quiet, true);
    let result = job::run(context, how, vm.delete(&options)).await;
    context.quiet = quiet;
    match result {
        Ok(_) => Ok(()),
        Err(Error::Bus(error)) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &BusError) -> bool {
    matches!(error, BusError::NotFound(_)) || error.name() == "org.freedesktop.DBus.Error.UnknownObject"
}

/// The image that is meant: by name, by id, by reference, or pulled now.
async fn find_or_pull(context: &mut Context, args: &RunArgs) -> Result<ImageId, Error> {
    if args.pull != Pull::Always
        && let Some(image) = find(context, &args.image).await?
    {
        return Ok(image);
    }
    if args.pull == Pull::Never {
        return Err(Error::Usage(format!(
            "there is no image {:?} here, and --pull=never: get it with `banger image pull {}`",
            args.image, args.image
        )));
    }
    let manager = context.manager().await?;
    let login = credentials::descriptor(context, &args.registry, &args.image).await?;
    let options = DictWriter::new().with_some("size", args.size).with_some("credentials", login).done();
    let call = manager.pull_image(&args.image, &options);
    let mut result = job::run(context, Follow::passing(&args.image), call).await?;
    let image: OwnedObjectPath = dict::require(&mut result, "image")?;
    bus::id_in(&image)
}

async fn find(context: &mut Context, typed: &str) -> Result<Option<ImageId>, Error> {
    let manager = context.manager().await?;
    let none = bus::none();
    match context.signals.guard(manager.get_image(typed, &none)).await {
        Ok(path) => return bus::id_in(&path).map(Some),
        // A reference is no name, which is all that this tells.
        Err(Error::Bus(BusError::NotFound(_) | BusError::InvalidName(_))) => {}
        Err(error) => return Err(error),
    }
    let full = match context.signals.guard(manager.expand_reference(typed, &none)).await {
        Ok(full) => full,
        Err(Error::Bus(BusError::InvalidReference(_))) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut same = Vec::new();
    for (_, dict) in context.signals.guard(manager.list_images(&none)).await? {
        let image = ImageInfo::from_dict(dict)?;
        if image.reference == full {
            same.push((image.created, image.id));
        }
    }
    // Pulled more than once, under several names: the newest.
    Ok(same.into_iter().max().map(|(_, id)| id))
}
