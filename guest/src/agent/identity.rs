//! Becoming another guest, or the same one at another time: clock, random numbers, name, network, machine id.

use crate::{SETTINGS, boot, ioctl};
use banger_guest::{Settings, wire::Identity};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
    unistd::sethostname,
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Longest sentence that the host is told.
const LONGEST: usize = 256;

/// Where a machine id may be (machine-id(5)); the second is D-Bus's, from before there was the first.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Does all of it, past what fails; says that in sentences. The order matters: random numbers first, for what comes after may
/// use some.
pub fn become_another(identity: &Identity) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |what: &str, done: io::Result<()>| {
        if let Err(error) = done {
            let sentence: String = format!("{what}: {error}");
            failures.push(sentence.chars().filter(|c| !c.is_control()).take(LONGEST).collect());
        }
    };
    note("the random numbers stay as they were", reseed(&identity.seed));
    let time = TimeSpec::new(identity.seconds, identity.nanoseconds.into());
    note("the clock is wrong", clock_settime(ClockId::CLOCK_REALTIME, time).map_err(Into::into));
    let old = fs::read(SETTINGS).ok().and_then(|text| Settings::from_json(&text).ok());
    let new = &identity.settings;
    note("the name stays", sethostname(&new.hostname).map_err(Into::into));
    let before = old.as_ref().and_then(|old| old.network.as_ref());
    if let Some(network) = &new.network {
        note("the network stays", boot::change_network(before, network));
    }
    note("the files in /etc stay", boot::rewrite_files(new));
    if let Some(id) = &identity.machine_id {
        for path in MACHINE_IDS {
            note(path, replace_machine_id(Path::new(path), id));
        }
    }
    note("the settings stay", write_settings(old, new));
    failures
}

/// What was for the boot stays.
fn write_settings(old: Option<Settings>, new: &Settings) -> io::Result<()> {
    let Settings { hostname, network, hosts, .. } = new.clone();
    let settings = Settings { hostname, network, hosts, ..old.unwrap_or_else(|| new.clone()) };
    fs::write(SETTINGS, settings.to_json().map_err(io::Error::other)?)
}

/// Adds to the kernel's pool, and has it used at once (random(4)).
fn reseed(seed: &[u8]) -> io::Result<()> {
    let pool = OpenOptions::new().read(true).write(true).open("/dev/urandom")?;
    ioctl::add_entropy(&pool, seed)?;
    ioctl::reseed(&pool)
}

/// Only where there is one, and not through a link: an image without stays without.
fn replace_machine_id(path: &Path, id: &str) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match OpenOptions::new().write(true).truncate(true).custom_flags(flags).open(path) {
        Ok(mut file) => file.write_all(format!("{id}\n").as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_id_is_replaced_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        replace_machine_id(&path, "0123").unwrap();
        assert!(!path.exists(), "an image without one stays without");
        fs::write(&path, "uninitialized and longer\n").unwrap();
        replace_machine_id(&path, "0123").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123\n");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace_machine_id(&link, "4567").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123\n", "not through a link");
    }
}
