//! `banger-hostd`, the privileged helper.
//!
//! It serves one user, over one socket: [`serve`] says who may talk, [`verbs`] checks and carries out what
//! is asked, [`system`] is what it does to the machine, and [`exec_vm`] how a VM's process loses its
//! privileges. It holds no state that it cannot find again: devices go with their last user, and each VM's
//! process is written down in its run folder.

mod descriptor;
mod devices;
mod disks;
mod dm;
mod exec_vm;
mod fault;
mod find_again;
mod folder;
mod held;
mod ioctl;
mod lend;
mod listen;
mod names;
mod net;
mod place;
mod process;
mod record;
mod refused;
mod resolver;
mod scope;
mod serve;
mod strays;
mod system;
mod tsc;
mod turns;
mod usage;
mod verbs;

use clap::Parser;
use disks::Images;
use folder::Owner;
use listen::Listener;
use net::Network;
use resolver::Resolver;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serve::Server;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use system::Machine;
use verbs::Verbs;

/// The run folder of the one helper of a host. Tests have others, in other folders.
const RUN: &str = "/run/banger";

/// How long verbs under way may take when this ends.
const LAST_VERBS: Duration = Duration::from_secs(20);

/// The privileged helper of banger: loop devices, TAPs and VM processes, for bangerd alone.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where the socket and the VMs' run folders are
    #[arg(long, value_name = "DIR", default_value = RUN)]
    run: PathBuf,
    /// Where the host's kernels are
    #[arg(long, value_name = "DIR", default_value = "/boot")]
    boot: PathBuf,
    /// Who is served: a user's name or number
    #[arg(long, value_name = "USER", default_value = "banger")]
    peer: String,
    /// For how many seconds the bridge stays when the last VM has gone
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    linger: u64,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == exec_vm::ARGUMENT) {
        return exec_vm::main();
    }
    let activated = listen::activated();
    let flags = Flags::parse();
    if let Err(error) = banger_systemd::init_logging("info") {
        eprintln!("banger-hostd: {error}");
        return ExitCode::FAILURE;
    }
    match activated.and_then(|listener| run(&flags, listener)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "banger-hostd cannot run");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, activated: Option<Listener>) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("banger-hostd has to run as root"));
    }
    // What this process inherited is nothing for its children; what it opens itself never is.
    ioctl::close_all_on_exec()?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    // Each VM and each connection takes a few descriptors; the usual limit is there for programs with select(2).
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let peer = find_user(&flags.peer)?;
    // Before anything that takes time, so that no signal finds its default.
    let (stop, stopped) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, stopped.try_clone()?)?;
    }
    let _only_one = listen::run_folder(&flags.run)?;
    #[cfg(feature = "faults")]
    fault::listened::at(&flags.run);
    let vms = flags.run.join("vm");
    let boot =
        rustix::fs::open(&flags.boot, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io::Error::other(format!("{}: {error}", flags.boot.display())))?;
    let resolver = Arc::new(Resolver::start()?);
    let network = Network::new(flags.run.join("network.json"), Duration::from_secs(flags.linger))?;
    let machine = Machine {
        vms: vms.clone(),
        boot,
        owner: peer,
        images: Images::default(),
        resolver: Arc::clone(&resolver),
        network: Arc::clone(&network),
    };
    let verbs = Verbs::new(machine, peer.uid);
    dm::sweep();
    let living = find_again::find_again(&vms, &verbs, flags.run == Path::new(RUN))?;
    // Without a network VMs still run, and can be stopped.
    if let Err(error) = network.find_again(&living) {
        tracing::error!(%error, "the VMs' network is not as it has to be");
    }
    net::watch(&network)?;
    let listener = match activated {
        Some(listener) => listener,
        None => listen::bound(&flags.run, peer)?,
    };
    // Measured now, so that the first VM need not wait for it.
    tsc::khz();
    let notifier = banger_systemd::Notifier::from_env();
    notifier.ready("listening");
    tracing::info!(run = %flags.run.display(), peer = peer.uid, "listening");
    accept_until(&stop, &listener, &Server::new(verbs, peer.uid))?;
    notifier.stopping();
    resolver.stop();
    if let Err(error) = network.end() {
        tracing::error!(%error, "the VMs' network was not removed");
    }
    listener.remove()
}

/// A user by name or by number. A number that nobody has stands for a group of the same number.
fn find_user(user: &str) -> io::Result<Owner> {
    use nix::unistd::{Uid, User};
    let number = user.parse::<u32>().ok();
    let found = match number {
        Some(uid) => User::from_uid(Uid::from_raw(uid))?,
        None => User::from_name(user)?,
    };
    match (found, number) {
        (Some(user), _) => Ok(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        (None, Some(number)) => Ok(Owner { uid: number, gid: number }),
        (None, None) => Err(io::Error::other(format!("there is no user {user}: make it, or give --peer"))),
    }
}

/// Serves connections until `stop` can be read. VMs go on when this ends.
fn accept_until(stop: &UnixStream, listener: &Listener, server: &Arc<Server<Machine>>) -> io::Result<()> {
    loop {
        let mut wanted = [
            PollFd::new(stop, PollFlags::IN),
            PollFd::from_borrowed_fd(listener.socket.as_fd(), PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !wanted[0].revents().is_empty() {
            break;
        }
        match accept_with(&listener.socket, SocketFlags::CLOEXEC) {
            Ok(socket) => server.serve(socket),
            // The caller is gone again, or there are too few descriptors, which takes a moment to change.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    tracing::info!("ending; VMs go on");
    if !server.await_quiet(LAST_VERBS) {
        tracing::warn!("ended in the middle of a verb");
    }
    Ok(())
}
