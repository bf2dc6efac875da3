//! The one system call of device-mapper: a request and its answer in one buffer.
//!
//! Source: linux/dm-ioctl.h; <https://docs.kernel.org/admin-guide/device-mapper/>.

use super::name::DeviceName;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `DM_NAME_LEN`
pub const NAME: usize = 128;
/// `DM_UUID_LEN`
const UUID: usize = 129;
/// `DM_MAX_TYPE_NAME`
const TYPE: usize = 16;
/// Room for the targets of a table, or for the status of one.
const BODY: usize = 1024;
/// The version that is spoken: the first with deferred removal (Linux 3.13). The kernel takes any of the same first
/// number that is not newer than its own.
const VERSION: [u32; 3] = [4, 27, 0];

/// What a request asks for: the numbers of the ioctls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `DM_VERSION`
    Version = 0,
    /// `DM_DEV_CREATE`
    Create = 3,
    /// `DM_DEV_REMOVE`
    Remove = 4,
    /// `DM_DEV_SUSPEND`, which also resumes
    Suspend = 6,
    /// `DM_TABLE_LOAD`
    Load = 9,
    /// `DM_TABLE_STATUS`
    Status = 12,
    /// `DM_GET_TARGET_VERSION`
    Target = 17,
}

/// `DM_READONLY_FLAG`
pub const READ_ONLY: u32 = 1;
/// `DM_BUFFER_FULL_FLAG`
const BUFFER_FULL: u32 = 1 << 8;
/// `DM_DEFERRED_REMOVE`: now if nobody has it open, otherwise when the last one closes it.
pub const DEFERRED: u32 = 1 << 17;

/// `struct dm_ioctl`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; NAME],
    uuid: [u8; UUID],
    data: [u8; 7],
}

/// A request with the room for its answer.
#[repr(C)]
pub struct Packet {
    header: Header,
    body: [u8; BODY],
}

// The size that the kernel's header gives, and no padding between the parts.
const _: () = assert!(size_of::<Header>() == 312 && size_of::<Packet>() == 312 + BODY);

impl Packet {
    /// A request without a name.
    pub fn new() -> Self {
        let header = Header {
            version: VERSION,
            data_size: size_of::<Packet>() as u32,
            data_start: size_of::<Header>() as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_number: 0,
            padding: 0,
            device: 0,
            name: [0; NAME],
            uuid: [0; UUID],
            data: [0; 7],
        };
        Self { header, body: [0; BODY] }
    }

    /// A request about a device.
    pub fn about(name: &DeviceName) -> Self {
        let mut packet = Self::new();
        packet.put_name(name.as_str());
        packet
    }

    /// A request about a kind of target.
    pub fn about_target(kind: &str) -> Self {
        let mut packet = Self::new();
        packet.put_name(kind);
        packet
    }

    /// One byte stays zero, as the end of the name.
    fn put_name(&mut self, name: &str) {
        let length = name.len().min(NAME - 1);
        self.header.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    }

