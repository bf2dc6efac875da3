//! `banger vm`.

use super::{
    change::LifeArgs,
    life::{self, LifeCommand},
    snapshots::{self, SnapshotCommand},
    sources, stats,
};
use crate::{
    bus,
    cli::{FormatArgs, MachineArgs, ProcessArgs, port},
    console,
    context::Context,
    error::Error,
    job::{self, Begun, Follow},
    output::{self, Format},
};
use banger_dbus::{DictWriter, Port, VmInfo, VmSummary, model::PublishedPort};
use clap::Subcommand;

/// VMs.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM and start it; prints its name.
    #[command(after_help = "\
Examples:
  banger vm create --image debian --name box
  banger vm create --image nginx --name web --memory 1G -e PORT=80
  banger vm create --image debian --name later --no-start")]
    Create(Box<CreateArgs>),
    /// What is done to VMs that are there.
    #[command(flatten)]
    Life(LifeCommand),
    /// Moments to go back to, and to go on from.
    #[command(flatten)]
    Snapshots(SnapshotCommand),
    /// Make an image of a stopped VM's disk; prints its name.
    Commit {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The image's name.
        name: String,
    },
    /// Make a port of a VM reachable on this host: at once if it runs, and whenever it does.
    #[command(after_help = "\
Examples:
  banger vm publish web 8080:80               on this host alone, at 127.0.0.1:8080
  banger vm publish web 0.0.0.0:8080:80       from elsewhere too")]
    Publish {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The ports.
        #[arg(required = true, value_name = "[ADDRESS:]HOST:GUEST[/udp]")]
        ports: Vec<PublishedPort>,
    },
    /// Take that back.
    Unpublish {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The ports, as `banger vm show` has them.
        #[arg(required = true, value_name = "[ADDRESS:]HOST:GUEST[/udp]")]
        ports: Vec<PublishedPort>,
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
    /// Show what listens in a VM's guest.
    #[command(visible_alias = "port")]
    Ports {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// How it is written.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Connect standard input and output with a TCP port of a VM's guest.
    #[command(after_help = "Example:\n  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | banger vm connect web 80")]
    Connect {
        /// The VM: its name, id or a unique prefix of its id.
        vm: String,
        /// The port.
        port: u16,
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
    /// When it starts and stops by itself.
    #[command(flatten)]
    pub life: LifeArgs,
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
        VmCommand::Create(args) => create(context, *args).await,
        VmCommand::Life(command) => life::life(context, command).await,
        VmCommand::Snapshots(command) => snapshots::run(context, command).await,
        VmCommand::Commit { vm, name } => sources::commit(context, &vm, &name).await,
        VmCommand::Publish { vm, ports } => {
            let proxy = find(context, &vm).await?;
            for one in &ports {
                context.signals.guard(proxy.publish(&port(one), &bus::none())).await?;
            }
            Ok(())
        }
        VmCommand::Unpublish { vm, ports } => {
            let proxy = find(context, &vm).await?;
            for one in &ports {
                context.signals.guard(proxy.unpublish(&port(one), &bus::none())).await?;
            }
            Ok(())
        }
        VmCommand::Ls(format) => list(context, format.format).await,
        VmCommand::Show { vm, format } => show(context, &vm, format.format).await,
        VmCommand::Console { vm } => {
            let proxy = find(context, &vm).await?;
            let stream = context.signals.guard(proxy.open_console(&bus::none())).await?;
            console::talk(context, &vm, stream.into()).await
        }
        VmCommand::Ports { vm, format } => stats::ports(context, &vm, format.format).await,
        VmCommand::Connect { vm, port } => stats::connect(context, &vm, port).await,
    }
}

/// The VM of this name, id or prefix of an id.
///
/// # Errors
/// [`Error::Bus`] if there is none.
pub async fn find(context: &mut Context, name: &str) -> Result<banger_dbus::VMProxy<'static>, Error> {
    let connection = context.connection.clone();
    context.signals.guard(bus::find_vm(&connection, name)).await
}

async fn create(context: &mut Context, mut args: CreateArgs) -> Result<(), Error> {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let options = args
        .life
        .options(args.machine.options(args.image))
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

/// What a list tells of each VM, by name.
///
/// # Errors
/// [`Error`] if it could not be asked for.
pub async fn summaries(context: &mut Context) -> Result<Vec<VmSummary>, Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_vms(&bus::none())).await?;
    let mut vms =
        listed.into_iter().map(|(_, dict)| VmSummary::from_dict(dict)).collect::<Result<Vec<_>, _>>()?;
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(vms)
}

/// Writes a list of VMs; as JSON with all that is known of each.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn list(context: &mut Context, format: Format) -> Result<(), Error> {
    if format == Format::Json {
        let details = DictWriter::new().with("details", true).done();
        let manager = context.manager().await?;
        let listed = context.signals.guard(manager.list_vms(&details)).await?;
        let mut vms =
            listed.into_iter().map(|(_, dict)| VmInfo::from_dict(dict)).collect::<Result<Vec<_>, _>>()?;
        vms.sort_by(|a, b| a.name.cmp(&b.name));
        return output::print_json(&vms);
    }
    let vms = summaries(context).await?;
    let row = |vm: &VmSummary| {
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
        ("disk", format!("{}, {} used, by {}", vm.disk, vm.disk_used, vm.disk_backend)),
        ("volumes", output::list(&vm.volumes)),
        ("addresses", output::list(&vm.addresses)),
        ("network", if vm.nat { format!("{}, reaches other networks", vm.network) } else { vm.network }),
        ("machine", output::list(&machine)),
        ("owner", vm.owner_uid.to_string()),
        ("created", output::ago(vm.created)),
    ];
    facts.extend(vm.ports.into_iter().map(|port| ("port", shown(port))));
    facts.extend(vm.started.map(|time| ("started", output::ago(time))));
    facts.extend(vm.uptime.map(|seconds| ("uptime", length(seconds))));
    facts.extend((!vm.boot.is_empty()).then(|| ("boot", boot(&vm.boot))));
    facts.extend(vm.listening.filter(|list| !list.is_empty()).map(|list| ("listening", output::list(&list))));
    let exit = vm.exit_code.map(|code| format!("code {code}"));
    let exit = exit.or(vm.exit_signal.map(|signal| format!("signal {signal}")));
    facts.extend(exit.map(|exit| ("main process ended", exit)));
    facts.extend(vm.autostart.then(|| ("autostart", "with the host".to_owned())));
    facts.extend((!matches!(vm.restart.as_str(), "" | "no")).then_some(("restart", vm.restart)));
    facts.extend(
        (vm.idle_stop > 0).then(|| ("idle", format!("stopped after {}", length(vm.idle_stop.into())))),
    );
    facts.extend(vm.pid.map(|pid| ("process", pid.to_string())));
    facts.extend(vm.remove.then(|| ("afterwards", "deleted when it stops".to_owned())));
    facts.extend(vm.error.map(|error| ("error", error)));
    output::print(&output::facts(&facts))
}

/// The phases of a boot, each with the time since the guest's kernel started.
fn boot(phases: &[(String, u32)]) -> String {
    let phases: Vec<String> = phases.iter().map(|(name, ms)| format!("{name} {ms} ms")).collect();
    phases.join(", ")
}

/// `2 h 5 min`, `5 min 7 s` or `7 s`.
fn length(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A port as it is written on the command line.
fn shown((address, host, guest, protocol): Port) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{host}:{guest}/{protocol}"),
        false => format!("{address}:{host}:{guest}/{protocol}"),
    }
}
