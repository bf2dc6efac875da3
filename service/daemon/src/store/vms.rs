//! VMs in the database, and the journal of the steps of their start.

use super::{Store, StoreError, deleted, inserted, json, parsed, to_json};
use crate::config::VmmChoice;
use banger_agent::ExitStatus;
use banger_host::IoLimits;
use banger_model::{
    Accel, DiskBackend, ImageId, MachineSize, ModelError, NetworkRules, Restart, Slot, StartStep, Uid, VmId,
    VmName, VmState, VolumeId,
};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// What a VM was asked to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Processors, memory and disk.
    pub size: MachineSize,
    /// Whether it goes by itself when it stops.
    pub remove: bool,
    /// Whether the guest starts a command by itself at boot.
    pub main: bool,
    /// That command, instead of the image's own; empty for the image's own.
    pub command: Vec<String>,
    /// Environment of that command, `NAME=value`, over the image's own.
    pub environment: Vec<String>,
    /// The user that it runs as; empty for the image's own.
    pub user: String,
    /// The folder that it runs in; empty for the image's own.
    pub working_directory: String,
    /// What is to run it.
    #[serde(default)]
    pub vmm: VmmChoice,
    /// The most that it may do.
    #[serde(default)]
    pub limits: IoLimits,
    /// Whether the VM ends when that command does.
    #[serde(default)]
    pub ends_with_main: bool,
    /// Whether it starts with the host.
    #[serde(default)]
    pub autostart: bool,
    /// Whether it starts again when it ended.
    #[serde(default)]
    pub restart: Restart,
    /// Seconds without use after which it is stopped; 0 for never.
    #[serde(default)]
    pub idle_stop: u32,
    /// What its packets may.
    #[serde(default)]
    pub network: NetworkRules,
    /// How its disk is made of its image.
    #[serde(default)]
    pub disk_backend: DiskBackend,
    /// The volumes that it has.
    #[serde(default)]
    pub volumes: Vec<Mounted>,
}

impl VmSpec {
    /// Whether its guest may write to what outlives it.
    pub fn writes_volumes(&self) -> bool {
        self.volumes.iter().any(|volume| !volume.read_only)
    }
}

/// A volume of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Which volume.
    pub volume: VolumeId,
    /// Where in the guest.
    pub path: String,
    /// Whether the guest only reads it.
    pub read_only: bool,
}

/// A VM.
#[derive(Debug, Clone)]
pub struct VmRow {
    /// Its id, also its folder's name.
    pub id: VmId,
    /// Its name, a DNS label.
    pub name: VmName,
    /// Whose it is.
    pub owner: Uid,
    /// What its disk was made of.
    pub image: ImageId,
    /// The name of its kernel: `host` or an imported one.
    pub kernel: String,
    /// What it was asked to be.
    pub spec: VmSpec,
    /// Its slot, for as long as it exists.
    pub slot: Slot,
    /// Where it is in its life.
    pub state: VmState,
    /// Why it failed last; empty when it did not.
    pub error: String,
    /// What its guest was last started with.
    pub accel: Option<Accel>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it last became ready, in seconds since 1970; 0 for never.
    pub started: i64,
    /// Whether its disk is whole.
    pub has_disk: bool,
    /// The phases of its last boot, each with the milliseconds since the guest's kernel started.
    pub boot: Vec<(String, u32)>,
    /// How its main process ended last, where that is known.
    pub exit: Option<ExitStatus>,
    /// Whether it is to run, as far as anybody said: since its start, until somebody stopped it.
    pub wanted: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<VmRow> {
    let refused = |error: ModelError| rusqlite::types::FromSqlError::Other(Box::new(error));
    let accel: String = row.get("accel")?;
    Ok(VmRow {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        owner: Uid(row.get("owner")?),
        image: parsed(row, "image")?,
        kernel: row.get("kernel")?,
        spec: json(row, "spec")?,
        slot: Slot::try_from(row.get::<_, u16>("slot")?).map_err(refused)?,
        state: json(row, "state")?,
        error: row.get("error")?,
        accel: accel.parse().ok(),
        created: row.get("created")?,
        started: row.get("started")?,
        has_disk: row.get("has_disk")?,
        boot: json(row, "boot")?,
        exit: json(row, "exit")?,
        wanted: row.get("wanted")?,
    })
}

impl Store {
    /// Adds a VM. It is durable together with [`Store::set_vm_has_disk`], before which nobody was told that it is made.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is, or its slot.
    pub fn add_vm(&self, vm: &VmRow) -> Result<(), StoreError> {
        let (spec, state) = (to_json(&vm.spec)?, to_json(&vm.state)?);
        self.soon(|c| {
            let row = c.execute(
                "INSERT INTO vms (id, name, owner, image, kernel, spec, slot, state, created)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    vm.id.to_string(),
                    vm.name.as_str(),
                    vm.owner.0,
                    vm.image.to_string(),
                    vm.kernel,
                    spec,
                    u16::from(vm.slot),
                    state,
                    vm.created,
                ],
            );
            inserted(row, "a VM", vm.name.as_str())
        })
    }

