//! The first process of the private host: makes it, runs the command, takes it down, reports.

use crate::{
    bus,
    error::{Doing, HarnessError, Result},
    hostd,
    inside::STATE_VARIABLE,
    launch::Place,
    leaks, mounts, polkit, registry,
    spec::{Report, Spec, User},
    supervise::{Supervisor, output},
    users,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The argument that makes the executable take this role.
pub const ROLE: &str = "__init";

/// Where the machine's own network namespace is kept for those who may use it.
const MACHINES_NETWORK: &str = "/run/.host/network";

/// How long the kernel may take to let go of what the last process held.
const SETTLE: Duration = Duration::from_secs(5);

/// What is left of each kind.
type Leaks = BTreeMap<String, Vec<String>>;

/// The private host while it runs.
struct Host {
    supervisor: Supervisor,
    spec: Spec,
    /// uid of the service's user.
    banger: u32,
    /// Mount points before any VM ran.
    mounts: BTreeSet<PathBuf>,
}

/// Makes the host that the specification in the file `args[0]` describes, and runs its command in it.
///
/// # Errors
/// [`HarnessError`] says what could not be made.
pub fn main(args: &[String]) -> Result<()> {
    let spec = read_spec(args.first().map(String::as_str).unwrap_or_default())?;
    // The whole host ends with its outer process.
    prctl::set_pdeathsig(Signal::SIGKILL).doing("ask to end with the parent")?;
    if std::process::id() != 1 {
        return Err(HarnessError::Missing("init must be the first process of its pid namespace".into()));
    }
    let report = spec.report.clone();
    let (state, temporary) = (spec.state.clone(), spec.temporary);
    let began = Instant::now();
    let outcome = Host::make(spec).and_then(|mut host| {
        let setup_ms = elapsed(began);
        let code = host.run();
        let ending = Instant::now();
        let leaks = host.take_down()?;
        Ok(Report { code: code?, leaks, setup_ms, teardown_ms: elapsed(ending) })
    });
    if temporary {
        fs::remove_dir_all(&state).doing(format!("remove {}", state.display()))?;
    }
    let text =
        serde_json::to_string(&outcome?).map_err(std::io::Error::from).doing("describe the outcome")?;
    fs::write(&report, text).doing(format!("write {}", report.display()))
}

/// Reads a specification.
///
/// # Errors
/// [`HarnessError::Io`] when the file is missing or is none.
pub fn read_spec(path: &str) -> Result<Spec> {
    let text = fs::read_to_string(path).doing(format!("read {path:?}"))?;
    serde_json::from_str(&text).map_err(std::io::Error::from).doing(format!("understand {path}"))
}

impl Host {
    fn make(spec: Spec) -> Result<Host> {
        let network = fs::File::open("/proc/self/ns/net").doing("open the network namespace")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).doing("make namespaces")?;
        mounts::make_private()?;
        mounts::keep_namespace(&network, Path::new(MACHINES_NETWORK))?;
        output(Command::new("/usr/sbin/ip").args(["link", "set", "lo", "up"]))?;

        users::add()?;
        let banger = users::account(&User::Name("banger".into()))?;
        lay_out_state(&spec, banger.uid, banger.gid)?;
        for (target, source) in &spec.install {
            mounts::bind(source, target)?;
        }
        if !spec.config.is_empty() {
            mounts::write(Path::new("/etc/banger/config.toml"), &spec.config, 0o644)?;
        }
        let user = users::account(&spec.user)?;
        let policy = Path::new("/usr/share/polkit-1/actions/org.banger.manager.policy");
        let mut active = vec!["alice"];
        active.extend(Some(user.name.as_str()).filter(|name| !["root", "bob"].contains(name)));
        polkit::add_rule(policy, &active)?;

        let mut supervisor = Supervisor::new(spec.state.join("logs"))?;
        let place =
            Place { session: true, network: spec.net.then(|| MACHINES_NETWORK.into()), ..Place::default() };
        bus::start(&mut supervisor, &place)?;
        bus::activate(&supervisor, "polkitd", "org.freedesktop.PolicyKit1")?;
        hostd::start(&mut supervisor, &banger)?;
        registry::start(&mut supervisor, &place, &spec.state)?;
        let mounts = leaks::mounts_before()?;
        bus::activate(&supervisor, "bangerd", "org.banger.Manager")?;
        Ok(Host { supervisor, banger: banger.uid, mounts, spec })
    }

    /// Runs the command with the terminal of the caller.
    fn run(&mut self) -> Result<i32> {
        let account = users::account(&self.spec.user)?;
        let place = Place {
            network: self.spec.net.then(|| MACHINES_NETWORK.into()),
            user: (account.uid != 0).then_some(account),
            ..Place::default()
        };
        let mut command = place.command(&self.spec.command)?;
        command.stdin(Stdio::inherit()).current_dir(&self.spec.cwd).env(STATE_VARIABLE, &self.spec.state);
        self.supervisor.run(command)
    }

    /// Ends VMs and services and looks for what is left.
    fn take_down(&mut self) -> Result<Leaks> {
        let known = leaks::known_vms();
        // VMs first, while banger-hostd is there to see them end and to clean up after them.
        self.end(|process| process.is_vm())?;
        if self
            .settle(&known, &["loop devices", "TAP devices", "runtime folders"])?
            .values()
            .any(|l| !l.is_empty())
        {
            // A bangerd that was killed tells the helper nothing; one that starts reconciles. If it does not
            // start either, what it leaves shows below.
            let _ = bus::activate(&self.supervisor, "bangerd", "org.banger.Manager");
        }
        // What the bus has activated is not our child. polkitd ends with the bus.
        self.end(|process| process.name == "bangerd")?;
        for name in [hostd::NAME, "registry", "bus"] {
            self.supervisor.stop(name)?;
        }
        let leaks = self.settle(&known, leaks::KINDS)?;
        self.end(|_| true)?;
        Ok(leaks)
    }

    fn end(&mut self, which: impl Fn(&leaks::Process) -> bool) -> Result<()> {
        let wanted: Vec<_> =
            leaks::processes()?.into_iter().filter(which).map(|process| process.pid).collect();
        self.supervisor.end(&wanted)
    }

    /// Looks until nothing of these kinds is left, or the time is over. The kernel detaches a loop device and
    /// takes a network device away some time after their last user has closed them, and tells nobody.
    fn settle(&mut self, known: &Result<BTreeSet<String>>, kinds: &[&str]) -> Result<Leaks> {
        let until = Instant::now() + SETTLE;
        let none = BTreeSet::new();
        loop {
            let mut leaks = leaks::look(&self.mounts, known.as_ref().unwrap_or(&none), self.banger)?;
            leaks.retain(|kind, _| kinds.contains(&kind.as_str()));
            if leaks.values().all(Vec::is_empty) || Instant::now() > until {
                if let (Err(error), Some(list)) = (known, leaks.get_mut("VM folders")) {
                    list.push(format!("could not be told from known ones: {error}"));
                }
                return Ok(leaks);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The service's folder, the registry's and the logs, and the first shown where the service expects it.
fn lay_out_state(spec: &Spec, uid: u32, gid: u32) -> Result<()> {
    for (name, mode) in [("banger", 0o700), ("registry", 0o755), ("logs", 0o755)] {
        mounts::make_dir(&spec.state.join(name), mode)?;
    }
    let own = spec.state.join("banger");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).doing("close the state folder")?;
    chown(&own, Some(uid), Some(gid)).doing("give the state folder to the service")?;
    mounts::bind(&own, Path::new(leaks::STATE))
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
