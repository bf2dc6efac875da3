//! A private host with our programs installed on it.

use crate::{cargo::Programs, machine::root};
use anyhow::Result;
use banger_harness::{Report, Request, User};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

/// What a command needs of its private host.
#[derive(Debug, Default)]
pub struct Needs {
    /// The folder that keeps the state; temporary when there is none.
    pub state: Option<PathBuf>,
    /// Whether bus, registry and command keep the machine's network.
    pub net: bool,
    /// Who runs the command; whoever started xtask when there is none.
    pub user: Option<User>,
    /// More files to install: installed path, and the file.
    pub install: BTreeMap<PathBuf, PathBuf>,
    /// What the VMs run on: `auto`, `kvm` or `tcg`.
    pub accel: Accel,
}

/// What runs the guests' instructions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM when it works, emulation otherwise
    #[default]
    Auto,
    /// The processor, through /dev/kvm
    Kvm,
    /// QEMU's emulation
    Tcg,
}

impl Accel {
    fn config(self) -> &'static str {
        match self {
            Accel::Auto => "",
            Accel::Kvm => "accel = \"kvm\"\n",
            Accel::Tcg => "accel = \"tcg\"\n",
        }
    }
}

/// Runs a command on a private host with these programs.
pub fn run(programs: &Programs, needs: Needs, command: Vec<String>) -> Result<Report> {
    let mut install = needs.install;
    let own = [
        ("/usr/bin/banger", programs.banger.clone()),
        ("/usr/libexec/bangerd", programs.bangerd.clone()),
        ("/usr/libexec/banger-hostd", programs.hostd.clone()),
        ("/usr/lib/banger/banger-guest", programs.guest.clone()),
        ("/usr/share/dbus-1/system.d/org.banger.Manager.conf", root().join("dbus/org.banger.Manager.conf")),
        (
            "/usr/share/polkit-1/actions/org.banger.manager.policy",
            root().join("polkit/org.banger.manager.policy"),
        ),
    ];
    install.extend(own.map(|(target, source)| (PathBuf::from(target), source)));
    Ok(banger_harness::run(&Request {
        install,
        state: needs.state.map(std::path::absolute).transpose()?,
        net: needs.net,
        config: needs.accel.config().to_owned(),
        user: needs.user,
        command,
    })?)
}

/// The exit code of a command that ran on a private host; says what leaked, which fails a command that did not.
pub fn conclude(report: &Report) -> ExitCode {
    if !report.is_clean() {
        eprintln!("error: the host is not clean after everything has ended:");
        for (kind, left) in report.leaks.iter().filter(|(_, left)| !left.is_empty()) {
            eprintln!("  {kind}: {}", left.join(", "));
        }
    }
    match u8::try_from(report.code).unwrap_or(u8::MAX) {
        0 if !report.is_clean() => ExitCode::FAILURE,
        code => ExitCode::from(code),
    }
}
