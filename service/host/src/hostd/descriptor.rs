//! What a descriptor from outside has to be.

use crate::disks::SECTOR;
use crate::refused::{Result, refused, system};
use banger_host::{Refusal, SEALS};
use banger_model::{Bytes, Limits};
use rustix::fs::{FileType, OFlags, Stat, fcntl_get_seals, fcntl_getfl, fstat};
use std::os::fd::AsFd;

/// A kernel or an initramfs is no larger.
const MOST_BOOT_FILE: u64 = Bytes::gib(1).0;

fn wrong(what: &str, why: impl std::fmt::Display) -> crate::refused::Refused {
    refused(Refusal::Descriptor, format!("{what}: {why}"))
}

fn regular_file(what: &str, fd: impl AsFd) -> Result<Stat> {
    let stat = fstat(fd).map_err(|error| wrong(what, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        other => Err(wrong(what, format!("is not a regular file but {other:?}"))),
    }
}

/// Checks a disk's file: regular, of one of `owners`, open for reading (for both if it is to be writable), and of
/// a size that a disk can have. Returns its identity and size.
pub fn disk(what: &str, fd: impl AsFd, writable: bool, owners: &[u32]) -> Result<((u64, u64), Bytes)> {
    let stat = regular_file(what, &fd)?;
    if !owners.contains(&stat.st_uid) {
        return Err(wrong(what, format!("belongs to uid {}", stat.st_uid)));
    }
    let flags = fcntl_getfl(&fd).map_err(|error| wrong(what, error))?;
    // O_PATH opens nothing, whatever its access mode reads as.
    let mode = flags & OFlags::ACCMODE;
    let fits = if writable { mode == OFlags::RDWR } else { mode != OFlags::WRONLY };
    if flags.contains(OFlags::PATH) || !fits {
        let wanted = if writable { "reading and writing" } else { "reading" };
        return Err(wrong(what, format!("is not open for {wanted}")));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 || size % SECTOR != 0 || size > Limits::MOST_DISK.0 {
        return Err(wrong(what, format!("has {size} bytes, which is no disk's size")));
    }
    Ok(((stat.st_dev, stat.st_ino), Bytes(size)))
}

/// Checks a kernel or an initramfs: a memfd that nobody can change, neither empty nor huge.
pub fn boot_file(what: &str, fd: impl AsFd) -> Result<()> {
    let stat = regular_file(what, &fd)?;
    // Only a memfd, or another file on tmpfs, has seals; everything else fails here.
    let seals = fcntl_get_seals(&fd).map_err(|_| wrong(what, "is not a memfd"))?;
    if !seals.contains(SEALS) {
        return Err(wrong(what, "is not sealed against writing, shrinking, growing and unsealing"));
    }
    // The VM's own user opens it anew, through /proc/self/fd.
    if stat.st_mode & 0o004 == 0 {
        return Err(wrong(what, "is not readable by everybody"));
    }
    match u64::try_from(stat.st_size) {
        Ok(1..=MOST_BOOT_FILE) => Ok(()),
        _ => Err(wrong(what, format!("has {} bytes", stat.st_size))),
    }
}

/// Checks a folder of one of `owners`.
pub fn folder(what: &str, fd: impl AsFd, owners: &[u32]) -> Result<()> {
    let stat = fstat(fd).map_err(|error| wrong(what, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if owners.contains(&stat.st_uid) => Ok(()),
        FileType::Directory => Err(wrong(what, format!("belongs to uid {}", stat.st_uid))),
        other => Err(wrong(what, format!("is not a folder but {other:?}"))),
    }
}

/// Checks a kernel of the host that has been opened.
pub fn host_kernel(fd: impl AsFd) -> Result<()> {
    let stat = fstat(fd).map_err(|error| system("the kernel")(error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(refused(Refusal::NotFound, "the kernel is not a regular file")),
    }
}

/// Checks the reading end of a pipe.
pub fn pipe(fd: impl AsFd) -> Result<()> {
    let what = "the pipe";
    let stat = fstat(&fd).map_err(|error| wrong(what, error))?;
    let flags = fcntl_getfl(&fd).map_err(|error| wrong(what, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if flags & (OFlags::ACCMODE | OFlags::PATH) == OFlags::RDONLY => Ok(()),
        FileType::Fifo => Err(wrong(what, "is not open for reading alone")),
        other => Err(wrong(what, format!("is no pipe but {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_host::seal;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn kind<T: std::fmt::Debug>(result: Result<T>) -> (Refusal, String) {
        let refused = result.unwrap_err();
        (refused.kind, refused.message)
    }

    #[test]
    fn a_disk_is_an_own_regular_file_open_as_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let both = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        assert!(kind(disk("the disk's descriptor", &both, true, &[me()])).1.contains("0 bytes"));
        both.set_len(4096).unwrap();
        let reading = File::open(&path).unwrap();
        let writing = OpenOptions::new().write(true).open(&path).unwrap();
        let path_only: File = rustix::fs::open(&path, OFlags::PATH, 0.into()).unwrap().into();

        assert_eq!(
            disk("the disk's descriptor", &both, true, &[me()]),
            disk("the disk's descriptor", &reading, false, &[me() + 1, me()])
        );
        assert!(disk("the disk's descriptor", &both, false, &[me()]).is_ok());
        for (file, writable) in
            [(&reading, true), (&writing, true), (&writing, false), (&path_only, false), (&path_only, true)]
        {
            let (kind, message) = kind(disk("the disk's descriptor", file, writable, &[me()]));
            assert_eq!(kind, Refusal::Descriptor);
            assert!(message.contains("is not open for reading"), "{message}");
        }
        assert!(kind(disk("the disk's descriptor", &both, true, &[me() + 1])).1.contains("belongs to uid"));
        both.set_len(4095).unwrap();
        assert!(kind(disk("the disk's descriptor", &both, true, &[me()])).1.contains("4095 bytes"));
    }

    #[test]
    fn a_disk_is_nothing_but_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        for (fd, name) in [
            (OwnedFd::from(File::open(folder.path()).unwrap()), "Directory"),
            (File::open("/dev/null").unwrap().into(), "CharacterDevice"),
            (reader.into(), "Fifo"),
            (writer.into(), "Fifo"),
            (socket.into(), "Socket"),
        ] {
            let (kind, message) = kind(disk("the disk's descriptor", &fd, false, &[me(), 0]));
            assert_eq!(kind, Refusal::Descriptor);
            assert!(message.ends_with(name), "{message}");
        }
    }

    #[test]
    fn a_boot_file_is_sealed_for_good() {
        let sealed = seal("kernel", |file| file.write_all(b"kernel")).unwrap();
        assert_eq!(boot_file("the kernel", &sealed), Ok(()));
        assert!(File::from(sealed).write_all(b"x").is_err(), "sealed against its maker too");

        let empty = seal("kernel", |_| Ok(())).unwrap();
        assert!(kind(boot_file("the kernel", &empty)).1.contains("0 bytes"));

        for seals in [
            SealFlags::empty(),
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::SEAL,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SEAL,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW,
        ] {
            let mut file = File::from(memfd_create("half", MemfdFlags::ALLOW_SEALING).unwrap());
            file.write_all(b"kernel").unwrap();
            fcntl_add_seals(&file, seals).unwrap();
            assert!(kind(boot_file("the kernel", &file)).1.contains("is not sealed"), "{seals:?}");
        }

        let private = seal("kernel", |file| {
            file.write_all(b"kernel")?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        });
        assert!(kind(boot_file("the kernel", private.unwrap())).1.contains("readable"));
    }

    #[test]
    fn a_folder_is_an_own_one() {
        let place = tempfile::tempdir().unwrap();
        let open = File::open(place.path()).unwrap();
        assert_eq!(folder("it", &open, &[me()]), Ok(()));
        assert!(kind(folder("it", &open, &[me() + 1])).1.contains("belongs to"));
        assert!(kind(folder("it", File::open("/dev/null").unwrap(), &[me(), 0])).1.contains("not a folder"));
    }

    #[test]
    fn a_boot_file_is_a_memfd() {
        let mut file = tempfile::tempfile_in("/").or_else(|_| tempfile::tempfile()).unwrap();
        file.write_all(b"kernel").unwrap();
        assert_eq!(kind(boot_file("the kernel", &file)).0, Refusal::Descriptor);
        let (socket, _other) = UnixStream::pair().unwrap();
        assert_eq!(kind(boot_file("the kernel", &socket)).0, Refusal::Descriptor);
        assert_eq!(kind(boot_file("the kernel", File::open("/").unwrap())).0, Refusal::Descriptor);
    }

    #[test]
    fn a_pipe_is_its_reading_end() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(pipe(&reader), Ok(()));
        for other in [OwnedFd::from(writer), File::open("/dev/null").unwrap().into()] {
            assert_eq!(pipe(other).unwrap_err().kind, Refusal::Descriptor);
        }
    }
}
