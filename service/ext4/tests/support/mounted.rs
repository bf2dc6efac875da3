//! Mounts an image with the machine's kernel, and asks it about every path.

use super::support::reader::Seen;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{SeekFrom, lgetxattr, llistxattr, seek};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program that must succeed, and returns what it prints.
fn run(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// An image that is mounted until this is dropped.
pub struct Mounted {
    pub at: PathBuf,
}

impl Mounted {
    pub fn new(image: &Path, at: PathBuf) -> Self {
        // Only this thread, and what it starts, sees the mount.
        unshare(CloneFlags::CLONE_NEWNS).expect("root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        fs::create_dir_all(&at).unwrap();
        let losetup = "/usr/sbin/losetup";
        let device = run(losetup, &["--find".as_ref(), "--show".as_ref(), image.as_os_str()]);
        let device = device.trim().to_owned();
        let result = mount(Some(&device[..]), &at, Some("ext4"), MsFlags::empty(), None::<&str>);
        // From now on the device goes when its last user does, whatever happens to the test.
        run(losetup, &["--detach".as_ref(), device.as_ref()]);
        result.expect("the kernel mounts it");
        Self { at }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let result = umount(&self.at);
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

/// What the kernel says about every path under `root`, "" for itself.
pub fn walk(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let seen = see(&full);
        if seen.mode & 0o170_000 == 0o040_000 {
            for entry in fs::read_dir(&full).unwrap() {
                let name = entry.unwrap().file_name().into_vec();
                pending.push([&path[..], b"/", &name].concat());
            }
        }
        found.insert(path, seen);
    }
    found
}

fn see(path: &Path) -> Seen {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let data = if kind.is_file() {
        extents(&File::open(path).unwrap())
    } else if kind.is_symlink() {
        vec![(0, fs::read_link(path).unwrap().into_os_string().into_vec())]
    } else {
        Vec::new()
    };
    let device = kind.is_char_device() || kind.is_block_device();
    Seen {
        inode: metadata.ino().try_into().unwrap(),
        mode: metadata.mode().try_into().unwrap(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        links: metadata.nlink().try_into().unwrap(),
        size: metadata.size(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec().try_into().unwrap(),
        data,
        device: if device { device_words(metadata.rdev()) } else { (0, 0) },
        xattrs: xattrs(path),
        indexed: false,
    }
}

/// The words that ext4 has for a device number.
fn device_words(device: u64) -> (u32, u32) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if major < 256 && minor < 256 {
        (major << 8 | minor, 0)
    } else {
        (0, minor & 0xff | major << 8 | (minor >> 8) << 20)
    }
}

/// The data between the holes, as SEEK_DATA and SEEK_HOLE show it.
pub fn extents(file: &File) -> Vec<(u64, Vec<u8>)> {
    let mut extents = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        let end = seek(file, SeekFrom::Hole(start)).unwrap();
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start).unwrap();
        extents.push((start, bytes));
        at = end;
    }
    extents
}

pub fn get(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 65_536];
    let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
    value.truncate(length);
    value
}

fn xattrs(path: &Path) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let prefixes: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
        if let Some((prefix, number)) = prefixes.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            found.insert((*number, name[prefix.len()..].to_vec()), get(path, name));
        }
    }
    found
}
