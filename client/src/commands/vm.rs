//! `banger vm`.

use super::{each, sources};
use crate::{
    bus,
    cli::{FormatArgs, MachineArgs, ProcessArgs},
    console,
    context::Context,
    error::Error,
    job::{self, Begun, Follow},
    output::{self, Format},
    pump,
};
use banger_dbus::{DictWriter, VmInfo};
use clap::Subcommand;
use std::{io, os::fd::OwnedFd};

/// VMs.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM and start it; prints its name.
    #[command(after_help = "\
Examples:
  banger vm create --image debian --name box
  banger vm create --image nginx --name web --memory 1G -e PORT=80
  banger vm create --image debian --name later --no-start")]
    Create(CreateArgs),
    /// Start a VM; returns when its guest is ready.
    Start {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
    },
    /// Shut a VM down.
    Stop {
        /// Seconds until it is ended the hard way.
        #[arg(short, long, value_name = "SECONDS")]
        timeout: Option<u32>,
        /// End it at once.
        #[arg(short, long)]
        force: bool,
        /// The VMs: name, id or a unique prefix of an id.
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Shut a VM down and start it again.
    Restart {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
    },
    /// End a VM at once, as pulling the plug would.
    Kill {
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
    /// Make an image of a stopped VM's disk; prints its name.
    Commit {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The image's name.
        name: String,
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
    /// List VMs.
    #[command(visible_aliases = ["list", "ps"])]
    Ls(#[command(flatten)] FormatArgs),
    /// Show everything about a VM.
    #[command(visible_alias = "inspect")]
    Show {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Talk to a VM's serial console; Ctrl-] three times ends it.
    Console {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
    },
    /// Write what a VM's serial console said to standard output.
    Logs {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
    },
}

/// A VM to make.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The image: its name, id or a unique prefix of its id.
    #[arg(long)]
    pub image: String,
    /// Its name, a DNS label; made up if not given.
    #[arg(long)]
    pub name: Option<String>,
    /// Do not start it.
    #[arg(long)]
    pub no_start: bool,
    /// Delete it when it stops.
    #[arg(long)]
    pub rm: bool,
    /// What it is.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// How its command is run.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// What it runs, instead of the image's own command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Does it.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn vm(context: &mut Context, command: VmCommand) -> Result<(), Error> {
    match command {
        VmCommand::Create(args) => create(context, args).await,
        VmCommand::Start { vm } => {
            let proxy = find(context, &vm).await?;
            job::run(context, Follow::passing(&vm), proxy.start(&bus::none())).await.map(drop)
        }
        VmCommand::Commit { vm, name } => sources::commit(context, &vm, &name).await,
        VmCommand::Stop { timeout, force, vms } => {
            let options =
                DictWriter::new().with_some("timeout", timeout).with_some("force", force.then_some(true));
            let options = options.done();
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.stop(&options)).await.map(drop)
            })
            .await
        }
        VmCommand::Restart { vm } => {
            let proxy = find(context, &vm).await?;
            job::run(context, Follow::passing(&vm), proxy.restart(&bus::none())).await.map(drop)
        }
        VmCommand::Kill { vms } => {
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.kill(&bus::none())).await.map(drop)
            })
            .await
        }
        VmCommand::Pause { vms } => {
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.pause(&bus::none())).await.map(drop)
            })
            .await
        }
        VmCommand::Resume { vms } => {
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.resume(&bus::none())).await.map(drop)
            })
            .await
        }
        VmCommand::Rm { force, vms } => {
            let options = DictWriter::new().with_some("force", force.then_some(true)).done();
            each(context, vms, async |context, name| {
                let proxy = find(context, name).await?;
                job::run(context, Follow::passing(name), proxy.delete(&options)).await?;
                output::print_line(name)
            })
            .await
        }
        VmCommand::Ls(format) => list(context, format.format).await,
        VmCommand::Show { vm, format } => show(context, &vm, format.format).await,
        VmCommand::Console { vm } => {
            let proxy = find(context, &vm).await?;
            let stream = context.signals.guard(proxy.open_console(&bus::none())).await?;
            console::talk(context, &vm, stream.into()).await
        }
        VmCommand::Logs { vm } => {
            let proxy = find(context, &vm).await?;
            let log = context.signals.guard(proxy.open_log(&bus::none())).await?;
            logs(context, log.into()).await
        }
    }
}

async fn find(context: &mut Context, name: &str) -> Result<banger_dbus::VMProxy<'static>, Error> {
    let connection = context.connection.clone();
    context.signals.guard(bus::find_vm(&connection, name)).await
}

async fn create(context: &mut Context, mut args: CreateArgs) -> Result<(), Error> {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let options = args
        .machine
        .options(args.image)
        .with_some("start", args.no_start.then_some(false))
        .with_some("remove", args.rm.then_some(true))
        .with_some("environment", some(args.process.environment(false)?))
        .with_some("command", some(args.command))
        .with_some("user", args.process.user)
        .with_some("working-directory", args.process.workdir)
        .done();
    let manager = context.manager().await?;
    let name = args.name.unwrap_or_default();
    let begun = job::begin(&mut context.signals, manager.create_vm(&name, &options)).await?;
    let (vm, job) = begun.reply;
    let vm = bus::vm(&context.connection, vm).await?;
    let name = match name.as_str() {
        "" => context.signals.guard(vm.name()).await?,
        name => name.to_owned(),
    };
    let begun = Begun { reply: job, interrupted: begun.interrupted };
    job::follow(context, Follow::passing(&name), begun).await?;
    output::print_line(&name)
}

async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_vms(&bus::none())).await?;
    let mut vms =
        listed.into_iter().map(|(_, dict)| VmInfo::from_dict(dict)).collect::<Result<Vec<_>, _>>()?;
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    if format == Format::Json {
        return output::print_json(&vms);
    }
    let row = |vm: &VmInfo| {
        vec![
            vm.name.clone(),
            vm.state.clone(),
            output::or_dash(&vm.image),
            vm.cpus.to_string(),
            vm.memory.to_string(),
            output::list(&vm.addresses),
            output::ago(vm.created),
        ]
    };
    let rows: Vec<_> = vms.iter().map(row).collect();
    output::print(&output::table(&["NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "ADDRESS", "CREATED"], &rows))
}

async fn show(context: &mut Context, name: &str, format: Format) -> Result<(), Error> {
    let vm = find(context, name).await?;
    let vm = VmInfo::from_dict(context.signals.guard(vm.describe(&bus::none())).await?)?;
    if format == Format::Json {
        return output::print_json(&[vm]);
    }
    let machine: Vec<String> = vm.vmm.into_iter().chain(vm.accel).collect();
    let mut facts = vec![
        ("name", vm.name),
        ("id", vm.id.to_string()),
        ("state", vm.state),
        ("image", output::or_dash(&vm.image)),
        ("kernel", output::or_dash(&vm.kernel)),
        ("cpus", vm.cpus.to_string()),
        ("memory", vm.memory.to_string()),
        ("disk", format!("{}, {} used", vm.disk, vm.disk_used)),
        ("addresses", output::list(&vm.addresses)),
        ("machine", output::list(&machine)),
        ("owner", vm.owner_uid.to_string()),
        ("created", output::ago(vm.created)),
    ];
    facts.extend(vm.started.map(|time| ("started", output::ago(time))));
    facts.extend(vm.pid.map(|pid| ("process", pid.to_string())));
    facts.extend(vm.remove.then(|| ("afterwards", "deleted when it stops".to_owned())));
    facts.extend(vm.error.map(|error| ("error", error)));
    output::print(&output::facts(&facts))
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
