//! Snapshots on disk: a folder each, in the VM's own, made under another name and renamed when it is whole.
//!
//! `snapshot.json` says what there is; `memory` is QEMU's stream or Firecracker's memory, `state` Firecracker's processors and
//! devices; the disk is a copy that shares blocks where the filesystem can.

use crate::{error::Error, service::Service};
use banger_dbus::SnapshotInfo;
use banger_host::VmmKind;
use banger_model::{Accel, Bytes, MachineSize, VmId, VmName};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Most snapshots of one VM.
pub const MOST: usize = 32;

/// The description of a snapshot, in its folder.
const DESCRIPTION: &str = "snapshot.json";
/// Its memory.
pub const MEMORY: &str = "memory";
/// The file that is the VM's disk, in whatever form it has there.
pub const DISK: &str = "disk";
/// Its processors and devices, where they are not in the memory's file.
pub const STATE: &str = "state";
/// Ends the name of one that is being made, or being removed. No snapshot's name has a dot.
const UNFINISHED: &str = ".unfinished";

/// What there is of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What ran it: only that can go on with it.
    pub vmm: VmmKind,
    /// Its version.
    pub version: String,
    /// On what it ran.
    pub accel: Accel,
    /// Processors, memory and disk then.
    pub size: MachineSize,
    /// The kernel that was booted, by name.
    pub kernel: String,
}

/// The folder of a VM's snapshots.
fn folder(service: &Service, id: VmId) -> PathBuf {
    service.vm_folder(id).join("snapshots")
}

/// The folder of one of them, whether it exists or not.
pub fn place(service: &Service, id: VmId, name: &VmName) -> PathBuf {
    folder(service, id).join(name.as_str())
}

/// What is said of a snapshot.
///
/// # Errors
/// [`Error::NotFound`], or what failed.
pub fn read(service: &Service, id: VmId, name: &VmName) -> Result<Snapshot, Error> {
    let path = place(service, id, name).join(DESCRIPTION);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { what: "snapshot", wanted: name.to_string() },
        _ => Error::disk(&path, error),
    })?;
    serde_json::from_slice(&text).map_err(|error| Error::disk(&path, error.into()))
}

/// A VM's snapshots, by name.
///
/// # Errors
/// What failed.
pub fn all(service: &Service, id: VmId) -> Result<Vec<(VmName, Snapshot)>, Error> {
    let folder = folder(service, id);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::disk(&folder, error))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<VmName>().ok());
    let mut all =
        names.map(|name| Ok((name.clone(), read(service, id, &name)?))).collect::<Result<Vec<_>, Error>>()?;
    all.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    Ok(all)
}

/// What is told of one.
pub fn info(service: &Service, id: VmId, name: &VmName, snapshot: &Snapshot) -> SnapshotInfo {
    let place = place(service, id, name);
    SnapshotInfo {
        name: name.to_string(),
        created: snapshot.created.max(0) as u64,
        memory: Bytes(taken(&place.join(MEMORY)).0 + taken(&place.join(STATE)).0),
        disk: taken(&place.join(DISK)),
        vmm: snapshot.vmm.to_string(),
        accel: snapshot.accel.to_string(),
    }
}

/// Bytes that a file takes; none where there is none.
fn taken(path: &Path) -> Bytes {
    Bytes(fs::metadata(path).map(|m| m.blocks() * 512).unwrap_or(0))
}

/// A snapshot that is being made. It goes when this is dropped, unless it was finished.
pub struct Draft {
    path: PathBuf,
    whole: PathBuf,
    finished: bool,
}

