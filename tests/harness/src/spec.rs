//! What a private host is made of: the specification that is handed from the outside to its init.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// uid and gid of the service's user, unless the machine has a user `banger` already.
pub const BANGER_UID: u32 = 61_500;
/// A user who counts as being in an active local session.
pub const ALICE_UID: u32 = 61_501;
/// A user who does not.
pub const BOB_UID: u32 = 61_502;

/// Where the registry of the private host listens.
pub const REGISTRY: &str = "127.0.0.1:5080";

/// The address of the private host's system bus: the standard one.
pub const BUS_ADDRESS: &str = "unix:path=/run/dbus/system_bus_socket";

/// A private host, and the command that runs in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What is put where a package would put it: installed path, and the file that goes there.
    pub install: BTreeMap<PathBuf, PathBuf>,
    /// Where the service's state, the registry's storage and the logs are. Removed at the end when temporary.
    pub state: PathBuf,
    /// Whether `state` is removed at the end.
    pub temporary: bool,
    /// Whether bus, registry and command keep the machine's network.
    pub net: bool,
    /// Text of `/etc/banger/config.toml`; none is written when empty.
    pub config: String,
    /// Who runs the command.
    pub user: User,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The working folder of the command.
    pub cwd: PathBuf,
    /// Where the report goes, as JSON.
    pub report: PathBuf,
}

/// A user of the private host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum User {
    /// The superuser.
    Root,
    /// A user of the machine or of the harness, by name.
    Name(String),
    /// A user of the machine or of the harness, by uid.
    Uid(u32),
}

/// How it went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The command's exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// What was looked for after the end, and what was found of each kind.
    pub leaks: BTreeMap<String, Vec<String>>,
    /// How long the host took to come up, in milliseconds.
    pub setup_ms: u64,
    /// How long it took to be taken down and checked, in milliseconds.
    pub teardown_ms: u64,
}

impl Report {
    /// Whether everything is gone.
    pub fn is_clean(&self) -> bool {
        self.leaks.values().all(Vec::is_empty)
    }
}

impl std::str::FromStr for User {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match (text, text.parse()) {
            ("root", _) | (_, Ok(0)) => User::Root,
            (_, Ok(uid)) => User::Uid(uid),
            (name, Err(_)) => User::Name(name.to_owned()),
        })
    }
}
