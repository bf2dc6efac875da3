//! The database: what exists, who owns it, and which steps of a VM's start have been begun.
//!
//! One connection behind one lock. Every statement is a primary-key or unique-index access on a few
//! thousand rows at most, so calls are made straight from asynchronous code.

mod ballast;
mod images;
mod kernels;
mod registered;
mod schema;
mod vms;
mod volumes;

pub use images::ImageRow;
pub use kernels::KernelRow;
pub use registered::FileIdentity;
pub use vms::{Mounted, VmRow, VmSpec};
pub use volumes::VolumeRow;

use ballast::Ballast;
use rusqlite::{Connection, OptionalExtension, types::FromSqlError};
use std::{path::Path, str::FromStr, sync::Mutex};

/// The database failed, or refused a row.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A row with that name exists.
    #[error("there is already {what} {name:?}: choose another name")]
    Taken {
        /// "an image", "a VM" or "a kernel".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something still refers to the row.
    #[error("it is still in use")]
    InUse,
    /// The row has gone meanwhile.
    #[error("it is no longer there")]
    Gone,
    /// It was written by a newer banger.
    #[error(
        "the database is of version {found}, this banger knows up to {known}: install the newer one again"
    )]
    TooNew {
        /// The version that was found.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// SQLite failed.
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The open database.
pub struct Store {
    connection: Mutex<Connection>,
    ballast: Ballast,
}

impl Store {
    /// Opens or makes the database at `path` and brings it to the current version.
    ///
    /// # Errors
    /// [`StoreError::TooNew`], or what SQLite says.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepare(Connection::open(path)?, Ballast::beside(path))
    }

    fn prepare(mut connection: Connection, ballast: Ballast) -> Result<Self, StoreError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: a row that a client was told about survives a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        schema::migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection), ballast })
    }

    fn with<T>(&self, act: impl Fn(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // A panic inside a statement leaves SQLite's own state whole: go on with it.
        let connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match act(&connection) {
            Err(StoreError::Sqlite(error))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
                    && self.ballast.drop_it() =>
            {
                act(&connection)
            }
            result => {
                self.ballast.take_on();
                result
            }
        }
    }

    /// Writes what has to survive this process and not the host (docs/adr/0017-plans-and-what-is-durable.md): it is in the
    /// kernel's hands when this returns, and reaches the disk with the next write that is waited for, or by itself.
    fn soon<T>(&self, act: impl Fn(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|c| {
            c.pragma_update(None, "synchronous", "NORMAL")?;
            let done = act(c);
            c.pragma_update(None, "synchronous", "FULL")?;
            done
        })
    }

    /// Several statements that happen together or not at all.
    fn transaction<T>(&self, act: impl Fn(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|c| {
            let transaction = c.unchecked_transaction()?;
            let done = act(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// A remembered fact about the host.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn fact(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.with(|c| {
            Ok(c.query_row("SELECT value FROM facts WHERE key = ?1", [key], |r| r.get(0)).optional()?)
        })
    }

    /// Remembers a fact about the host.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn remember(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute(
                "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                [key, value],
            )?;
            Ok(())
        })
    }
}

/// Reads a column that holds the text form of `T`.
fn parsed<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| FromSqlError::Other(Box::new(error)).into())
}

/// Reads a column that holds JSON.
fn json<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| FromSqlError::Other(Box::new(error)).into())
}

/// JSON of a value of our own, which has no map with keys that are not text.
fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)).into())
}

/// Tells a broken UNIQUE constraint from the other failures of an insert.
fn inserted(result: rusqlite::Result<usize>, what: &'static str, name: &str) -> Result<(), StoreError> {
    match result {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(cause, _))
            if cause.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE =>
        {
            Err(StoreError::Taken { what, name: name.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells a broken foreign key from the other failures of a delete.
fn deleted(result: rusqlite::Result<usize>) -> Result<(), StoreError> {
    match result {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(cause, _))
            if cause.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            Err(StoreError::InUse)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_soon_does_not_make_the_rest_less_durable() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        let mode =
            |c: &Connection| Ok(c.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?);
        assert_eq!(store.soon(mode).unwrap(), 1);
        assert_eq!(store.with(mode).unwrap(), 2);
        store.soon(|_| -> Result<(), _> { Err(StoreError::Gone) }).unwrap_err();
        assert_eq!(store.with(mode).unwrap(), 2);
    }
}
