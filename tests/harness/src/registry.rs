//! A real registry on a loopback address: Debian's docker-registry, with its storage in the state folder.

use crate::{
    error::{HarnessError, Result},
    launch::Place,
    mounts,
    spec::REGISTRY,
    supervise::Supervisor,
};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The registry's program.
pub const PROGRAM: &str = "/usr/bin/docker-registry";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the registry, when its package is installed, and waits for its first answer. Whether it is there.
///
/// # Errors
/// [`HarnessError::NotReady`] when it does not answer, for one because something else has the port.
pub fn start(supervisor: &mut Supervisor, place: &Place, state: &Path) -> Result<bool> {
    if !Path::new(PROGRAM).exists() {
        return Ok(false);
    }
    let storage = state.join("registry");
    mounts::make_dir(&storage, 0o755)?;
    let config = PathBuf::from("/run/banger-registry.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: false\n\
         storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {REGISTRY}\n",
        storage.display()
    );
    mounts::write(&config, &text, 0o644)?;
    let command = place.command(&[PROGRAM, "serve", &config.to_string_lossy()])?;
    let mut child = supervisor.start("registry", command, false)?;

    let network = place.network.clone();
    let answer = thread::spawn(move || {
        if let Some(path) = network {
            let file = File::open(path).map_err(|error| error.to_string())?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
        }
        wait_for_answer(Instant::now() + PATIENCE, || matches!(child.try_wait(), Ok(None)))
    });
    answer.join().unwrap_or_else(|_| Err("the thread that asks it ended".into())).map(|()| true).map_err(
        |why| HarnessError::NotReady {
            service: "docker-registry",
            why,
            log: supervisor.log_tail("registry"),
        },
    )
}

/// It says nothing when it is ready, so it is asked, less and less often.
fn wait_for_answer(until: Instant, mut alive: impl FnMut() -> bool) -> std::result::Result<(), String> {
    let mut pause = Duration::from_millis(5);
    loop {
        let failure = match ask() {
            Ok(line) if line.starts_with("HTTP/1.1 200") => return Ok(()),
            Ok(line) => format!("it answers {line:?}"),
            Err(error) => error.to_string(),
        };
        if !alive() || Instant::now() > until {
            return Err(failure);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

fn ask() -> std::io::Result<String> {
    let mut stream = TcpStream::connect(REGISTRY)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /v2/ HTTP/1.1\r\nHost: {REGISTRY}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}
