//! For tests and scripts that run on a private host: the client as any user, bus calls, images, processes.

use crate::{
    error::{Doing, HarnessError, Result},
    images, leaks,
    spec::REGISTRY,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Tells a command that it runs on a private host, and where the host's state is.
pub const STATE_VARIABLE: &str = "BANGER_HOST_STATE";

const SETPRIV: &str = "/usr/bin/setpriv";
const BUSCTL: &str = "/usr/bin/busctl";
const CLIENT: &str = "/usr/bin/banger";

/// What a program did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// Its exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// What it wrote on standard output.
    pub stdout: Vec<u8>,
    /// What it wrote on standard error.
    pub stderr: Vec<u8>,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` ended with code {}", self.line, self.code)?;
        writeln!(f, "--- its standard output:\n{}", self.text().trim_end())?;
        writeln!(f, "--- its standard error:\n{}", self.errors().trim_end())?;
        write!(f, "--- the end of the service's log:\n{}", service_log())
    }
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Asserts the exit code, and shows everything when it is another.
    ///
    /// # Panics
    /// When the code is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code == code, "code {code} was expected: {self}");
        self
    }
}

/// The state folder of the host that this process runs on.
///
/// # Panics
/// When it runs on none.
pub fn state() -> PathBuf {
    let state = std::env::var_os(STATE_VARIABLE);
    PathBuf::from(state.expect("this runs on a private host only: use `cargo xtask test host`"))
}

/// The end of the log that the bus and what it activates share.
pub fn service_log() -> String {
    std::env::var_os(STATE_VARIABLE)
        .map(|state| crate::tail(&Path::new(&state).join("logs/bus.log"), 25))
        .unwrap_or_default()
}

/// A program, run by a user of the host; this process is root.
pub fn as_user(user: &str, program: &str) -> Command {
    if user == "root" {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups", "--", program]);
    command.env("HOME", format!("/run/home/{user}")).env("USER", user).env("LOGNAME", user).current_dir("/");
    command
}

/// The client, run by a user of the host.
pub fn client(user: &str, args: &[&str]) -> Command {
    let mut command = as_user(user, CLIENT);
    command.args(args);
    command
}

/// Runs the client to its end, without standard input.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn banger(user: &str, args: &[&str]) -> Ran {
    run(client(user, args), b"")
}

/// Calls a method of the bus with busctl. `args` are those of `busctl call`.
///
/// # Panics
/// When busctl cannot be started.
#[track_caller]
pub fn busctl(user: &str, args: &[&str]) -> Ran {
    let mut command = as_user(user, BUSCTL);
    command.args(["--system", "--timeout=120", "call"]).args(args);
    run(command, b"")
}

/// Runs a command to its end with these bytes as standard input.
///
/// # Panics
/// When it cannot be started or followed.
#[track_caller]
pub fn run(mut command: Command, input: &[u8]) -> Ran {
    let line = line(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends without reading all of its input is its own affair.
            let _ = stdin.map(|mut stdin| stdin.write_all(input));
        });
        child.wait_with_output()
    });
    let output = output.unwrap_or_else(|error| panic!("cannot follow `{line}`: {error}"));
    let code = crate::signals::exit_code(output.status);
    Ran { line, code, stdout: output.stdout, stderr: output.stderr }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Makes an image and pushes it to the host's registry: its reference, and its manifest's digest.
///
/// # Errors
/// [`HarnessError`] when it cannot be made or the registry does not take it.
pub fn publish(name: &str, layers: &[Vec<u8>], config: &Value) -> Result<(String, String)> {
    let folder = tempfile::tempdir().doing("make a folder for an image")?;
    let mut layout = images::Layout::new(folder.path())?;
    for layer in layers {
        layout.layer(layer.as_slice())?;
    }
    let digest = layout.finish(config)?;
    let reference = format!("{REGISTRY}/{name}");
    images::push(folder.path(), &reference)?;
    Ok((reference, digest))
}

/// The file in which the host's registry keeps a blob.
///
/// # Panics
/// When `digest` is not `sha256:` and hexadecimal digits.
pub fn registry_blob(digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
    state().join("registry/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

/// The processes of the host with this name (at most 15 bytes, proc_pid_comm(5)).
///
/// # Panics
/// When `/proc` cannot be read.
pub fn pids(name: &str) -> Vec<i32> {
    let all = leaks::processes().expect("the processes of this host");
    all.into_iter().filter(|process| process.name == name).map(|process| process.pid.as_raw()).collect()
}

/// The processes of VMs.
///
/// # Panics
/// When `/proc` cannot be read.
pub fn vm_pids() -> Vec<i32> {
    let all = leaks::processes().expect("the processes of this host");
    all.into_iter().filter(leaks::Process::is_vm).map(|process| process.pid.as_raw()).collect()
}

/// Kills every process of a VM with SIGKILL, without waiting. How many there were.
///
/// # Panics
/// When `/proc` cannot be read.
pub fn kill_vms() -> usize {
    let pids = vm_pids();
    for pid in &pids {
        // One may have ended with another that was killed just before.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    pids.len()
}

/// Kills every process of this name with SIGKILL and waits until it is gone. How many there were.
///
/// # Panics
/// When one does not go within ten seconds.
pub fn kill_9(name: &str) -> usize {
    let pids = pids(name);
    for pid in &pids {
        // One that has ended meanwhile needs no signal.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    eventually(&format!("{name} is gone"), || pids.iter().all(|pid| !self::pids(name).contains(pid)));
    pids.len()
}

/// Waits for something that nobody announces, for at most a minute.
///
/// # Panics
/// When it does not become true.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "waited a minute for: {what}\n{}", service_log());
        thread::sleep(Duration::from_millis(10));
    }
}

/// What is left on the host of VMs that no longer run and pulls that did not succeed: every kind but processes
/// and mounts, of which a running service has some, and the VMs' network, which the helper keeps for a while. Tables and folders of known VMs do not count.
///
/// # Errors
/// [`HarnessError`] when something cannot be looked at.
pub fn residue() -> Result<Vec<String>> {
    let known = leaks::known_vms()?;
    let left = leaks::look(&leaks::mounts_before()?, &known, u32::MAX)?;
    let kept = ["processes", leaks::NETWORK, leaks::TABLES];
    let wanted = left.into_iter().filter(|(kind, _)| !kept.contains(&kind.as_str()));
    Ok(wanted.flat_map(|(kind, list)| list.into_iter().map(move |what| format!("{kind}: {what}"))).collect())
}

/// Asserts that nothing is left, giving the kernel and the services a moment to finish.
///
/// # Panics
/// With a list of what is left.
#[track_caller]
pub fn assert_no_residue() {
    let mut last = Ok(Vec::new());
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        last = residue().map_err(|error: HarnessError| error.to_string());
        if matches!(&last, Ok(left) if left.is_empty()) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {last:#?}\n{}", service_log());
}
