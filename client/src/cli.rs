//! The command line: words, flags and the help that teaches them.

use crate::{
    commands::{
        events::EventsArgs, exec::ExecArgs, image::ImageCommand, job::JobCommand, kernel::KernelCommand,
        life::LifeCommand, run::RunArgs, system::SystemCommand, vm::VmCommand, volume::VolumeCommand,
    },
    output::Format,
};
use banger_dbus::{
    DictWriter, Port,
    model::{Bytes, NetworkMode, PublishedPort},
};
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  banger run debian -- cat /etc/os-release    run a command in a new VM
  banger run --rm -it debian bash             a shell, and nothing is left afterwards
  banger run -d --name web -e PORT=80 nginx   a VM in the background
  banger exec web -- nginx -t                 run a command in a VM that runs
  banger vm ls                                what runs
  banger vm rm --force web                    away with it

Exit codes: the command's own (128+n if signal n ended it); 125 if banger failed, 126 if the command
cannot be executed, 127 if there is no such command.";

/// Runs any OCI image as a virtual machine: as quick as a container, without sudo.
#[derive(Debug, Parser)]
#[command(name = "banger", version, after_help = EXAMPLES, max_term_width = 100, disable_version_flag = true)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Say nothing but results and errors: no progress, no hints.
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Show errors with their D-Bus names.
    #[arg(long, global = true)]
    pub verbose: bool,

    /// As --verbose, before the command.
    #[arg(short = 'v', hide = true)]
    pub verbose_short: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a new VM: pull the image if needed, create, start, attach.
    Run(RunArgs),
    /// Run a command in a VM that runs.
    Exec(ExecArgs),
    /// Images: pull, list, show, name, share, remove, prune, export.
    #[command(subcommand, visible_alias = "images")]
    Image(ImageCommand),
    /// Kernels: pull, import, list, show, choose the default, remove.
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// VMs: create, start, stop, list, show, console, logs, remove.
    #[command(subcommand)]
    Vm(VmCommand),
    /// List VMs; the same as `vm ls`.
    Ps(#[command(flatten)] FormatArgs),
    /// What `vm` has, in one word.
    #[command(flatten)]
    Life(LifeCommand),
    /// Show what happens to images, VMs and jobs, as it happens.
    Events(EventsArgs),
    /// Volumes, disks that stay when a VM goes: create, list, show, remove, prune.
    #[command(subcommand, visible_alias = "volumes")]
    Volume(VolumeCommand),
    /// Jobs, which is all that takes long: list, watch, cancel.
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at what this host can do for VMs, and say what to do about it. Exits with 1 when something does not work.
    Doctor(FormatArgs),
    /// The host as a whole: disk usage.
    #[command(subcommand)]
    System(SystemCommand),
    /// Show the versions of client and service.
    Version,
    /// Write a completion script for a shell to standard output.
    #[command(
        after_help = "Example:\n  banger completion bash > ~/.local/share/bash-completion/completions/banger"
    )]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a folder: for those who make packages.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: std::path::PathBuf,
    },
}

/// How a listing is written.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormatArgs {
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The size and kernel of a VM.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// Virtual CPUs.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory, such as 512M or 2G (powers of 1024).
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Size of the root disk, such as 10G; the filesystem grows to fill it.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Bytes>,
    /// The kernel, by name; see `banger kernel ls`.
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<String>,
    /// What runs it: auto, qemu or firecracker.
    #[arg(long, value_name = "VMM")]
    pub vmm: Option<String>,
    /// The most bytes in a second that its disks read and write, such as 50M.
    #[arg(long, value_name = "SIZE")]
    pub disk_bytes_per_second: Option<Bytes>,
    /// The most bytes in a second that it sends, and as many that it receives; needs Firecracker.
    #[arg(long, value_name = "SIZE")]
    pub network_bytes_per_second: Option<Bytes>,
    /// What it may on the network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Have a volume at a path; it is made if it is not there. May be repeated.
    #[arg(short, long = "volume", value_name = "NAME:/PATH[:ro]")]
    pub volumes: Vec<VolumeArg>,
    /// Have a volume called after the VM at /root, which stays when the VM goes.
    #[arg(long)]
    pub work_disk: bool,
}

