//! The service runs as a user without privileges. systemd starts it as that user; started by root, it
//! becomes that user itself before it does anything else.

use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use std::{
    os::unix::fs::{DirBuilderExt, chown},
    path::Path,
};

/// Privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("there is no user {0:?}: create it, or name another one as `user` in the configuration")]
    NoUser(String),
    /// The state folder cannot be made or given to the user.
    #[error("the state folder cannot be made: {0}")]
    State(std::io::Error),
    /// The kernel refused.
    #[error("becoming that user failed: {0}")]
    Refused(#[from] nix::Error),
}

/// Becomes `user` if root, and gives it the state folder. Has to be called while there is one thread.
///
/// # Errors
/// [`PrivilegeError`]; then the service must not go on.
pub fn give_up(user: &str, state: &Path) -> Result<(), PrivilegeError> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let account = User::from_name(user)?.ok_or_else(|| PrivilegeError::NoUser(user.to_owned()))?;
    if !state.exists() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(state).map_err(PrivilegeError::State)?;
        let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
        chown(state, Some(uid), Some(gid)).map_err(PrivilegeError::State)?;
    }
    become_user(account.uid, account.gid)
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), PrivilegeError> {
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    // From root, this clears the permitted and effective capabilities too (capabilities(7)).
    Ok(setresuid(uid, uid, uid)?)
}
