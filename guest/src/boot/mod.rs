//! `/init`: from the kernel's start to the image's own init, or ours.
//!
//! The image's disk gets nothing of ours: the agent and what it needs are in `/run/banger`, a tmpfs.

mod files;
mod image_init;
mod modules;
mod mounts;
mod netlink;
mod network;
mod report;
mod root;
mod switch;
mod systemd;

use crate::{SELF, SETTINGS, pid1, power, spawn::DESCRIPTORS};
use banger_guest::Settings;
pub use files::rewrite as rewrite_files;
pub use network::change as change_network;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::resource::{Resource, setrlimit},
    unistd::sethostname,
};
pub use report::Report;
use std::{
    convert::Infallible,
    ffi::OsString,
    fmt, fs, io,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::Command,
};

/// Where the new root is mounted until it becomes the root.
const NEW_ROOT: &str = "/newroot";

/// What keeps a guest from coming up.
#[derive(Debug)]
pub struct Failure {
    doing: String,
    error: io::Error,
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| Failure { doing: what.to_string(), error: e.into() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.error)
    }
}

/// Brings the guest up and becomes its init. A guest that cannot come up says why on its console, in one
/// line, and powers itself off.
pub fn run() -> io::Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("banger-guest: this guest does not boot: {panic}; powering off");
        power::off_at_once()
    }));
    let mut report = Report::default();
    let Err(failure) = boot(&mut report);
    eprintln!("banger-guest: this guest does not boot: {failure}; powering off");
    power::off()
}

fn boot(report: &mut Report) -> Result<Infallible, Failure> {
    report.phase("kernel");
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount_new(kind, target, MsFlags::MS_NOSUID, "")?;
    }
    let text = fs::read("/settings.json").doing("reading /settings.json")?;
    let settings = Settings::from_json(&text).map_err(io::Error::other).doing("reading /settings.json")?;
    modules::load(report);
    report.phase("initramfs");
    root::mount(&settings.root, NEW_ROOT, report)?;
    report.phase("root");
    let _ = sethostname(&settings.hostname);
    network::set_up(settings.network.as_ref(), report);
    report.phase("network");
    prepare(&settings, &text, report)?;
    let init = image_init::find(Path::new(NEW_ROOT), settings.init).doing("looking for the image's init")?;
    report.has_init = init.is_some();
    switch::switch_root(NEW_ROOT).doing("changing to the new root")?;
    mounts::mount(&settings.mounts, report);
    report.phase("init");
    report.store().doing("writing the boot report")?;
    limits();
    // The agent comes first: once an image's init runs, every process is its business.
    let agent = pid1::start_agent().doing("starting the agent")?;
    match init {
        Some(init) => become_init(&init, &[]),
        None => become_init(Path::new(SELF), &["init", &agent.to_string()]),
    }
}

/// Makes everything in the new root that a program expects from a running system.
fn prepare(settings: &Settings, text: &[u8], report: &mut Report) -> Result<(), Failure> {
    let inside = |path: &str| format!("{NEW_ROOT}{path}");
    for target in ["/proc", "/sys", "/dev"] {
        // An image made from scratch has none of these.
        let _ = fs::create_dir(inside(target));
        let none: Option<&str> = None;
        mount(Some(target), inside(target).as_str(), none, MsFlags::MS_MOVE, none)
            .doing(format!("moving {target}"))?;
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_new("tmpfs", &inside("/run"), safe, "mode=755,size=20%")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("devpts", &inside("/dev/pts"), quiet, "gid=5,mode=620,ptmxmode=666")?;
    mount_new("tmpfs", &inside("/dev/shm"), safe, "mode=1777")?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = symlink(target, inside(link));
    }
    fs::create_dir(inside("/run/banger")).doing("making /run/banger")?;
    fs::copy("/init", inside(SELF)).doing("copying the agent")?;
    fs::write(inside(SETTINGS), text).doing("copying the settings")?;
    files::write(settings, Path::new(NEW_ROOT), report);
    systemd::prepare(settings, Path::new(NEW_ROOT), report);
    Ok(())
}

/// Mounts a kernel filesystem, on a folder that is made if need be.
fn mount_new(kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<(), Failure> {
    let _ = fs::create_dir(target);
    match mount(Some(kind), target, Some(kind), flags, Some(options)) {
        // The kernel may have done it itself.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(e) => Err(e).doing(format!("mounting {kind} on {target}")),
    }
}

/// What systemd gives its services too: a soft limit that select(2) can bear and a hard one to raise it to.
fn limits() {
    let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, 512 << 10);
}

fn become_init(init: &Path, arguments: &[&str]) -> Result<Infallible, Failure> {
    let mut command = Command::new(init);
    command.args(arguments).env_clear();
    for name in ["TERM", "LANG"] {
        command.envs(std::env::var_os(name).map(|value| (OsString::from(name), value)));
    }
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Err(command.exec()).doing(format!("starting {}", init.display()))
}
