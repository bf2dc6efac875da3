//! The private system bus: a real dbus-daemon with the policies of polkit and of banger.

use crate::{
    error::{Doing, HarnessError, Result},
    launch::Place,
    mounts,
    spec::BUS_ADDRESS,
    supervise::{Supervisor, output},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// How systemd starts bangerd.
const UNIT: &str = include_str!("../../../systemd/units/bangerd.service");

/// The bus daemon.
pub const DAEMON: &str = "/usr/bin/dbus-daemon";
const SEND: &str = "/usr/bin/dbus-send";
const CONFIG: &str = "/run/dbus/system.conf";
const SERVICES: &str = "/run/dbus/services";

/// polkit's own activation file, which tells where its daemon is.
const POLKIT_SERVICE: &str = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service";
/// Policies that the bus reads; the older place of polkit's is in `/etc`.
const POLICIES: [&str; 3] = [
    "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf",
    "/etc/dbus-1/system.d/org.freedesktop.PolicyKit1.conf",
    "/usr/share/dbus-1/system.d/org.banger.Manager.conf",
];

/// What every system bus allows, as in the distributions' `system.conf`: talk to the bus itself, signals, replies; and to
/// a resolver, which a test may be.
pub const DEFAULT_POLICY: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"
          send_member="UpdateActivationEnvironment"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
    <allow own="org.freedesktop.resolve1"/>
  </policy>
  <policy context="default">
    <allow send_destination="org.freedesktop.resolve1"/>
  </policy>
"#;

/// The configuration of a bus of the system kind that listens on `address`, activates what `services` holds and
/// obeys these policy files.
pub fn config(address: &str, services: &Path, policies: &[&Path]) -> String {
    let includes: String =
        policies.iter().map(|path| format!("  <include>{}</include>\n", path.display())).collect();
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
         <busconfig>\n  <type>system</type>\n  <listen>{address}</listen>\n  <auth>EXTERNAL</auth>\n  \
         <servicedir>{}</servicedir>\n{DEFAULT_POLICY}{includes}</busconfig>\n",
        services.display()
    )
}

/// How the bus starts bangerd: with the environment that its unit gives it.
fn activation() -> String {
    let environment = UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")).collect::<Vec<_>>();
    let exec = [&["/usr/bin/env"], environment.as_slice(), &["/usr/libexec/bangerd"]].concat().join(" ");
    format!("[D-BUS Service]\nName=org.banger.Manager\nExec={exec}\nUser=root\n")
}

/// Starts the bus. It activates polkit and bangerd, as root, when somebody calls them.
///
/// # Errors
/// [`HarnessError::NotReady`] when the bus does not listen.
pub fn start(supervisor: &mut Supervisor, place: &Place) -> Result<()> {
    mounts::make_dir(Path::new(SERVICES), 0o755)?;
    let polkit = fs::read_to_string(POLKIT_SERVICE).doing(format!("read {POLKIT_SERVICE}"))?;
    mounts::write(&Path::new(SERVICES).join("polkit.service"), &polkit, 0o644)?;
    mounts::write(&Path::new(SERVICES).join("banger.service"), &activation(), 0o644)?;
    let policies: Vec<&Path> = POLICIES.iter().map(Path::new).filter(|path| path.exists()).collect();
    mounts::write(Path::new(CONFIG), &config(BUS_ADDRESS, Path::new(SERVICES), &policies), 0o644)?;

    let config = format!("--config-file={CONFIG}");
    let mut command = place.command(&[DAEMON, &config, "--nofork", "--nopidfile", "--print-address"])?;
    command.stdout(Stdio::piped());
    let mut child = supervisor.start("bus", command, true)?;
    // It prints its address once it listens. What it activates inherits its standard output, so that is read on.
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).doing("read the bus's address")?;
        let path = supervisor.log("bus");
        let mut log =
            fs::OpenOptions::new().append(true).open(&path).doing(format!("open {}", path.display()))?;
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut log));
    }
    if line.is_empty() {
        let (why, log) = ("it ended before it listened".to_owned(), supervisor.log_tail("bus"));
        return Err(HarnessError::NotReady { service: "dbus-daemon", why, log });
    }
    Ok(())
}

/// Starts the service that owns `name`, through the bus, which replies when the name is owned.
///
/// # Errors
/// [`HarnessError::NotReady`] with the end of the bus's log, which holds the service's output too.
pub fn activate(supervisor: &Supervisor, service: &'static str, name: &str) -> Result<()> {
    let name = format!("string:{name}");
    let call = "org.freedesktop.DBus.StartServiceByName";
    let mut command = Command::new(SEND);
    command.args(["--system", "--print-reply", "--reply-timeout=60000", "--dest=org.freedesktop.DBus"]);
    match output(command.args(["/org/freedesktop/DBus", call, &name, "uint32:0"])) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(HarnessError::NotReady { service, why: error.to_string(), log: supervisor.log_tail("bus") })
        }
    }
}