    /// With these flags.
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.header.flags |= flags;
        self
    }

    /// With a number for whoever hears of the event.
    pub fn with_event(mut self, number: u32) -> Self {
        self.header.event_number = number;
        self
    }

    /// Adds a target: so many sectors from `start` on, of `kind` with `parameters`.
    ///
    /// # Errors
    /// `InvalidInput` when the table does not fit the buffer.
    pub fn add_target(&mut self, start: u64, sectors: u64, kind: &str, parameters: &str) -> io::Result<()> {
        // `struct dm_target_spec`: start, length, status, offset of the next, and the kind.
        const SPEC: usize = 8 + 8 + 4 + 4 + TYPE;
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let at = self.used()?;
        let size = (SPEC + parameters.len() + 1).next_multiple_of(8);
        let spec = self.body.get_mut(at..at + size).ok_or_else(invalid)?;
        if kind.len() >= TYPE {
            return Err(invalid());
        }
        spec[..8].copy_from_slice(&start.to_ne_bytes());
        spec[8..16].copy_from_slice(&sectors.to_ne_bytes());
        spec[20..24].copy_from_slice(&(size as u32).to_ne_bytes());
        spec[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
        spec[SPEC..SPEC + parameters.len()].copy_from_slice(parameters.as_bytes());
        self.header.target_count += 1;
        Ok(())
    }

    /// Bytes of the body that the targets take.
    fn used(&self) -> io::Result<usize> {
        let mut at = 0;
        for _ in 0..self.header.target_count {
            let next = self.body.get(at + 20..at + 24).and_then(|bytes| bytes.try_into().ok());
            at += next.map(u32::from_ne_bytes).ok_or(io::ErrorKind::InvalidData)? as usize;
        }
        Ok(at)
    }

    /// The version of the kernel's device-mapper, in an answer.
    pub fn version(&self) -> [u32; 3] {
        self.header.version
    }

    /// The device's number in an answer, as major and minor (`huge_encode_dev` of the kernel).
    pub fn device(&self) -> (u32, u32) {
        let device = self.header.device as u32;
        ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
    }

    /// The kind and the status of the only target, in an answer to [`Verb::Status`].
    pub fn status(&self) -> Option<(String, String)> {
        if self.header.target_count != 1 || self.header.flags & BUFFER_FULL != 0 {
            return None;
        }
        let start = (self.header.data_start as usize).checked_sub(size_of::<Header>())?;
        let answer = self.body.get(start..)?;
        let text = |from: usize, to: usize| {
            let bytes = answer.get(from..to)?.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        Some((text(24, 24 + TYPE)?, text(24 + TYPE, answer.len())?))
    }

    /// Sends the request; the buffer holds the answer then. `control` is `/dev/mapper/control`.
    ///
    /// # Errors
    /// What the kernel says: `ENXIO` when there is no such device, `EBUSY` when its name is taken.
    pub fn send(mut self, control: impl AsFd, verb: Verb) -> io::Result<Self> {
        // _IOWR(0xfd, verb, struct dm_ioctl)
        let number = 3 << 30 | (size_of::<Header>() as libc::Ioctl) << 16 | 0xfd << 8 | verb as libc::Ioctl;
        // SAFETY: the kernel reads and writes `data_size` bytes, which is the size of the whole `Packet` that it is
        // given: plain numbers and bytes, any bits are valid. It keeps no pointer to it.
        #[allow(unsafe_code)]
        let result: c_int = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), number, &raw mut self) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        let create = 3 << 30 | 312 << 16 | 0xfd << 8 | Verb::Create as u32;
        assert_eq!(create, 0xc138_fd03);
        let mut packet = Packet::new();
        packet.header.device = 0xfd05;
        assert_eq!(packet.device(), (253, 5));
        packet.header.device = 0x1230_fd56;
        assert_eq!(packet.device(), (253, 0x1_2356));
    }

    #[test]
    fn targets_stand_one_behind_the_other() {
        let mut packet = Packet::new();
        packet.add_target(0, 8, "linear", "7:0 0").unwrap();
        packet.add_target(8, 16, "zero", "").unwrap();
        assert_eq!(packet.header.target_count, 2);
        assert_eq!(packet.used().unwrap(), 48 + 48);
        assert_eq!(&packet.body[24..30], b"linear");
        assert_eq!(&packet.body[40..46], b"7:0 0\0");
        assert_eq!(packet.body[48..56], 8u64.to_ne_bytes());
        assert_eq!(packet.body[56..64], 16u64.to_ne_bytes());
        assert!(packet.add_target(0, 1, "seventeen-letters", "").is_err());
        assert!(packet.add_target(0, 1, "linear", &"x".repeat(BODY)).is_err());
        assert_eq!(packet.header.target_count, 2);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(start: u32, count in 0u32..3, flags: u32, body: Vec<u8>) {
            let mut packet = Packet::new();
            packet.header.data_start = start;
            packet.header.target_count = count;
            packet.header.flags = flags;
            let length = body.len().min(BODY);
            packet.body[..length].copy_from_slice(&body[..length]);
            let _ = (packet.status(), packet.device(), packet.used());
        }

        #[test]
        fn a_status_is_read_back(kind in "[a-z-]{1,15}", text in "[0-9a-zA-Z/ ]{0,200}") {
            let mut packet = Packet::new();
            packet.add_target(0, 8, &kind, &text).unwrap();
            prop_assert_eq!(packet.status(), Some((kind, text)));
        }
    }
}
