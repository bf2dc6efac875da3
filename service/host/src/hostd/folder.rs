//! A VM's run folder: its sockets, its record, and what its VMM wrote to standard error.

use crate::record::Record;
use crate::refused::{Result, system};
use banger_model::VmId;
use banger_vmm::firecracker::paths;
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, chown, mknodat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How much of a VMM's last words is told.
const TAIL: u64 = 2 << 10;

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The run folder of one VM. Only root writes in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of `vm` below `root`, whether it exists or not.
    pub fn of(root: &Path, vm: VmId) -> Self {
        Self { path: root.join(vm.to_string()) }
    }

    /// Makes it, for root alone. It must not exist yet.
    pub fn create(&self) -> Result<()> {
        let made = DirBuilder::new().mode(0o700).create(&self.path);
        made.map_err(system(format!("making {}", self.path.display())))
    }

    /// Lets the owner's group look into it.
    pub fn open_to(&self, owner: Owner) -> Result<()> {
        give(&self.path, Uid::ROOT, owner.gid, 0o750)
            .map_err(system(format!("opening {}", self.path.display())))
    }

    /// A socket in it that listens, to which only `owner` can connect. While the folder is root's alone nobody
    /// comes near it, so there is no moment between bind and chmod.
    pub fn listen(&self, name: &str, owner: Owner) -> Result<OwnedFd> {
        let path = self.path.join(name);
        let make = || {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, &SocketAddrUnix::new(&path)?)?;
            give(&path, Uid::from_raw(owner.uid), owner.gid, 0o600)?;
            listen(&socket, 8)?;
            Ok(socket)
        };
        make().map_err(system(format!("listening at {}", path.display())))
    }

    /// The part of it in which the VMM itself makes sockets, which the owner's group can reach: files there get that group.
    pub fn own_part(&self, uid: u32, owner: Owner) -> Result<PathBuf> {
        let path = self.path.join(paths::OUTSIDE);
        let make = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            fifo(&path.join(paths::METRICS_NAME), Uid::from_raw(uid), owner.gid, 0o660)?;
            give(&path, Uid::from_raw(uid), owner.gid, 0o2710)
        };
        make().map_err(system(format!("making {}", path.display())))?;
        Ok(path)
    }

    /// Writes down which TAP was lent: it has to be taken back, and the VMM has to be told.
    pub fn note_tap(&self, name: &str, owner: Owner) -> io::Result<()> {
        let path = self.path.join(paths::TAP_NAME);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?
            .write_all(name.as_bytes())?;
        give(&path, Uid::ROOT, owner.gid, 0o640)
    }

    /// The TAP that was lent, if one was.
    pub fn lent_tap(&self) -> Option<String> {
        std::fs::read_to_string(self.path.join(paths::TAP_NAME)).ok()
    }

    /// A pipe in it, of which `owner` has the other end. It is open for both here, so that it lasts as long as the VMM does,
    /// whether somebody is at the other end or not; a VMM does not wait for anybody there.
    pub fn pipe(&self, name: &str, owner: Owner) -> Result<File> {
        let path = self.path.join(name);
        let make = || {
            fifo(&path, Uid::from_raw(owner.uid), owner.gid, 0o600)?;
            let both =
                OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
            Ok(both)
        };
        make().map_err(system(format!("making {}", path.display())))
    }

    /// The file for the VMM's standard error. Appending only: its two descriptors do not overwrite each other.
    pub fn stderr(&self) -> Result<File> {
        let path = self.path.join("stderr");
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(system(format!("making {}", path.display())))
    }

    /// The last of what the VMM wrote there; nothing if there is nothing to read.
    pub fn stderr_tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.path.join("stderr"))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut tail = Vec::new();
            file.take(TAIL).read_to_end(&mut tail)?;
            Ok(tail)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Writes the record, whole or not at all.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.path.join("record.json");
        let draft = self.path.join("record.json.new");
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(system(format!("writing {}", path.display())))
    }

    /// Reads the record; none if the VM's process never came so far as to need one.
    pub fn read_record(&self) -> io::Result<Option<Record>> {
        match std::fs::read(self.path.join("record.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes it and all in it. Nothing happens if there is none.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), format!("removing {}: {error}", self.path.display())))
            }
            _ => Ok(()),
        }
    }
}

fn fifo(path: &Path, uid: Uid, gid: u32, mode: u32) -> io::Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    give(path, uid, gid, mode)
}

/// Sets owner, group and mode of something that nobody else can reach yet.
fn give(path: &Path, uid: Uid, gid: u32, mode: u32) -> io::Result<()> {
    chown(path, Some(uid), Some(Gid::from_raw(gid)))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::Device;
    use banger_model::{DiskNumber, Slot};

    fn folder(root: &Path) -> Folder {
        let folder = Folder::of(root, VmId::from_bits(7));
        folder.create().unwrap();
        folder
    }

    #[test]
    fn a_record_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        assert_eq!(folder.read_record().unwrap(), None);
        let record = Record {
            vm: VmId::from_bits(7),
            slot: Slot::try_from(9).unwrap(),
            pid: 1,
            start_time: 2,
            boot_id: "b".into(),
            disks: vec![Device { disk: DiskNumber::ROOT, loop_number: 3, snapshot: true }],
        };
        folder.write_record(&record).unwrap();
        assert_eq!(folder.read_record().unwrap(), Some(record));
        std::fs::write(root.path().join("0000000000000007/record.json"), b"{").unwrap();
        assert!(folder.read_record().is_err());
    }

    #[test]
    fn the_tail_is_the_end() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        assert_eq!(folder.stderr_tail(), "");
        let mut file = folder.stderr().unwrap();
        file.write_all(&[b'a'; 5000]).unwrap();
        file.write_all(b"\xffthe end").unwrap();
        let tail = folder.stderr_tail();
        assert!(tail.starts_with("aaa") && tail.ends_with("a\u{fffd}the end"), "{tail}");
        assert_eq!(tail.len(), 2048 + 2, "one byte became three");
    }

    #[test]
    fn it_is_made_once_and_removed_often() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        assert!(folder.create().is_err());
        folder.stderr().unwrap();
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
