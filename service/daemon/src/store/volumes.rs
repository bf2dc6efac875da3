//! Volumes in the database.

use super::{Store, StoreError, deleted, inserted, parsed};
use banger_model::{Bytes, Uid, VolumeId, VolumeName};
use rusqlite::{OptionalExtension, Row, params};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its id, also its folder's name.
    pub id: VolumeId,
    /// Its name, which another user's volume may have too.
    pub name: VolumeName,
    /// Whose it is.
    pub owner: Uid,
    /// Its size; it takes only what is written to it.
    pub size: Bytes,
    /// Whether its filesystem has been made, which its first use does.
    pub made: bool,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    Ok(VolumeRow {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        owner: Uid(row.get("owner")?),
        size: Bytes(row.get::<_, i64>("size")? as u64),
        made: row.get("made")?,
        created: row.get("created")?,
    })
}

impl Store {
    /// Adds a volume.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its owner has one of that name.
    pub fn add_volume(&self, volume: &VolumeRow) -> Result<(), StoreError> {
        self.with(|c| {
            let row = c.execute(
                "INSERT INTO volumes (id, name, owner, size, made, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    volume.id.to_string(),
                    volume.name.as_str(),
                    volume.owner.0,
                    volume.size.0 as i64,
                    volume.made,
                    volume.created,
                ],
            );
            inserted(row, "a volume", volume.name.as_str())
        })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
        self.with(|c| {
            Ok(c.prepare("SELECT * FROM volumes ORDER BY name, owner")?
                .query_map([], read)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// The volume with this id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn volume(&self, id: VolumeId) -> Result<Option<VolumeRow>, StoreError> {
        self.with(|c| {
            Ok(c.query_row("SELECT * FROM volumes WHERE id = ?1", [id.to_string()], read).optional()?)
        })
    }

    /// Writes down that a volume's filesystem has been made.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_volume_made(&self, id: VolumeId) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute("UPDATE volumes SET made = 1 WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Removes a volume's row.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn remove_volume(&self, id: VolumeId) -> Result<(), StoreError> {
        self.with(|c| deleted(c.execute("DELETE FROM volumes WHERE id = ?1", [id.to_string()])))
    }
}
