//! `cargo xtask dev -- CMD…`: a command on a private host.

use crate::{
    cargo::{self, Profile},
    host::{self, Accel, Needs},
    packages::{self, Purpose},
};
use anyhow::Result;
use banger_harness::User;
use std::{path::PathBuf, process::ExitCode};

/// See the command's own help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keep images, VMs, the registry and logs in this folder, and find them there again next time
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Let the command, the service and the registry use the machine's network
    #[arg(long)]
    net: bool,
    /// Run the command as this user: a name or uid of the machine, `alice` (an active session) or `bob` (none)
    #[arg(long, value_name = "NAME|UID")]
    user: Option<User>,
    /// Build with optimisation
    #[arg(long)]
    release: bool,
    /// What runs the VMs
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
    /// The command; a shell when there is none
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::install(&[Purpose::Build, Purpose::Host])?;
    let programs = cargo::build(if arguments.release { Profile::Release } else { Profile::Debug })?;
    let command = match arguments.command.as_slice() {
        [] => vec![std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())],
        given => given.to_vec(),
    };
    let needs = Needs {
        state: arguments.state.clone(),
        net: arguments.net,
        user: arguments.user.clone(),
        accel: arguments.accel,
        ..Needs::default()
    };
    Ok(host::conclude(&host::run(&programs, needs, command)?))
}
