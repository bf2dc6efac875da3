//! The tables, and how an older database becomes the current one.

use super::StoreError;
use rusqlite::Connection;

/// Each entry takes a database from version `index` to `index + 1` (`PRAGMA user_version`). Only ever
/// appended to: an entry that has been released never changes.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        reference TEXT NOT NULL,
        digest TEXT NOT NULL,
        platform TEXT NOT NULL,
        size INTEGER NOT NULL,
        content INTEGER NOT NULL,
        compressed INTEGER NOT NULL,
        layers TEXT NOT NULL,
        config TEXT NOT NULL,
        owner INTEGER NOT NULL,
        private INTEGER NOT NULL,
        signature TEXT NOT NULL,
        kernel TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE image_names (
        name TEXT NOT NULL UNIQUE,
        image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX image_names_by_image ON image_names (image);
    CREATE TABLE registered (
        image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE,
        device INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        size INTEGER NOT NULL,
        seconds INTEGER NOT NULL,
        nanoseconds INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE kernels (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        release TEXT NOT NULL,
        size INTEGER NOT NULL,
        has_modules INTEGER NOT NULL,
        has_initrd INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        owner INTEGER NOT NULL,
        image TEXT NOT NULL REFERENCES images(id),
        kernel TEXT NOT NULL,
        spec TEXT NOT NULL,
        slot INTEGER NOT NULL UNIQUE,
        state TEXT NOT NULL,
        error TEXT NOT NULL DEFAULT '',
        accel TEXT NOT NULL DEFAULT '',
        created INTEGER NOT NULL,
        started INTEGER NOT NULL DEFAULT 0,
        has_disk INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE steps (
        vm TEXT NOT NULL REFERENCES vms(id) ON DELETE CASCADE,
        step TEXT NOT NULL,
        PRIMARY KEY (vm, step)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE vms ADD COLUMN boot TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE vms ADD COLUMN exit TEXT NOT NULL DEFAULT 'null';
    ALTER TABLE vms ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE volumes (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        owner INTEGER NOT NULL,
        size INTEGER NOT NULL,
        made INTEGER NOT NULL,
        created INTEGER NOT NULL,
        UNIQUE (owner, name)
    ) STRICT;
",
];

/// Brings the database to the current version, each step in a transaction of its own.
pub fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (version, statements) in (1u32..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(statements)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        let version: u32 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
        assert_eq!(version as usize, MIGRATIONS.len());
    }

    #[test]
    fn a_newer_database_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut connection), Err(StoreError::TooNew { found: 99, .. })));
    }
}
