//! Who may read which cached blobs.

use crate::ImageError;
use banger_model::Uid;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of the scopes that are not public.
const USERS: &str = "users";

/// For whom a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Anybody: its registry gave it to a pull without credentials.
    Public,
    /// This user alone.
    Owner(Uid),
}

impl Scope {
    /// Where its blobs are in the cache `root`.
    pub(super) fn folder(self, root: &Path) -> PathBuf {
        match self {
            Scope::Public => root.to_owned(),
            Scope::Owner(uid) => root.join(USERS).join(uid.to_string()),
        }
    }

    /// The scopes whose blobs it may read, its own first: an owner's pull also reads what is public, never the other way
    /// round, and never another owner's.
    pub(super) fn readable(self) -> impl Iterator<Item = Scope> {
        let public = (self != Scope::Public).then_some(Scope::Public);
        std::iter::once(self).chain(public)
    }
}

/// The folders that hold blobs: the public ones, which need not be there, and those of one user or, without `of`, of
/// every user who has some.
pub(super) fn folders(root: &Path, of: Option<Uid>) -> Result<Vec<PathBuf>, ImageError> {
    let mut scopes = vec![root.to_owned()];
    match of {
        Some(uid) => scopes.push(Scope::Owner(uid).folder(root)),
        None => {
            let users = root.join(USERS);
            match fs::read_dir(&users) {
                Ok(entries) => {
                    for entry in entries {
                        scopes.push(entry.map_err(|e| ImageError::io("read", &users, e))?.path());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ImageError::io("read", users, error)),
            }
        }
    }
    Ok(scopes.iter().flat_map(|scope| ["sha256", "sha512"].map(|algorithm| scope.join(algorithm))).collect())
}