    /// The lowest slot that no VM has, if any is left.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn free_slot(&self) -> Result<Option<Slot>, StoreError> {
        let taken: std::collections::HashSet<u16> = self.with(|c| {
            Ok(c.prepare("SELECT slot FROM vms")?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?)
        })?;
        Ok(Slot::all().find(|slot| !taken.contains(&u16::from(*slot))))
    }

    /// All VMs, by name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        self.with(|c| {
            Ok(c.prepare("SELECT * FROM vms ORDER BY name")?
                .query_map([], read)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// The VM with this id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn vm(&self, id: VmId) -> Result<Option<VmRow>, StoreError> {
        self.with(|c| {
            Ok(c.query_row("SELECT * FROM vms WHERE id = ?1", [id.to_string()], read).optional()?)
        })
    }

    /// Writes down a VM's state and why it failed (empty for no failure).
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_state(&self, id: VmId, state: VmState, error: &str) -> Result<(), StoreError> {
        let state = to_json(&state)?;
        self.update_soon(
            "UPDATE vms SET state = ?2, error = ?3 WHERE id = ?1",
            params![id.to_string(), state, error],
        )
    }

    /// Writes down that a VM begins to start, which is what somebody wants, and how it ended before no longer counts.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_starting(&self, id: VmId) -> Result<(), StoreError> {
        let state = to_json(&VmState::Starting)?;
        self.update_soon(
            "UPDATE vms SET state = ?2, error = '', wanted = 1, exit = 'null' WHERE id = ?1",
            params![id.to_string(), state],
        )
    }

    /// Writes down whether a VM is to run.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_wanted(&self, id: VmId, wanted: bool) -> Result<(), StoreError> {
        self.update("UPDATE vms SET wanted = ?2 WHERE id = ?1", params![id.to_string(), wanted])
    }

    /// Writes down how a VM's main process ended.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_exit(&self, id: VmId, exit: ExitStatus) -> Result<(), StoreError> {
        let exit = to_json(&exit)?;
        self.update("UPDATE vms SET exit = ?2 WHERE id = ?1", params![id.to_string(), exit])
    }

    /// Writes down what a VM is to be from now on.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another VM has the name.
    pub fn change_vm(&self, id: VmId, name: &VmName, spec: &VmSpec) -> Result<(), StoreError> {
        let spec = to_json(spec)?;
        self.with(|c| {
            let values = params![id.to_string(), name.as_str(), spec];
            let row = c.execute("UPDATE vms SET name = ?2, spec = ?3 WHERE id = ?1", values);
            inserted(row, "a VM", name.as_str())
        })
    }

    /// Writes down that a VM's guest is ready.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_running(
        &self,
        id: VmId,
        accel: Accel,
        started: i64,
        boot: &[(String, u32)],
    ) -> Result<(), StoreError> {
        let (state, boot) = (to_json(&VmState::Running)?, to_json(&boot)?);
        self.update_soon(
            "UPDATE vms SET state = ?2, error = '', accel = ?3, started = ?4, boot = ?5 WHERE id = ?1",
            params![id.to_string(), state, accel.as_str(), started, boot],
        )
    }

    /// Writes down what a VM's packets may from now on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_network(&self, id: VmId, rules: &NetworkRules) -> Result<(), StoreError> {
        let rules = to_json(rules)?;
        self.update(
            "UPDATE vms SET spec = json_set(spec, '$.network', json(?2)) WHERE id = ?1",
            params![id.to_string(), rules],
        )
    }

    /// Writes down that a VM's disk is whole.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn set_vm_has_disk(&self, id: VmId) -> Result<(), StoreError> {
        self.update("UPDATE vms SET has_disk = 1 WHERE id = ?1", params![id.to_string()])
    }

    /// Removes a VM's row and its journal.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn remove_vm(&self, id: VmId) -> Result<(), StoreError> {
        self.with(|c| deleted(c.execute("DELETE FROM vms WHERE id = ?1", [id.to_string()])))
    }

    /// Journals the steps of a start that leave something to undo, before the first of them acts.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn begin_steps(&self, vm: VmId) -> Result<(), StoreError> {
        self.soon(|c| {
            let transaction = c.unchecked_transaction()?;
            for step in StartStep::PLAN.iter().filter(|step| step.undo().is_some()) {
                let mut insert =
                    transaction.prepare_cached("INSERT OR REPLACE INTO steps VALUES (?1, ?2)")?;
                insert.execute(params![vm.to_string(), step.word()])?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Takes a step out of the journal, after its undo.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn end_step(&self, vm: VmId, step: StartStep) -> Result<(), StoreError> {
        self.update_soon(
            "DELETE FROM steps WHERE vm = ?1 AND step = ?2",
            params![vm.to_string(), step.word()],
        )
    }

    /// The steps that were begun and not undone, in the plan's order.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn begun_steps(&self, vm: VmId) -> Result<Vec<StartStep>, StoreError> {
        let names: Vec<String> = self.with(|c| {
            let mut statement = c.prepare("SELECT step FROM steps WHERE vm = ?1")?;
            Ok(statement.query_map([vm.to_string()], |r| r.get(0))?.collect::<Result<_, _>>()?)
        })?;
        Ok(StartStep::PLAN.iter().copied().filter(|step| names.iter().any(|n| n == step.word())).collect())
    }

    fn update(&self, statement: &str, values: impl rusqlite::Params + Copy) -> Result<(), StoreError> {
        self.with(|c| {
            c.execute(statement, values)?;
            Ok(())
        })
    }

    /// What a power cut may undo: after it the VM is at rest whatever is written here.
    fn update_soon(&self, statement: &str, values: impl rusqlite::Params + Copy) -> Result<(), StoreError> {
        self.soon(|c| {
            c.execute(statement, values)?;
            Ok(())
        })
    }
}
