//! device-mapper: a VM's disk as a snapshot of its image.
//!
//! The image is under a linear target, with zeros behind it up to the disk's size; above it is a persistent snapshot that
//! keeps what the guest writes in the VM's own file, in chunks of 4 KiB. Both devices are marked for deferred
//! removal as soon as somebody has them open, so that they go with the VM's process, as loop devices do.
//!
//! <https://docs.kernel.org/admin-guide/device-mapper/snapshot.html>

mod ioctl;
mod name;

use ioctl::{DEFERRED, Packet, READ_ONLY, Verb};
pub use name::DeviceName;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const CONTROL: &str = "/dev/mapper/control";
/// Where the kernel tells the names of its devices.
const BLOCK: &str = "/sys/block";
/// What a disk is made of.
const TARGETS: [&str; 3] = ["linear", "zero", "snapshot"];
/// Sectors of a snapshot's chunk: 4 KiB, the filesystem's block.
const CHUNK: u64 = 8;
/// Keeps udev from looking for filesystems in a guest's disk, and desktops from showing it: libdevmapper's flags for
/// its own rules (no subsystem, disk or other rules, and this is the source of the event), where those expect them.
const UDEV: u32 = (0x02 | 0x04 | 0x08 | 0x40) << 16;

/// The way to the kernel's device-mapper.
#[derive(Debug)]
pub struct Control(File);

/// A block device by its numbers, as tables name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Of its driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Numbers {
    /// The numbers of an open block device.
    pub fn of(device: impl AsFd) -> io::Result<Self> {
        let device = rustix::fs::fstat(device)?.st_rdev;
        Ok(Self { major: rustix::fs::major(device), minor: rustix::fs::minor(device) })
    }
}

/// A disk to be made.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The image, and its size in sectors.
    pub image: (Numbers, u64),
    /// Where the guest's writes go.
    pub cow: Numbers,
    /// The size of the disk in sectors, not less than the image's.
    pub sectors: u64,
}

impl Control {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence about what the host lacks.
    pub fn open() -> Result<Self, String> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL);
        let control = file.map(Self).map_err(|error| format!("{CONTROL}: {error}"))?;
        let asked = Packet::new().send(&control.0, Verb::Version);
        let [major, minor, _] = asked.map_err(|error| format!("its version: {error}"))?.version();
        match (major, minor) {
            (4, 27..) => Ok(control),
            _ => Err(format!("the kernel's version {major}.{minor} has no deferred removal")),
        }
    }

    /// Whether the kernel has every target that a disk takes. Asking loads its module.
    ///
    /// # Errors
    /// A sentence about the first that it has not.
    pub fn check_targets(&self) -> Result<(), String> {
        for target in TARGETS {
            Packet::about_target(target)
                .send(&self.0, Verb::Target)
                .map_err(|error| format!("the target {target} is missing (module dm-{target}): {error}"))?;
        }
        Ok(())
    }

    /// Makes the two devices of a disk and opens the upper one. If that fails, neither is left.
    ///
    /// # Errors
    /// What was being done, and what the kernel said.
    pub fn make(&self, disk: &DeviceName, origin: &DeviceName, layers: &Layers) -> io::Result<OwnedFd> {
        let made = self.make_both(disk, origin, layers);
        // Held by the descriptor, or by nothing: in both cases they go without anybody's help from here on.
        for name in [disk, origin] {
            match self.let_go(name) {
                Err(error) if made.is_ok() => return Err(step(format!("letting go of {name}"))(error)),
                _ => {}
            }
        }
        made
    }

    fn make_both(&self, disk: &DeviceName, origin: &DeviceName, layers: &Layers) -> io::Result<OwnedFd> {
        let Layers { image: (image, length), cow, sectors } = *layers;
        let mut table = vec![(0, length, "linear", format!("{image} 0"))];
        if sectors > length {
            table.push((length, sectors - length, "zero", String::new()));
        }
        let below = self.device(origin, READ_ONLY, &table)?;
        let snapshot = (0, sectors, "snapshot", format!("{below} {cow} P {CHUNK}"));
        let above = self.device(disk, 0, &[snapshot])?;
        match self.status(disk)? {
            // `used/all metadata`
            status if status.contains('/') => {}
            status => return Err(io::Error::other(format!("the snapshot is {status}"))),
        }
        open(above)
    }

    /// Makes a device with a table, and starts it.
    fn device(
        &self,
        name: &DeviceName,
        flags: u32,
        table: &[(u64, u64, &str, String)],
    ) -> io::Result<Numbers> {
        let send = |packet: Packet, verb| packet.send(&self.0, verb);
        let made = send(Packet::about(name), Verb::Create).map_err(step(format!("making {name}")))?;
        let (major, minor) = made.device();
        let mut load = Packet::about(name).with_flags(flags);
        for (start, sectors, kind, parameters) in table {
            load.add_target(*start, *sectors, kind, parameters)?;
        }
        send(load, Verb::Load).map_err(step(format!("the table of {name}")))?;
        send(Packet::about(name).with_flags(flags).with_event(UDEV), Verb::Suspend)
            .map_err(step(format!("starting {name}")))?;
        Ok(Numbers { major, minor })
    }

    fn status(&self, name: &DeviceName) -> io::Result<String> {
        let answer = Packet::about(name).send(&self.0, Verb::Status);
        let status = answer.map_err(step(format!("the status of {name}")))?.status();
        status.map(|(_, text)| text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Lets a device go as soon as nobody has it open. Nothing happens if there is none.
    pub fn let_go(&self, name: &DeviceName) -> io::Result<()> {
        match Packet::about(name).with_flags(DEFERRED).send(&self.0, Verb::Remove) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn step(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Opens the device of these numbers, and no other: whoever made its node is not trusted to have done it right.
fn open(numbers: Numbers) -> io::Result<OwnedFd> {
    let path = format!("/dev/dm-{}", numbers.minor);
    let file =
        OpenOptions::new().read(true).write(true).open(&path).map_err(step(format!("opening {path}")))?;
    let metadata = file.metadata()?;
    let device = metadata.rdev();
    let found = Numbers { major: rustix::fs::major(device), minor: rustix::fs::minor(device) };
    match metadata.file_type().is_block_device() && found == numbers {
        true => Ok(file.into()),
        false => Err(io::Error::other(format!("{path} is not the device {numbers}"))),
    }
}

/// Our devices that exist.
///
/// # Errors
/// When sysfs cannot be read.
pub fn devices() -> io::Result<Vec<DeviceName>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(BLOCK)? {
        let path = entry?.path();
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("dm-")) {
            continue;
        }
        // One that goes meanwhile has no name any more.
        let Ok(name) = fs::read_to_string(Path::new(&path).join("dm/name")) else { continue };
        found.extend(DeviceName::parse(name.trim()));
    }
    Ok(found)
}

/// Lets every device of ours go that nobody has open: another life of this helper may have ended between making one and
/// marking it.
pub fn sweep() {
    let found = match devices() {
        Ok(found) if found.is_empty() => return,
        Ok(found) => found,
        Err(error) => return tracing::warn!(%error, "looking for devices"),
    };
    match Control::open() {
        Ok(control) => {
            for name in found {
                if let Err(error) = control.let_go(&name) {
                    tracing::warn!(%name, %error, "a device was not let go");
                }
            }
        }
        Err(error) => tracing::warn!(error, "devices were not let go"),
    }
}
