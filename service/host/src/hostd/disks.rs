//! VMs' disks: loop devices, and snapshots over them. All last as long as somebody has them open, so whatever dies,
//! they go with it.

use crate::devices::await_gone;
use crate::dm::{self, Control, DeviceName, Layers, Numbers};
use crate::ioctl::{self, LoopStatus};
use crate::refused::{Result, not_ready, refused, system};
use banger_host::Refusal;
use banger_model::{Bytes, DiskNumber, ImageId, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Others take loop devices too: so often is a next one tried.
const LOOP_TRIES: usize = 64;

/// A loop device counts in these, and so does device-mapper.
pub const SECTOR: u64 = 512;

/// A disk that is attached, held open.
#[derive(Debug)]
pub struct Attached {
    /// The device, open as the guest may use it.
    pub fd: OwnedFd,
    /// What it is.
    pub device: Device,
}

/// What a disk is made of, as it is written down: by this it is known whether it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Which of the VM's disks.
    pub disk: DiskNumber,
    /// The number of the loop device over the VM's own file.
    pub loop_number: u32,
    /// Whether a snapshot lies above that.
    pub snapshot: bool,
}

/// A snapshot to attach.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The image's id: VMs of one image share its loop device.
    pub image: ImageId,
    /// Its filesystem, open for reading.
    pub rootfs: BorrowedFd<'a>,
    /// The identity of that file.
    pub identity: (u64, u64),
    /// The size of that file, whole sectors.
    pub length: Bytes,
    /// The VM's own file, open for both.
    pub cow: BorrowedFd<'a>,
    /// The size of the disk, whole sectors, not less than the image's.
    pub size: Bytes,
}

/// The names that losetup(8) shows, by which a device is known as ours.
fn name_of(vm: VmId, disk: DiskNumber) -> String {
    format!("banger:{vm}:{disk}")
}

fn name_of_image(image: ImageId) -> String {
    format!("banger:image:{image}")
}

fn path_of(number: u32) -> String {
    format!("/dev/loop{number}")
}

/// Attaches a loop device over a VM's own file.
pub fn attach_loop(vm: VmId, disk: DiskNumber, file: impl AsFd, writable: bool) -> Result<Attached> {
    let (fd, loop_number) = attach(&name_of(vm, disk), file, writable)?;
    Ok(Attached { fd, device: Device { disk, loop_number, snapshot: false } })
}

/// Attaches a free loop device over `file`.
fn attach(name: &str, file: impl AsFd, writable: bool) -> Result<(OwnedFd, u32)> {
    let open = |path: &str, writable| OpenOptions::new().read(true).write(writable).open(path);
    let control = open("/dev/loop-control", true).map_err(not_ready("/dev/loop-control"))?;
    for _ in 0..LOOP_TRIES {
        let number = ioctl::loop_get_free(&control).map_err(not_ready("a free loop device"))?;
        let path = path_of(number);
        let device = open(&path, writable).map_err(not_ready(&path))?;
        match ioctl::loop_configure(&device, &file, writable, name) {
            Ok(()) => return Ok((device.into(), number)),
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(system(format!("attaching {path}"))(error)),
        }
    }
    Err(refused(Refusal::HostNotReady, "no loop device is free"))
}

/// Waits until a VM's disk is gone: its snapshot, and the loop device over its own file.
pub fn await_disk_gone(vm: VmId, device: &Device) -> io::Result<()> {
    if device.snapshot {
        let gone = || Ok(!dm::devices()?.iter().any(|name| is_of(name, vm)));
        await_gone("the VM's snapshot", gone)?;
    }
    let (path, name) = (path_of(device.loop_number), name_of(vm, device.disk));
    await_gone(&path, || match File::open(&path).and_then(ioctl::loop_status) {
        Ok(status) => Ok(status.name != name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(true),
        Err(error) => Err(error),
    })
}

fn is_of(name: &DeviceName, vm: VmId) -> bool {
    *name == DeviceName::disk(vm) || *name == DeviceName::origin(vm)
}

/// Why device-mapper cannot be used here; `None` if it can.
pub fn why_no_device_mapper() -> Option<String> {
    Control::open().and_then(|control| control.check_targets()).err()
}

/// The loop devices of images. The kernel counts who uses each; what is kept here is only where to look, so nothing is
/// lost with it.
#[derive(Debug, Default)]
pub struct Images {
    numbers: Mutex<BTreeMap<ImageId, u32>>,
}

impl Images {
    /// The image's loop device: the one that other VMs have it by, or a new one.
    fn open(&self, wanted: &Snapshot<'_>) -> Result<OwnedFd> {
        // Held while one is attached, so that two VMs that start together share one.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = numbers.get(&wanted.image).copied();
        let here = match known {
            Some(number) => is_image(number, wanted).map(|device| (device, number)),
            // Another life of this helper may have attached it.
            None => attached_over(wanted.image).into_iter().find_map(|n| Some((is_image(n, wanted)?, n))),
        };
        let (device, number) = match here {
            Some(here) => here,
            None => attach(&name_of_image(wanted.image), wanted.rootfs, false)?,
        };
        numbers.insert(wanted.image, number);
        Ok(device)
    }

    /// Attaches a snapshot. If that fails, nothing of it is left.
    pub fn attach_snapshot(&self, vm: VmId, wanted: &Snapshot<'_>) -> Result<Attached> {
        let control = Control::open().map_err(|why| refused(Refusal::HostNotReady, why))?;
        let (disk, origin) = (DeviceName::disk(vm), DeviceName::origin(vm));
        // What a VM that has just ended still had may be on its way out.
        for name in [&disk, &origin] {
            control.let_go(name).map_err(system(format!("letting go of {name}")))?;
        }
        let gone = || Ok(!dm::devices()?.iter().any(|name| is_of(name, vm)));
        await_gone("the VM's earlier snapshot", gone).map_err(system("the disk"))?;

        let image = self.open(wanted)?;
        let (cow, loop_number) = attach(&name_of(vm, DiskNumber::ROOT), wanted.cow, true)?;
        let numbers = |device: &OwnedFd| Numbers::of(device).map_err(system("a loop device"));
        let layers = Layers {
            image: (numbers(&image)?, wanted.length.0 / SECTOR),
            cow: numbers(&cow)?,
            sectors: wanted.size.0 / SECTOR,
        };
        let fd = control.make(&disk, &origin, &layers).map_err(system("the disk's snapshot"))?;
        // The loop devices are the snapshot's own from here on: they go when it does.
        Ok(Attached { fd, device: Device { disk: DiskNumber::ROOT, loop_number, snapshot: true } })
    }
}

/// Opens the loop device of that number, if it is the image's. While it is open, it stays so.
fn is_image(number: u32, wanted: &Snapshot<'_>) -> Option<OwnedFd> {
    let device = File::open(path_of(number)).ok()?;
    let LoopStatus { name, file } = ioctl::loop_status(&device).ok()?;
    (name == name_of_image(wanted.image) && file == wanted.identity).then(|| device.into())
}

/// The numbers of the loop devices over files whose path names the image. That is not believed, only looked into.
fn attached_over(image: ImageId) -> Vec<u32> {
    let id = image.to_string();
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok()?;
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        file.contains(&id).then_some(number)
    });
    numbers.collect()
}
