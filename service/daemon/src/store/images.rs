//! Images in the database.

use super::{Store, StoreError, deleted, inserted, json, parsed, to_json};
use banger_image::{Layer, RunConfig};
use banger_model::{Bytes, ImageId, ImageName, ImageSource, Uid};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;

/// An image that is in its place.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// Its id, also its folder's name.
    pub id: ImageId,
    /// Its names on this host, the oldest first; none when a newer image has taken the last one.
    pub names: Vec<ImageName>,
    /// Where it came from.
    pub source: ImageSource,
    /// The reference that it was pulled by, in canonical form; empty when it was not.
    pub reference: String,
    /// The digest of its manifest; empty where there is none.
    pub digest: String,
    /// Such as `linux/amd64`.
    pub platform: String,
    /// Size of the filesystem image.
    pub size: Bytes,
    /// Bytes of file data in it.
    pub content: Bytes,
    /// Bytes of the layers as downloaded.
    pub compressed: Bytes,
    /// The layers that it was made of, oldest first.
    pub layers: Vec<Layer>,
    /// How its author wants it run.
    pub config: RunConfig,
    /// Whose it is.
    pub owner: Uid,
    /// Whether it is there for its owner and root alone.
    pub private: bool,
    /// Whose signature was checked before it was published, in words; empty when none was wanted.
    pub signature: String,
    /// The kernel that it wants by name; empty when any will do.
    pub kernel: String,
    /// When it was published, in seconds since 1970.
    pub created: i64,
}

impl ImageRow {
    /// What it is called in a sentence: its first name, or its id.
    pub fn called(&self) -> String {
        self.names.first().map_or_else(|| self.id.to_string(), ImageName::to_string)
    }

    /// Whether `name` is one of its names.
    pub fn is_named(&self, name: &ImageName) -> bool {
        self.names.contains(name)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow {
        id: parsed(row, "id")?,
        names: Vec::new(),
        source: parsed(row, "source")?,
        reference: row.get("reference")?,
        digest: row.get("digest")?,
        platform: row.get("platform")?,
        size: Bytes(row.get::<_, i64>("size")? as u64),
        content: Bytes(row.get::<_, i64>("content")? as u64),
        compressed: Bytes(row.get::<_, i64>("compressed")? as u64),
        layers: json(row, "layers")?,
        config: json(row, "config")?,
        owner: Uid(row.get("owner")?),
        private: row.get("private")?,
        signature: row.get("signature")?,
        kernel: row.get("kernel")?,
        created: row.get("created")?,
    })
}

fn names(c: &Connection, image: ImageId) -> rusqlite::Result<Vec<ImageName>> {
    c.prepare_cached("SELECT name FROM image_names WHERE image = ?1 ORDER BY rowid")?
        .query_map([image.to_string()], |row| parsed(row, "name"))?
        .collect()
}

/// The names of all images, in one go.
fn all_names(c: &Connection) -> rusqlite::Result<HashMap<ImageId, Vec<ImageName>>> {
    let mut statement = c.prepare_cached("SELECT image, name FROM image_names ORDER BY rowid")?;
    let mut all: HashMap<ImageId, Vec<ImageName>> = HashMap::new();
    let rows = statement.query_map([], |row| Ok((parsed(row, "image")?, parsed(row, "name")?)))?;
    for row in rows {
        let (image, name) = row?;
        all.entry(image).or_default().push(name);
    }
    Ok(all)
}

fn with_names(c: &Connection, row: ImageRow) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow { names: names(c, row.id)?, ..row })
}

fn add_name(c: &Connection, image: ImageId, name: &ImageName) -> Result<(), StoreError> {
    let row = c.execute(
        "INSERT INTO image_names (name, image) VALUES (?1, ?2)",
        [name.as_str(), &image.to_string()],
    );
    inserted(row, "an image", name.as_str())
}

impl Store {
    /// Adds an image with its names. A name is taken away from the image `instead_of`, if that has it.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another image has one of the names.
    pub fn add_image(&self, image: &ImageRow, instead_of: Option<ImageId>) -> Result<(), StoreError> {
        let (config, layers) = (to_json(&image.config)?, to_json(&image.layers)?);
        self.transaction(|c| {
            c.execute(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                params![
                    image.id.to_string(),
                    image.source.as_str(),
                    image.reference,
                    image.digest,
                    image.platform,
                    image.size.0 as i64,
                    image.content.0 as i64,
                    image.compressed.0 as i64,
                    layers,
                    config,
                    image.owner.0,
                    image.private,
                    image.signature,
                    image.kernel,
                    image.created,
                ],
            )?;
            for name in &image.names {
                if let Some(old) = instead_of {
                    let old = old.to_string();
                    c.execute("DELETE FROM image_names WHERE name = ?1 AND image = ?2", [name.as_str(), &old])?;
                }
                add_name(c, image.id, name)?;
            }
            Ok(())
        })
    }

    /// All images: by name, those without one last.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn images(&self) -> Result<Vec<ImageRow>, StoreError> {
        self.with(|c| {
            let rows: Vec<ImageRow> =
                c.prepare_cached("SELECT * FROM images")?.query_map([], read)?.collect::<Result<_, _>>()?;
            let mut names = all_names(c)?;
            let mut rows: Vec<ImageRow> = rows
                .into_iter()
                .map(|row| ImageRow { names: names.remove(&row.id).unwrap_or_default(), ..row })
                .collect();
            rows.sort_by_key(|row| (row.names.is_empty(), row.called()));
            Ok(rows)
        })
    }

    /// The image with this id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn image(&self, id: ImageId) -> Result<Option<ImageRow>, StoreError> {
        self.with(|c| {
            let row = c.query_row("SELECT * FROM images WHERE id = ?1", [id.to_string()], read).optional()?;
            Ok(row.map(|row| with_names(c, row)).transpose()?)
        })
    }

    /// The image with this name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn image_named(&self, name: &ImageName) -> Result<Option<ImageRow>, StoreError> {
        self.with(|c| {
            let of_name = "SELECT * FROM images WHERE id = (SELECT image FROM image_names WHERE name = ?1)";
            let row = c.query_row(of_name, [name.as_str()], read).optional()?;
            Ok(row.map(|row| with_names(c, row)).transpose()?)
        })
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub fn tag_image(&self, id: ImageId, name: &ImageName) -> Result<(), StoreError> {
        self.with(|c| add_name(c, id, name))
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn untag_image(&self, name: &ImageName) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute("DELETE FROM image_names WHERE name = ?1", [name.as_str()])?;
            Ok(())
        })
    }

    /// Makes an image everybody's, or its owner's alone.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_image_private(&self, id: ImageId, private: bool) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute("UPDATE images SET private = ?2 WHERE id = ?1", params![id.to_string(), private])?;
            Ok(())
        })
    }

    /// Notes whose signature was checked.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_image_signature(&self, id: ImageId, signature: &str) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute(
                "UPDATE images SET signature = ?2 WHERE id = ?1",
                [id.to_string().as_str(), signature],
            )?;
            Ok(())
        })
    }

    /// Removes an image's row and its names.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a VM is made of it.
    pub fn remove_image(&self, id: ImageId) -> Result<(), StoreError> {
        self.with(|c| deleted(c.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])))
    }
}
