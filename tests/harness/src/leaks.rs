//! What a host must not keep once every VM has ended: looked for, kind by kind.

use crate::{
    error::{Doing, Result},
    mounts,
    supervise::output,
};
use banger_model::Slot;
use nix::unistd::Pid;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The service's folder as it is seen inside.
pub const STATE: &str = "/var/lib/banger";
const RUNTIME: &str = "/run/banger/vm";
const CLIENT: &str = "/usr/bin/banger";

/// The VMs' bridge, and TAPs that are nobody's: while the helper runs it keeps them for a while.
pub const NETWORK: &str = "network devices";

/// The tables of nftables, which the helper keeps as long.
pub const TABLES: &str = "nftables tables";

/// Everything that is looked for.
pub const KINDS: &[&str] = &[
    "loop devices",
    "device-mapper devices",
    "TAP devices",
    NETWORK,
    TABLES,
    "processes",
    "mounts",
    "staging folders",
    "VM folders",
    "runtime folders",
];

/// A process of this host.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its pid in this host.
    pub pid: Pid,
    /// Its command's name, at most 15 bytes (proc_pid_comm(5)).
    pub name: String,
    /// Its user.
    pub uid: u32,
}

impl Process {
    /// Whether it is the process of a VM.
    pub fn is_vm(&self) -> bool {
        Slot::all().any(|slot| slot.uid() == self.uid)
    }

    /// Whether it belongs to banger: a VM, or one of our programs.
    pub fn is_ours(&self, banger: u32) -> bool {
        self.is_vm()
            || self.uid == banger
            || self.name.starts_with("banger")
            || self.name.starts_with("qemu-system")
    }
}

/// Every process of this host but init.
///
/// # Errors
/// [`crate::HarnessError::Io`] when `/proc` cannot be read.
pub fn processes() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").doing("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // One that ends while we look is none.
        let (Ok(meta), Ok(name)) = (entry.metadata(), fs::read_to_string(entry.path().join("comm"))) else {
            continue;
        };
        let is_zombie = fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        if pid != 1 && !is_zombie {
            all.push(Process { pid: Pid::from_raw(pid), name: name.trim().to_owned(), uid: meta.uid() });
        }
    }
    Ok(all)
}

/// The ids of the VMs that the service knows, asked through the client; none are asked for when no VM has a folder.
///
/// # Errors
/// [`crate::HarnessError::Program`] when the client fails.
pub fn known_vms() -> Result<BTreeSet<String>> {
    if folders(&Path::new(STATE).join("vms"), |_| true).is_empty() {
        return Ok(BTreeSet::new());
    }
    let listing = output(Command::new(CLIENT).args(["vm", "ls", "--format", "json"]))?;
    let value: serde_json::Value = serde_json::from_str(&listing)
        .map_err(std::io::Error::from)
        .doing("read `banger vm ls --format json`")?;
    Ok(value.as_array().into_iter().flatten().filter_map(|vm| vm["id"].as_str()).map(str::to_owned).collect())
}

/// The mount points that the host has before anything of banger runs.
///
/// # Errors
/// [`crate::HarnessError::Io`] when the mount table cannot be read.
pub fn mounts_before() -> Result<BTreeSet<PathBuf>> {
    Ok(mounts::mount_points()?.into_iter().collect())
}

/// Everything that is left, by kind; each kind is there, empty when nothing is left of it.
///
/// # Errors
/// [`crate::HarnessError::Io`] when something could not be looked at: "could not check" is not "clean".
pub fn look(
    mounts: &BTreeSet<PathBuf>,
    known: &BTreeSet<String>,
    banger: u32,
) -> Result<BTreeMap<String, Vec<String>>> {
    let state = Path::new(STATE);
    let ours = processes()?.into_iter().filter(|process| process.is_ours(banger));
    let left = [
        loop_devices()?,
        mapped_devices()?,
        interfaces(true)?.into_iter().filter(|name| name.starts_with("bngr")).collect(),
        interfaces(false)?,
        tables()?,
        ours.map(|process| format!("{} {} (uid {})", process.pid, process.name, process.uid)).collect(),
        mounts_before()?.difference(mounts).map(|path| path.display().to_string()).collect(),
        folders(&state.join("images"), |name| name.ends_with(".staging")),
        folders(&state.join("vms"), |name| !known.contains(name)),
        folders(Path::new(RUNTIME), |_| true),
    ];
    Ok(KINDS.iter().map(|kind| (*kind).to_owned()).zip(left).collect())
}

/// Loop devices are the whole machine's. Ours are those whose file was opened below the service's folder: in
/// another private host's namespace that path reads differently.
fn loop_devices() -> Result<Vec<String>> {
    let mut ours = Vec::new();
    for entry in fs::read_dir("/sys/block").doing("read /sys/block")?.flatten() {
        // Only an attached device has this file.
        let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        if file.starts_with(STATE) || file.starts_with("banger:") {
            ours.push(format!("{}: {}", entry.file_name().display(), file.trim()));
        }
    }
    Ok(ours)
}

/// Devices of device-mapper are the whole machine's; ours have our name.
fn mapped_devices() -> Result<Vec<String>> {
    let blocks = fs::read_dir("/sys/block").doing("read /sys/block")?.flatten();
    let names = blocks.filter_map(|entry| fs::read_to_string(entry.path().join("dm/name")).ok());
    Ok(names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("banger")).collect())
}

/// Our network devices; with `up`, only those that a VM uses.
fn interfaces(up: bool) -> Result<Vec<String>> {
    let mut command = Command::new("/usr/sbin/ip");
    command.args(["-o", "link", "show"]).args(up.then_some("up"));
    let text = output(&mut command)?;
    let names = text.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned);
    Ok(names.filter(|name| name.starts_with("bngr") || name == "banger0").collect())
}

fn tables() -> Result<Vec<String>> {
    let nft = Path::new("/usr/sbin/nft");
    if !nft.exists() {
        // Without the program nothing of ours can have made a table.
        return Ok(Vec::new());
    }
    Ok(output(Command::new(nft).args(["list", "tables"]))?.lines().map(str::to_owned).collect())
}

fn folders(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_none_or(&wanted));
    named.map(|entry| entry.path().display().to_string()).collect()
}
