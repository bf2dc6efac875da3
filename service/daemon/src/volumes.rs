//! Volumes: disks of their own, which VMs have at a path and which stay when a VM goes.

use crate::{
    error::Error,
    gate::Caller,
    ids, lookup,
    service::Service,
    store::{ImageRow, Mounted, VmRow, VolumeRow},
};
use banger_guest::Mount;
use banger_image::Seed;
use banger_model::{Bytes, DiskNumber, Limits, ModelError, Uid, VolumeId, VolumeName};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// The smallest volume: below, a filesystem has no room for its own structures.
pub const LEAST: Bytes = Bytes::mib(16);

/// Where the work disk is.
pub const WORK: &str = "/root";

impl Service {
    /// The folder of volumes.
    pub fn volumes(&self) -> PathBuf {
        self.config.state.join("volumes")
    }

    /// A volume's filesystem.
    pub fn volume_file(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string()).join("volume.ext4")
    }

    /// The volume that `wanted` means among those that the caller sees; their own come first.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Ambiguous`].
    pub fn find_volume(&self, caller: &Caller, wanted: &str) -> Result<VolumeRow, Error> {
        let mut volumes = self.store.volumes()?;
        volumes.retain(|volume| caller.sees(volume.owner));
        volumes.sort_by_key(|volume| volume.owner != caller.uid);
        lookup::find("volume", wanted, &volumes, |v| (v.name.to_string(), v.id.to_string())).cloned()
    }

    /// The volume with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn volume(&self, id: VolumeId) -> Result<VolumeRow, Error> {
        self.store.volume(id)?.ok_or_else(|| Error::NotFound { what: "volume", wanted: id.to_string() })
    }

    /// The VMs that have a volume.
    ///
    /// # Errors
    /// When the database fails.
    pub fn users_of_volume(&self, id: VolumeId) -> Result<Vec<VmRow>, Error> {
        let mut vms = self.store.vms()?;
        vms.retain(|vm| vm.spec.volumes.iter().any(|mounted| mounted.volume == id));
        Ok(vms)
    }
}

/// A volume to be written down.
///
/// # Errors
/// [`ModelError::Range`] for a size that no volume has.
pub fn new(name: VolumeName, owner: Uid, size: Bytes) -> Result<VolumeRow, Error> {
    if size < LEAST || size > Limits::MOST_DISK {
        return Err(ModelError::Range {
            what: "size",
            value: size.to_string(),
            least: LEAST.to_string(),
            most: Limits::MOST_DISK.to_string(),
        }
        .into());
    }
    // Whole blocks, as the filesystem has them.
    let size = Bytes(size.0 / 4096 * 4096);
    let id = VolumeId::from_bits(ids::random()?);
    Ok(VolumeRow { id, name, owner, size, made: false, created: ids::now().seconds })
}

/// A volume that a VM is to have, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The volume's name: one of the VM's owner.
    pub name: String,
    /// Where in the guest.
    pub path: String,
    /// Whether the guest only reads it.
    pub read_only: bool,
}

/// The volumes that are asked for, and those of them that are not there yet: they are made with the VM.
///
/// # Errors
/// [`Error::Spec`] for too many, or one twice; a name that cannot be one.
pub fn resolve(
    service: &Service,
    owner: Uid,
    asked: &[Asked],
) -> Result<(Vec<Mounted>, Vec<VolumeRow>), Error> {
    if asked.len() > usize::from(DiskNumber::MOST) {
        return Err(Error::Spec(format!("a VM has at most {} volumes", DiskNumber::MOST)));
    }
    let known = service.store.volumes()?;
    let (mut mounted, mut fresh): (Vec<Mounted>, Vec<VolumeRow>) = (Vec::new(), Vec::new());
    for Asked { name, path, read_only } in asked {
        let name: VolumeName = name.parse()?;
        let here = known.iter().find(|volume| volume.owner == owner && volume.name == name);
        let volume = match here {
            Some(volume) => volume.id,
            None => {
                let volume = new(name.clone(), owner, service.config.disks.volume_size)?;
                let id = volume.id;
                fresh.push(volume);
                id
            }
        };
        let twice = fresh.iter().filter(|volume| volume.name == name).count() > 1;
        if twice || mounted.iter().any(|other| other.volume == volume) {
            return Err(Error::Spec(format!("the volume {name} is asked for twice")));
        }
        mounted.push(Mounted { volume, path: path.clone(), read_only: *read_only });
    }
    Ok((mounted, fresh))
}

