//! nft(8): what is to be, as JSON on its standard input, all of it or nothing.
//!
//! <https://manpages.debian.org/libnftables-json.5>

use super::rules::Rules;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

const PROGRAM: &str = "/usr/sbin/nft";

/// What it reads commands by.
const READ: [&str; 3] = ["-j", "-f", "-"];

/// One that has been started and reads: most of the time that a small change takes is its start. It ends by itself when
/// this process does, because its standard input does.
static READY: Mutex<Option<Child>> = Mutex::new(None);

fn ready() -> MutexGuard<'static, Option<Child>> {
    READY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts one ahead, for the next change.
pub fn prepare() {
    let mut ready = ready();
    if ready.is_none() {
        match start(&READ, true) {
            Ok(child) => *ready = Some(child),
            Err(error) => tracing::warn!(%error, "nothing is prepared for the next change of the rules"),
        }
    }
}

/// Ends the one that was started ahead.
pub fn dismiss() {
    if let Some(mut child) = ready().take() {
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Carries out commands as one transaction.
pub fn run(commands: &Value) -> io::Result<()> {
    end(start(&READ, true)?, Some(commands)).map(drop)
}

/// Puts rules in force. Where it is known which are, and little has changed, only that.
pub fn put(rules: &Rules, in_force: Option<Rules>) -> io::Result<()> {
    match in_force.and_then(|before| rules.change(&before)) {
        Some(commands) if commands.is_empty() => return Ok(()),
        Some(commands) => match change(&json!({ "nftables": commands })) {
            Ok(()) => return Ok(()),
            // Somebody has removed or changed them meanwhile.
            Err(error) => tracing::info!(%error, "the rules are not as they were left: they are replaced"),
        },
        None => {}
    }
    run(&rules.replace())
}

/// The same as [`run`], by the one that was started ahead if there is one. It may have been ended by somebody: whoever calls
/// this has another way.
fn change(commands: &Value) -> io::Result<()> {
    let ahead = ready().take();
    let child = ahead.map_or_else(|| start(&READ, true), Ok)?;
    end(child, Some(commands)).map(drop)
}

/// What `nft -j ARGUMENTS` lists.
pub fn list(arguments: &[&str]) -> io::Result<Value> {
    let text = end(start(&[&["-j"], arguments].concat(), false)?, None)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

fn start(arguments: &[&str], reads: bool) -> io::Result<Child> {
    let child = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .stdin(if reads { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("there is no {PROGRAM}: install nftables"))
        }
        _ => error,
    })
}

/// Gives it what it reads, and waits for its end and what it says.
fn end(mut child: Child, input: Option<&Value>) -> io::Result<Vec<u8>> {
    let written = match (child.stdin.take(), input) {
        // It reads all of its input before it says anything.
        (Some(mut stdin), Some(input)) => stdin.write_all(input.to_string().as_bytes()),
        _ => Ok(()),
    };
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first: String = errors.lines().take(3).collect::<Vec<_>>().join(" ").chars().take(400).collect();
        return Err(io::Error::other(format!("nft {}: {first}", output.status)));
    }
    written.map(|()| output.stdout)
}