impl Draft {
    /// Begins one.
    ///
    /// # Errors
    /// [`Error::Named`] when there are too many, or the name is taken; what failed.
    pub fn begin(service: &Service, id: VmId, name: &VmName) -> Result<Self, Error> {
        let existing = all(service, id)?;
        if existing.iter().any(|(other, _)| other == name) {
            let text = format!(
                "there is a snapshot {:?} already: delete it first, or take another name",
                name.as_str()
            );
            return Err(banger_dbus::Error::AlreadyExists(text).into());
        }
        if existing.len() >= MOST {
            let text = format!("this VM has {MOST} snapshots, as many as one may have: delete one");
            return Err(banger_dbus::Error::QuotaExceeded(text).into());
        }
        let whole = place(service, id, name);
        let path = unfinished(&whole);
        // One of the same name that a service left which was killed.
        let _ = fs::remove_dir_all(&path);
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&path);
        made.map_err(|error| Error::disk(&path, error))?;
        Ok(Self { path, whole, finished: false })
    }

    /// Where its files go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it durable, and then whole: after a power cut it is there or it is not.
    ///
    /// # Errors
    /// What failed; it is gone then.
    pub fn finish(mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let failed = |error| Error::disk(&self.path, error);
        let text = serde_json::to_vec(snapshot).map_err(|error| failed(error.into()))?;
        fs::write(self.path.join(DESCRIPTION), text).map_err(failed)?;
        for entry in fs::read_dir(&self.path).map_err(failed)?.flatten() {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        sync_folder(&self.path).map_err(failed)?;
        fs::rename(&self.path, &self.whole).map_err(failed)?;
        if let Some(above) = self.whole.parent() {
            sync_folder(above).map_err(failed)?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn unfinished(whole: &Path) -> PathBuf {
    let mut name = whole.file_name().unwrap_or_default().to_os_string();
    name.push(UNFINISHED);
    whole.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Deletes a snapshot.
///
/// # Errors
/// [`Error::NotFound`], or what failed.
pub fn remove(service: &Service, id: VmId, name: &VmName) -> Result<(), Error> {
    read(service, id, name)?;
    let whole = place(service, id, name);
    let going = unfinished(&whole);
    let gone = fs::rename(&whole, &going).and_then(|()| fs::remove_dir_all(&going));
    gone.map_err(|error| Error::disk(&whole, error))
}

/// Removes what was being made, or being removed, of a VM's snapshots when the service was killed.
pub fn sweep(service: &Service, id: VmId) {
    let entries = fs::read_dir(folder(service, id)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(UNFINISHED)) {
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(vm = %id, %error, "an unfinished snapshot stays");
        }
    }
}

/// Refuses what would fill the host's disk: `needed` bytes, and a reserve.
///
/// # Errors
/// [`Error::NoSpace`].
pub fn check_space(service: &Service, id: VmId, needed: Bytes) -> Result<(), Error> {
    const RESERVE: u64 = Bytes::mib(128).0;
    let path = service.vm_folder(id);
    let Ok(stat) = nix::sys::statvfs::statvfs(&path) else { return Ok(()) };
    let available = stat.blocks_available().saturating_mul(stat.fragment_size());
    match available < needed.0.saturating_add(RESERVE) {
        true => Err(Error::NoSpace { path }),
        false => Ok(()),
    }
}

/// Where a VMM that opens all by name finds a snapshot's files, in a VM's folder.
pub fn handed(service: &Service, id: VmId) -> PathBuf {
    service.vm_folder(id).join("vmm")
}

/// The folder for a snapshot's files, which the VM's user may pass through once it has been handed to it: nobody else comes
/// past the folders above.
///
/// # Errors
/// When it cannot be made.
pub fn open_folder(service: &Service, id: VmId) -> Result<OwnedFd, Error> {
    let path = handed(service, id);
    let made = match DirBuilder::new().mode(0o711).create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let opened = made.and_then(|()| File::open(&path)).map_err(|error| Error::disk(&path, error))?;
    // Whatever mask the service was started with.
    set_mode(&path, 0o711)?;
    Ok(opened.into())
}

/// Sets a file's mode: what a VM's user may do with it while it has the folder.
///
/// # Errors
/// What failed.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| Error::disk(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use banger_model::Cpus;

    fn snapshot() -> Snapshot {
        let size = MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: Bytes::gib(1) };
        let (vmm, accel) = (VmmKind::Qemu, Accel::Tcg);
        Snapshot { created: 7, vmm, version: "7.2.0".into(), accel, size, kernel: "host".into() }
    }

    #[tokio::test]
    async fn one_is_there_whole_or_not_at_all() {
        let bench = bench().await;
        let (service, id) = (&bench.service, VmId::from_bits(5));
        let name: VmName = "first".parse().unwrap();
        let draft = Draft::begin(service, id, &name).unwrap();
        fs::write(draft.path().join(MEMORY), [7; 5000]).unwrap();
        assert!(all(service, id).unwrap().is_empty(), "it is not whole yet");
        assert!(matches!(read(service, id, &name), Err(Error::NotFound { .. })));
        drop(draft);
        assert_eq!(fs::read_dir(folder(service, id)).unwrap().count(), 0, "what fails leaves nothing");

        Draft::begin(service, id, &name).unwrap().finish(&snapshot()).unwrap();
        assert_eq!(all(service, id).unwrap(), [(name.clone(), snapshot())]);
        assert!(matches!(Draft::begin(service, id, &name), Err(Error::Named(_))), "the name is taken");

        // A service that is killed leaves the one that it was making.
        std::mem::forget(Draft::begin(service, id, &"second".parse().unwrap()).unwrap());
        assert_eq!(all(service, id).unwrap().len(), 1);
        sweep(service, id);
        assert_eq!(fs::read_dir(folder(service, id)).unwrap().count(), 1);

        remove(service, id, &name).unwrap();
        assert!(matches!(remove(service, id, &name), Err(Error::NotFound { .. })));
        assert!(all(service, id).unwrap().is_empty());
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let bench = bench().await;
        let (service, id) = (&bench.service, VmId::from_bits(6));
        for number in 0..MOST {
            let name = format!("s{number}").parse().unwrap();
            Draft::begin(service, id, &name).unwrap().finish(&snapshot()).unwrap();
        }
        let error = Draft::begin(service, id, &"more".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("delete one"), "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_is_known_before() {
        let bench = bench().await;
        let vm = VmId::from_bits(7);
        fs::create_dir_all(bench.service.vm_folder(vm)).unwrap();
        assert!(check_space(&bench.service, vm, Bytes::mib(1)).is_ok());
        assert!(matches!(check_space(&bench.service, vm, Bytes(u64::MAX / 2)), Err(Error::NoSpace { .. })));
    }
}
