//! nft(8): what is to be, as JSON on its standard input, all of it or nothing.
//!
//! <https://manpages.debian.org/libnftables-json.5>

use super::rules::Rules;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::{Command, Stdio};

const PROGRAM: &str = "/usr/sbin/nft";

/// Carries out commands as one transaction.
pub fn run(commands: &Value) -> io::Result<()> {
    call(&["-j", "-f", "-"], Some(commands)).map(drop)
}

/// Puts rules in force. Where it is known which are, and little has changed, only that.
pub fn put(rules: &Rules, in_force: Option<Rules>) -> io::Result<()> {
    match in_force.and_then(|before| rules.change(&before)) {
        Some(commands) if commands.is_empty() => return Ok(()),
        Some(commands) => match run(&json!({ "nftables": commands })) {
            Ok(()) => return Ok(()),
            // Somebody has removed or changed them meanwhile.
            Err(error) => tracing::info!(%error, "the rules are not as they were left: they are replaced"),
        },
        None => {}
    }
    run(&rules.replace())
}

/// What `nft -j ARGUMENTS` lists.
pub fn list(arguments: &[&str]) -> io::Result<Value> {
    let text = call(&[&["-j"], arguments].concat(), None)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

fn call(arguments: &[&str], input: Option<&Value>) -> io::Result<Vec<u8>> {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), format!("there is no {PROGRAM}: install nftables"))
            }
            _ => error,
        })?;
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
