//! Imported kernels in the database. The host's own are found in `/boot` and have no row.

use super::{Store, StoreError, deleted, inserted, parsed};
use banger_model::{Bytes, KernelId, KernelName, Uid};
use rusqlite::{Row, params};

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

    /// Removes a kernel's row, unless a VM names the kernel.
    ///
    /// # Errors
    /// [`StoreError::InUse`] then.
    pub fn remove_kernel(&self, kernel: &KernelRow) -> Result<(), StoreError> {
        self.with(|c| {
            // One statement, so that no VM can be made with it in between.
            let unused =
                "DELETE FROM kernels WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM vms WHERE kernel = ?2)";
            match c.execute(unused, [kernel.id.to_string().as_str(), kernel.name.as_str()]) {
                Ok(0) => Err(StoreError::InUse),
                result => deleted(result),
            }
        })
    }
}