/// What a VM may on the network.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Let it reach other networks, with this host's addresses.
    #[arg(long)]
    pub nat: bool,
    /// Let it reach other VMs: "shared" with those that are shared too, "private" with none.
    #[arg(long, value_name = "MODE")]
    pub network: Option<NetworkMode>,
    /// Make a port of it reachable on this host, or with an address of this host's from elsewhere. May be repeated.
    #[arg(short, long, value_name = "[ADDRESS:]HOST:GUEST[/udp]")]
    pub publish: Vec<PublishedPort>,
}

impl NetworkArgs {
    /// The options of CreateVM for it.
    pub fn options(&self, options: DictWriter) -> DictWriter {
        let ports = (!self.publish.is_empty()).then(|| self.publish.iter().map(port).collect::<Vec<_>>());
        options
            .with_some("nat", self.nat.then_some(true))
            .with_some("network", self.network.map(|mode| mode.to_string()))
            .with_some("ports", ports)
    }
}

/// A port as it travels.
pub fn port(port: &PublishedPort) -> Port {
    (port.address.to_string(), port.host, port.guest, port.protocol.as_str().to_owned())
}

/// A volume at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeArg {
    /// The volume's name.
    pub name: String,
    /// Where in the guest.
    pub path: String,
    /// Whether the guest only reads it.
    pub read_only: bool,
}

impl std::str::FromStr for VolumeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not NAME:/PATH or NAME:/PATH:ro");
        let (name, rest) = text.split_once(':').ok_or_else(wrong)?;
        if name.starts_with(['/', '.', '~']) {
            return Err(format!(
                "{name:?} is a folder of the host, which a VM cannot have: give a volume's name"
            ));
        }
        let (path, read_only) = match rest.rsplit_once(':') {
            None => (rest, false),
            Some((path, "rw")) => (path, false),
            Some((path, "ro")) => (path, true),
            Some(_) => return Err(wrong()),
        };
        if name.is_empty() || !path.starts_with('/') {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned(), read_only })
    }
}

/// How a command in a guest is run.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Set a variable; NAME alone passes on its value here. May be repeated.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// The user, as NAME, UID, NAME:GROUP or UID:GID.
    #[arg(short, long)]
    pub user: Option<String>,
    /// The working folder.
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
}

