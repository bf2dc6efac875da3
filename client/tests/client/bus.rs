//! A bus of our own, with or without the fake service, and the client on it.

use crate::fake::{Fake, State};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CONFIG: &str = r#"<busconfig>
<type>system</type><listen>unix:path=FOLDER/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_type="error"/><allow send_type="method_return"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_type="error"/>
<allow receive_type="method_return"/></policy>
</busconfig>"#;

/// A bus, ended with the test.
pub struct Bus {
    daemon: Child,
    folder: TempDir,
    address: String,
    // Kept alive, last: the service's tasks run on it.
    service: Option<(Arc<State>, Runtime)>,
}

impl Bus {
    /// A bus without a service.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("bus.conf");
        let text = CONFIG.replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(&config, text).expect("written");
        let mut daemon = Command::new("/usr/bin/dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need the dbus-daemon package");
        let mut address = String::new();
        let told = daemon.stdout.take().expect("piped");
        BufReader::new(told).read_line(&mut address).expect("an address");
        Self { daemon, folder, address: address.trim().to_owned(), service: None }
    }

    /// A bus with the fake service on it.
    pub fn new() -> Self {
        let mut bus = Self::empty();
        let runtime = Runtime::new().expect("a runtime");
        let state = runtime.block_on(Fake::serve(&bus.address)).expect("the fake is served");
        bus.service = Some((state, runtime));
        bus
    }

    /// What the fake service holds.
    pub fn state(&self) -> &State {
        &self.service.as_ref().expect("a service").0
    }

    /// A place for files.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The client, about to be started with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the client.
    pub fn banger(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().expect("the client runs").into()
    }

    /// Runs the client and feeds it.
    pub fn banger_reading(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("the client runs");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A client that reads no input is no failure here.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("it ends").into()
        })
    }

    /// Starts the client.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).spawn().expect("the client runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, stdout, stderr }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if let Some((state, runtime)) = self.service.take() {
            state.end_everything();
            runtime.shutdown_background();
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What the client said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub bytes: Vec<u8>,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: code(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }
}

impl Ran {
    /// It did what it should; what it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It failed with this code; what it said about it.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }

    /// What it said, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("JSON")
    }
}

/// The client at work.
pub struct Running {
    pub child: Child,
    pub stdout: BufReader<std::process::ChildStdout>,
    pub stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let (mut bytes, mut err) = (Vec::new(), String::new());
        self.stdout.read_to_end(&mut bytes).expect("readable");
        self.stderr.read_to_string(&mut err).expect("text");
        let code = code(self.child.wait().expect("it ends"));
        Ran { code, out: String::from_utf8_lossy(&bytes).into_owned(), err, bytes }
    }
}

/// The exit code; a negative number for a signal.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().expect("ended somehow"))
}