/// What the guest is told of its volumes.
pub fn mounts(volumes: &[Mounted]) -> Vec<Mount> {
    let mounts = DiskNumber::volumes().zip(volumes).map(|(disk, mounted)| Mount {
        device: disk.guest_device(),
        path: mounted.path.clone(),
        read_only: mounted.read_only,
    });
    mounts.collect()
}

/// Makes the filesystems of a VM's volumes that have none yet, with what the VM's image has at their paths.
///
/// # Errors
/// What the image or the disk says. A volume that could not be made is tried again at its next use.
pub async fn prepare(
    service: &Arc<Service>,
    vm: &VmRow,
    image: &ImageRow,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    for mounted in vm.spec.volumes.clone() {
        // Two VMs may want to be the first.
        let _one = service.making_volume.lock().await;
        let volume = service.volume(mounted.volume)?;
        if volume.made {
            continue;
        }
        let rootfs = service.open_rootfs(image)?;
        let (of, cancel) = (service.clone(), cancel.clone());
        tokio::task::spawn_blocking(move || {
            make(&of, &volume, Some((&rootfs, &mounted.path)), &cancel)?;
            Ok::<_, Error>(of.store.set_volume_made(volume.id)?)
        })
        .await??;
    }
    Ok(())
}

/// Makes a volume's filesystem, whole or not at all.
fn make(
    service: &Service,
    volume: &VolumeRow,
    from: Option<(&File, &str)>,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let path = service.volume_file(volume.id);
    let draft = path.with_extension("draft");
    let failed = |error| Error::disk(&path, error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let file = file.map_err(failed)?;
    let id = ids::random()?.to_le_bytes();
    let uuid = [id, ids::random()?.to_le_bytes()].concat().try_into().unwrap_or([1; 16]);
    let (rootfs, at) = from.map_or((None, "/"), |(rootfs, at)| (Some(rootfs), at));
    let seed = Seed { rootfs, path: at, size: volume.size, uuid, on: &draft };
    let written = banger_image::seed(&seed, &file, &service.config.limits.0, cancel)
        .map_err(Error::from)
        .and_then(|()| file.sync_all().map_err(failed))
        .and_then(|()| fs::rename(&draft, &path).map_err(failed))
        .and_then(|()| File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Has a VM's volumes attached for its start.
///
/// # Errors
/// [`Error::VolumeInUse`] while another VM runs with one that either of them writes to; what the helper says.
pub async fn attach(service: &Service, vm: &VmRow) -> Result<(), Error> {
    for (disk, mounted) in DiskNumber::volumes().zip(&vm.spec.volumes) {
        let volume = service.volume(mounted.volume)?;
        if let Some(other) = in_the_way(&service.users_of_volume(volume.id)?, vm, mounted) {
            let (name, by) = (volume.name.to_string(), other.name.to_string());
            return Err(Error::VolumeInUse { name, by });
        }
        let path = service.volume_file(volume.id);
        let file = OpenOptions::new().read(true).write(!mounted.read_only).open(&path);
        let file = file.map_err(|error| Error::disk(&path, error))?.into();
        service.host.attach_loop(vm.id, vm.slot, disk, !mounted.read_only, file).await?;
    }
    Ok(())
}

/// The VM that has the volume and runs, so that this one cannot have it too.
fn in_the_way<'a>(users: &'a [VmRow], vm: &VmRow, wanted: &Mounted) -> Option<&'a VmRow> {
    users.iter().filter(|other| other.id != vm.id && other.state.may_have_process()).find(|other| {
        let theirs = other.spec.volumes.iter().filter(|mounted| mounted.volume == wanted.volume);
        theirs.into_iter().any(|mounted| !(mounted.read_only && wanted.read_only))
    })
}

/// Undoes [`attach`], whether or not it was done.
///
/// # Errors
/// What the helper says.
pub async fn detach(service: &Service, vm: &VmRow) -> Result<(), Error> {
    for (disk, _) in DiskNumber::volumes().zip(&vm.spec.volumes) {
        service.host.detach_disk(vm.id, disk).await?;
    }
    Ok(())
}

/// Deletes a volume with all that is in it.
///
/// # Errors
/// [`Error::InUse`] while a VM has it.
pub async fn delete(service: &Arc<Service>, id: VolumeId) -> Result<(), Error> {
    let _one = service.making_volume.lock().await;
    let volume = service.volume(id)?;
    let users = service.users_of_volume(id)?;
    if !users.is_empty() {
        let by = users.iter().map(|vm| vm.name.to_string()).collect();
        return Err(Error::InUse { what: "volume", name: volume.name.to_string(), by });
    }
    // A folder without a row is swept at the next start.
    service.store.remove_volume(id)?;
    service.hide_volume(id).await;
    let folder = service.volumes().join(id.to_string());
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::disk(&folder, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use banger_model::VmState;

    const ALICE: Uid = Uid(1000);

    fn asked(name: &str, path: &str) -> Asked {
        Asked { name: name.into(), path: path.into(), read_only: false }
    }

    #[tokio::test]
    async fn what_is_not_there_is_made_and_what_is_there_is_found() {
        let bench = bench().await;
        let service = &bench.service;
        let there = new("there".parse().unwrap(), ALICE, Bytes::mib(64)).unwrap();
        let theirs = new("fresh".parse().unwrap(), Uid(1001), Bytes::mib(64)).unwrap();
        service.store.add_volume(&there).unwrap();
        service.store.add_volume(&theirs).unwrap();
        let (mounted, fresh) =
            resolve(service, ALICE, &[asked("there", "/a"), asked("fresh", "/b")]).unwrap();
        assert_eq!(mounted[0].volume, there.id);
        assert_eq!((fresh.len(), fresh[0].id), (1, mounted[1].volume));
        assert_ne!(fresh[0].id, theirs.id, "another user's is another");
        for wrong in [vec![asked("a", "/a"), asked("a", "/b")], vec![asked("-", "/a")]] {
            assert!(resolve(service, ALICE, &wrong).is_err(), "{wrong:?}");
        }
        let many: Vec<Asked> = (0..9).map(|n| asked(&format!("v{n}"), &format!("/{n}"))).collect();
        assert!(resolve(service, ALICE, &many).is_err());
    }

    #[tokio::test]
    async fn one_writer_or_many_readers() {
        let bench = bench().await;
        let volume = VolumeId::from_bits(1);
        let vm = |name: &str, state, read_only| {
            let mut vm = bench.service.vm(bench.add_vm(name, state)).unwrap();
            vm.spec.volumes = vec![Mounted { volume, path: "/v".into(), read_only }];
            vm
        };
        let writer = vm("writer", VmState::Running, false);
        let reader = vm("reader", VmState::Running, true);
        let stopped = vm("stopped", VmState::Stopped, false);
        let (to_write, to_read) = (vm("w", VmState::Starting, false), vm("r", VmState::Starting, true));
        let blocked = |users: &[&VmRow], vm: &VmRow| {
            let users: Vec<VmRow> = users.iter().map(|vm| (*vm).clone()).collect();
            in_the_way(&users, vm, &vm.spec.volumes[0]).map(|vm| vm.name.to_string())
        };
        assert_eq!(blocked(&[&writer], &to_read).as_deref(), Some("writer"));
        assert_eq!(blocked(&[&reader], &to_write).as_deref(), Some("reader"));
        assert_eq!(blocked(&[&reader, &stopped], &to_read), None);
        assert_eq!(blocked(&[&stopped, &to_write], &to_write), None, "not by itself");
    }

    #[test]
    fn sizes_have_a_range() {
        let size = |size| new("a".parse().unwrap(), ALICE, size).map(|volume| volume.size);
        assert_eq!(size(LEAST).unwrap(), LEAST);
        assert_eq!(size(Bytes(LEAST.0 + 4095)).unwrap(), LEAST);
        assert!(size(Bytes(LEAST.0 - 1)).is_err() && size(Bytes(u64::MAX)).is_err());
    }
}