/// How a command in a guest is attached.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Pass standard input on; without it the command reads an empty one.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal; with -i for a shell.
    #[arg(short, long)]
    pub tty: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(words.split_whitespace()).map(|cli| cli.command)
    }

    fn run(words: &str) -> RunArgs {
        match parse(words) {
            Ok(Command::Run(run)) => run,
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_needs_no_dashes_before_it() {
        for words in ["banger run --rm IMAGE -- ls -l -- x", "banger run --rm IMAGE ls -l -- x"] {
            let run = run(words);
            assert!(run.rm && run.image == "IMAGE", "{words}");
            assert_eq!(run.command, ["ls", "-l", "--", "x"], "{words}");
        }
        assert_eq!(run("banger run IMAGE -- --rm").command, ["--rm"]);
        assert!(run("banger run IMAGE").command.is_empty());
        assert_eq!(run("banger run IMAGE sh -q --verbose").command, ["sh", "-q", "--verbose"]);
    }

    #[test]
    fn volumes_have_a_name_and_a_path() {
        let volume = |text: &str| text.parse::<VolumeArg>().map(|v| (v.name, v.path, v.read_only));
        assert_eq!(volume("data:/srv"), Ok(("data".into(), "/srv".into(), false)));
        assert_eq!(volume("data:/srv:rw"), Ok(("data".into(), "/srv".into(), false)));
        assert_eq!(volume("data:/a:b:ro"), Ok(("data".into(), "/a:b".into(), true)));
        for wrong in
            ["", "data", "data:", "data:srv", ":/srv", "data:/srv:rx", "/home:/srv", "./x:/srv", "~/x:/srv"]
        {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
        let run = run("banger run -v a:/a -v b:/b:ro --work-disk IMAGE");
        assert_eq!((run.machine.volumes.len(), run.machine.work_disk), (2, true));
    }

    #[test]
    fn flags_are_podmans() {
        let run =
            run("banger run -dit --name web --cpus 2 -m 512M --disk 10G -e A=1 -e B -u me -w /srv IMAGE");
        assert!(run.detach && run.stream.interactive && run.stream.tty);
        assert_eq!((run.machine.cpus, run.machine.memory), (Some(2), Some(Bytes::mib(512))));
        assert_eq!(run.machine.disk, Some(Bytes::gib(10)));
        assert_eq!(run.process.env, ["A=1", "B"]);
        assert_eq!(run.name.as_deref(), Some("web"));
    }

    #[test]
    fn everything_that_the_issue_spells_is_understood() {
        for words in [
            "banger image pull REF --name N --size 2G --platform linux/amd64",
            "banger image ls --format json",
            "banger image show N --format json",
            "banger image rm A B",
            "banger image prune --all --yes",
            "banger image prune --dry-run",
            "banger image export N --output FILE",
            "banger image export N --output -",
            "banger image export N --output FILE --format oci",
            "banger image import PATH --name N --format oci --select REF --platform linux/amd64 --size 2G",
            "banger image import - --format rootfs --entrypoint /e --cmd -x --env A=b --user me --workdir /w",
            "banger image register --name N --rootfs FILE --kernel FILE --initrd FILE --modules DIR",
            "banger image register --name N --rootfs FILE --kernel-name K",
            "banger image promote N",
            "banger vm commit VM N",
            "banger kernel import --kernel FILE --initrd FILE --modules DIR NAME",
            "banger kernel import --package FILE --package FILE NAME",
            "banger kernel import FILE.deb NAME",
            "banger kernel pull N --name M",
            "banger kernel catalogue --format json",
            "banger kernel show N",
            "banger kernel default",
            "banger kernel default N",
            "banger kernel default --unset",
            "banger image catalogue",
            "banger image pull N --source catalogue",
            "banger kernel ls",
            "banger kernel rm N",
            "banger vm create --image I --name N",
            "banger vm create --image I -- sleep 9",
            "banger vm create --image I --nat --network shared -p 8080:80 -p 0.0.0.0:53:53/udp",
            "banger run --nat -p [::]:8080:80 I",
            "banger vm publish N 8080:80",
            "banger vm unpublish N 127.0.0.1:8080:80/tcp",
            "banger vm start N",
            "banger vm stop --timeout 3 --force N",
            "banger vm restart N",
            "banger vm kill N",
            "banger kill -s TERM A B",
            "banger start A B",
            "banger stop --time 3 N",
            "banger restart -t 3 N",
            "banger pause A",
            "banger unpause A",
            "banger wait A",
            "banger rm -f A",
            "banger ps --format json",
            "banger logs -f -n 10 N",
            "banger logs --tail 10 N",
            "banger stats --no-stream --format json",
            "banger vm top A",
            "banger rename A B",
            "banger set --cpus 2 --memory 1G --disk 9G --restart on-failure --autostart --idle-stop 10m N",
            "banger update --autostart=false N",
            "banger vm ports N",
            "banger vm connect N 80",
            "banger events --format json",
            "banger run -d --restart always --autostart --idle-stop 0 I",
            "banger vm pause A B",
            "banger vm resume A B",
            "banger vm unpause A",
            "banger vm snapshot N S",
            "banger vm snapshots N --format json",
            "banger vm snapshot-rm N S T",
            "banger vm restore N S",
            "banger vm fork N M --snapshot S",
            "banger vm create --image I --vmm firecracker --disk-bytes-per-second 10M",
            "banger vm rm --force A B",
            "banger vm ls --format json",
            "banger vm show N",
            "banger vm console N",
            "banger vm logs N",
            "banger exec -it -e A=1 -u me -w / N -- sh -c x",
            "banger exec N true",
            "banger job ls",
            "banger job watch",
            "banger job watch ID",
            "banger job cancel ID",
            "banger version",
            "banger completion bash",
            "banger -v version",
            "banger --quiet image ls",
        ] {
            assert!(parse(words).is_ok(), "{words}: {:?}", parse(words).err());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            "banger run",
            "banger run --memory x I",
            "banger run -p 80 I",
            "banger run --network host I",
            "banger exec N",
            "banger vm rm",
            "banger frobnicate",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
