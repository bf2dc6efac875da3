//! Images in the database.

use super::{Store, StoreError, deleted, inserted, json, parsed, to_json};
use banger_image::RunConfig;
use banger_model::{Bytes, ImageId, ImageName, Uid};
use rusqlite::{OptionalExtension, Row, params};

/// An image that is in its place.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// Its id, also its folder's name.
    pub id: ImageId,
    /// Its name on this host.
    pub name: ImageName,
    /// Where it came from, in canonical form.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Such as `linux/amd64`.
    pub platform: String,
    /// Size of the filesystem image.
    pub size: Bytes,
    /// Bytes of file data in it.
    pub content: Bytes,
    /// Bytes of the layers as downloaded.
    pub compressed: Bytes,
    /// How many layers it was made of.
    pub layers: u32,
    /// How its author wants it run.
    pub config: RunConfig,
    /// Who pulled it.
    pub owner: Uid,
    /// When it was published, in seconds since 1970.
    pub created: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        reference: row.get("reference")?,
        digest: row.get("digest")?,
        platform: row.get("platform")?,
        size: Bytes(row.get::<_, i64>("size")? as u64),
        content: Bytes(row.get::<_, i64>("content")? as u64),
        compressed: Bytes(row.get::<_, i64>("compressed")? as u64),
        layers: row.get("layers")?,
        config: json(row, "config")?,
        owner: Uid(row.get("owner")?),
        created: row.get("created")?,
    })
}

impl Store {
    /// Adds an image.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is.
    pub fn add_image(&self, image: &ImageRow) -> Result<(), StoreError> {
        let config = to_json(&image.config)?;
        self.with(|c| {
            let row = c.execute(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    image.id.to_string(),
                    image.name.as_str(),
                    image.reference,
                    image.digest,
                    image.platform,
                    image.size.0 as i64,
                    image.content.0 as i64,
                    image.compressed.0 as i64,
                    image.layers,
                    config,
                    image.owner.0,
                    image.created,
                ],
            );
            inserted(row, "an image", image.name.as_str())
        })
    }

    /// All images, by name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn images(&self) -> Result<Vec<ImageRow>, StoreError> {
        self.with(|c| {
            Ok(c.prepare("SELECT * FROM images ORDER BY name")?
                .query_map([], read)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// The image with this id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn image(&self, id: ImageId) -> Result<Option<ImageRow>, StoreError> {
        self.with(|c| {
            Ok(c.query_row("SELECT * FROM images WHERE id = ?1", [id.to_string()], read).optional()?)
        })
    }

    /// Removes an image's row.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a VM is made of it.
    pub fn remove_image(&self, id: ImageId) -> Result<(), StoreError> {
        self.with(|c| deleted(c.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])))
    }
}
