//! Which files are images while they stay their users'.

use super::{Store, StoreError};
use banger_model::{Bytes, ImageId};
use rusqlite::{OptionalExtension, params};
use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// What tells a file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// When its content last changed: seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileIdentity {
    /// That of a file.
    pub fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl Store {
    /// Writes down which file an image is, instead of any before, and how much is in it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_registered(
        &self,
        image: ImageId,
        file: FileIdentity,
        size: Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        self.transaction(|c| {
            let image = image.to_string();
            c.execute(
                "INSERT OR REPLACE INTO registered VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    image,
                    file.device as i64,
                    file.inode as i64,
                    file.size as i64,
                    file.changed.0,
                    file.changed.1
                ],
            )?;
            c.execute(
                "UPDATE images SET size = ?2, content = ?3 WHERE id = ?1",
                params![image, size.0 as i64, content.0 as i64],
            )?;
            Ok(())
        })
    }

    /// The file that an image is.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn registered(&self, image: ImageId) -> Result<Option<FileIdentity>, StoreError> {
        self.with(|c| {
            let found = "SELECT * FROM registered WHERE image = ?1";
            let row = c.query_row(found, [image.to_string()], |row| {
                Ok(FileIdentity {
                    device: row.get::<_, i64>("device")? as u64,
                    inode: row.get::<_, i64>("inode")? as u64,
                    size: row.get::<_, i64>("size")? as u64,
                    changed: (row.get("seconds")?, row.get("nanoseconds")?),
                })
            });
            Ok(row.optional()?)
        })
    }

    /// The image is no user's file any more.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn unset_registered(&self, image: ImageId) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute("DELETE FROM registered WHERE image = ?1", [image.to_string()])?;
            Ok(())
        })
    }
}
