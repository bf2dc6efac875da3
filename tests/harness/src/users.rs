//! The users of the private host.

use crate::{
    error::{Doing, HarnessError, Result},
    launch::Account,
    mounts,
    spec::{ALICE_UID, BANGER_UID, BOB_UID, User},
};
use std::{fs, os::unix::fs::chown, path::Path};

/// Adds `banger`, `alice` and `bob`, each with a group of the same name and number; the latter two get a home.
/// A user whom the machine has already stays as it is.
///
/// # Errors
/// [`HarnessError::Io`] when the private user database cannot be written.
pub fn add() -> Result<()> {
    for (name, id, home) in [
        ("banger", BANGER_UID, "/var/lib/banger"),
        ("alice", ALICE_UID, "/run/home/alice"),
        ("bob", BOB_UID, "/run/home/bob"),
    ] {
        if find(name)?.is_some() {
            continue;
        }
        let shell = if name == "banger" { "/usr/sbin/nologin" } else { "/bin/sh" };
        append("/etc/passwd", &format!("{name}:*:{id}:{id}::{home}:{shell}\n"))?;
        append("/etc/group", &format!("{name}:x:{id}:\n"))?;
        if home.starts_with("/run") {
            mounts::make_dir(Path::new(home), 0o700)?;
            chown(home, Some(id), Some(id)).doing(format!("give {home} to {name}"))?;
        }
    }
    Ok(())
}

/// The entry of a user.
///
/// # Errors
/// [`HarnessError::Missing`] when there is no such user.
pub fn account(user: &User) -> Result<Account> {
    let (found, asked) = match user {
        User::Root => (find("root")?, "root".to_owned()),
        User::Name(name) => (find(name)?, name.clone()),
        User::Uid(uid) => {
            let entry = nix::unistd::User::from_uid((*uid).into()).doing("read the user database")?;
            (entry.map(to_account), uid.to_string())
        }
    };
    found.ok_or_else(|| HarnessError::Missing(format!("there is no user {asked}")))
}

fn find(name: &str) -> Result<Option<Account>> {
    Ok(nix::unistd::User::from_name(name).doing("read the user database")?.map(to_account))
}

fn to_account(user: nix::unistd::User) -> Account {
    Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }
}

fn append(path: &str, line: &str) -> Result<()> {
    let mut content = fs::read_to_string(path).doing(format!("read {path}"))?;
    if !content.is_empty() && !content.ends_with('\n') {
        content.push('\n');
    }
    content.push_str(line);
    mounts::write(Path::new(path), &content, 0o644)
}
