//! Imported kernels in the database. The host's own are found in `/boot` and have no row.

use super::{Store, StoreError, deleted, inserted, parsed};
use banger_model::{Bytes, KernelId, KernelName, Uid};
use rusqlite::{OptionalExtension, Row, params};

/// The fact that holds the default kernel's name.
const DEFAULT: &str = "default-kernel";

/// A kernel that somebody imported.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelRow {
    /// Its id, also its folder's name.
    pub id: KernelId,
    /// Its name on this host.
    pub name: KernelName,
    /// What `uname -r` says in it, as far as its file tells; else empty.
    pub release: String,
    /// Bytes of the kernel's file.
    pub size: Bytes,
    /// Whether modules came with it.
    pub has_modules: bool,
    /// Whether an initrd came with it.
    pub has_initrd: bool,
    /// Who imported it.
    pub owner: Uid,
    /// When, in seconds since 1970.
    pub created: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<KernelRow> {
    Ok(KernelRow {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        release: row.get("release")?,
        size: Bytes(row.get::<_, i64>("size")? as u64),
        has_modules: row.get("has_modules")?,
        has_initrd: row.get("has_initrd")?,
        owner: Uid(row.get("owner")?),
        created: row.get("created")?,
    })
}

impl Store {
    /// Adds a kernel.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is.
    pub fn add_kernel(&self, kernel: &KernelRow) -> Result<(), StoreError> {
        self.with(|c| {
            let row = c.execute(
                "INSERT INTO kernels VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    kernel.id.to_string(),
                    kernel.name.as_str(),
                    kernel.release,
                    kernel.size.0 as i64,
                    kernel.has_modules,
                    kernel.has_initrd,
                    kernel.owner.0,
                    kernel.created,
                ],
            );
            inserted(row, "a kernel", kernel.name.as_str())
        })
    }

    /// All imported kernels, by name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn kernels(&self) -> Result<Vec<KernelRow>, StoreError> {
        self.with(|c| {
            Ok(c.prepare("SELECT * FROM kernels ORDER BY name")?
                .query_map([], read)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// The name of the kernel that was made the default, if one was.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn default_kernel(&self) -> Result<Option<String>, StoreError> {
        Ok(self.fact(DEFAULT)?.filter(|name| !name.is_empty()))
    }

    /// Makes a kernel the default, or none. `row` is that of an imported one.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when an imported one is no longer there.
    pub fn set_default_kernel(&self, name: Option<&str>, row: Option<KernelId>) -> Result<(), StoreError> {
        self.transaction(|c| {
            if let Some(id) = row {
                let found = c.query_row("SELECT 1 FROM kernels WHERE id = ?1", [id.to_string()], |_| Ok(()));
                found.optional()?.ok_or(StoreError::Gone)?;
            }
            c.execute(
                "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                [DEFAULT, name.unwrap_or_default()],
            )?;
            Ok(())
        })
    }

    /// Removes a kernel's row, unless a VM names the kernel, an image wants it or it was made the default.
    ///
    /// # Errors
    /// [`StoreError::InUse`] then.
    pub fn remove_kernel(&self, kernel: &KernelRow) -> Result<(), StoreError> {
        self.with(|c| {
            // One statement, so that no VM can be made with it in between.
            let unused = "DELETE FROM kernels WHERE id = ?1
                AND NOT EXISTS (SELECT 1 FROM vms WHERE kernel = ?2)
                AND NOT EXISTS (SELECT 1 FROM images WHERE kernel = ?2)
                AND NOT EXISTS (SELECT 1 FROM facts WHERE key = ?3 AND value = ?2)";
            match c.execute(unused, [kernel.id.to_string().as_str(), kernel.name.as_str(), DEFAULT]) {
                Ok(0) => Err(StoreError::InUse),
                result => deleted(result),
            }
        })
    }
}
