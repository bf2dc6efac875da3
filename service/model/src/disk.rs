//! What VMs' disks are made of, and how they are told apart.

use crate::error::{ModelError, shorten};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Which of a VM's disks: 0 is the root, volumes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct DiskNumber(u8);

impl DiskNumber {
    /// The root disk.
    pub const ROOT: DiskNumber = DiskNumber(0);
    /// The highest number, and so many volumes a VM may have.
    pub const MOST: u8 = 8;

    /// The device in the guest: virtio block devices are lettered in this order.
    pub fn guest_device(self) -> String {
        format!("/dev/vd{}", char::from(b'a' + self.0))
    }

    /// The numbers of volumes, in order.
    pub fn volumes() -> impl Iterator<Item = DiskNumber> {
        (1..=Self::MOST).map(DiskNumber)
    }
}

impl TryFrom<u8> for DiskNumber {
    type Error = ModelError;

    fn try_from(number: u8) -> Result<Self, ModelError> {
        if number <= Self::MOST {
            return Ok(Self(number));
        }
        Err(ModelError::Range {
            what: "disk",
            value: number.to_string(),
            least: "0".into(),
            most: Self::MOST.to_string(),
        })
    }
}

impl From<DiskNumber> for u8 {
    fn from(disk: DiskNumber) -> u8 {
        disk.0
    }
}

impl fmt::Display for DiskNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a VM's root disk is made of its image. A VM keeps the one that it was made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBackend {
    /// A snapshot: the image is shared, and what the guest writes goes to a file of its own.
    DeviceMapper,
    /// A file that shares the image's blocks until one is written.
    Reflink,
    /// A copy that keeps holes.
    #[default]
    Copy,
}

impl DiskBackend {
    /// Whether a disk is made at once, whatever the image's size.
    pub fn is_instant(self) -> bool {
        self != DiskBackend::Copy
    }

    /// Every one, the best first.
    pub const ALL: [DiskBackend; 3] = [DiskBackend::DeviceMapper, DiskBackend::Reflink, DiskBackend::Copy];

    /// The word for it in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskBackend::DeviceMapper => "device-mapper",
            DiskBackend::Reflink => "reflink",
            DiskBackend::Copy => "copy",
        }
    }
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DiskBackend {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let known = Self::ALL.into_iter().find(|backend| backend.as_str() == text);
        known.ok_or_else(|| ModelError::Name {
            what: "disk backend",
            value: shorten(text),
            why: "it is device-mapper, reflink or copy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_numbers_and_letters() {
        assert_eq!(DiskNumber::ROOT.guest_device(), "/dev/vda");
        let volumes: Vec<String> = DiskNumber::volumes().map(DiskNumber::guest_device).collect();
        assert_eq!((volumes.len(), volumes[0].as_str(), volumes[7].as_str()), (8, "/dev/vdb", "/dev/vdi"));
        assert!(DiskNumber::try_from(9).is_err());
        assert!(serde_json::from_str::<DiskNumber>("9").is_err());
    }

    #[test]
    fn backends_have_words() {
        for backend in DiskBackend::ALL {
            assert_eq!(backend.as_str().parse(), Ok(backend));
            assert_eq!(serde_json::to_string(&backend).unwrap(), format!("\"{backend}\""));
        }
        assert!("lvm".parse::<DiskBackend>().is_err());
    }
}
