//! How big a VM may be, and how it is run.

use crate::{Bytes, error::ModelError};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A user of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u32);

impl Uid {
    /// The superuser.
    pub const ROOT: Uid = Uid(0);
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many virtual CPUs a VM has: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cpus(pub u32);

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor, through /dev/kvm.
    Kvm,
    /// QEMU's own emulation (TCG): works anywhere, several times slower.
    Tcg,
}

impl Accel {
    /// The word for it in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Accel {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "kvm" => Ok(Accel::Kvm),
            "tcg" => Ok(Accel::Tcg),
            _ => Err(ModelError::Range {
                what: "accel",
                value: crate::error::shorten(text),
                least: "kvm".into(),
                most: "tcg".into(),
            }),
        }
    }
}

/// A VM's size, within [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSize {
    /// Virtual CPUs.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Bytes,
    /// The root disk; the filesystem in it is grown to fill it.
    pub disk: Bytes,
}

/// What a VM may have on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most virtual CPUs of one VM.
    pub cpus: u32,
    /// Most memory of one VM.
    pub memory: Bytes,
}

impl Limits {
    /// A guest kernel, its initramfs and a shell need this much.
    pub const LEAST_MEMORY: Bytes = Bytes::mib(96);
    /// Where our ext4 images stop (4 KiB blocks, 16 TiB).
    pub const MOST_DISK: Bytes = Bytes::gib(16 << 10);

    /// The limits that follow from a host with so many processors and so much memory: a VM may have
    /// every processor, and memory up to what the host has.
    pub fn of_host(processors: u32, memory: Bytes) -> Self {
        Self { cpus: processors.clamp(1, 64), memory: Bytes(memory.0.max(Self::LEAST_MEMORY.0)) }
    }

    /// Checks a size that somebody asked for; `least_disk` is what the image needs.
    ///
    /// # Errors
    /// [`ModelError::Range`] names the first number that is outside, and its range.
    pub fn check(&self, size: &MachineSize, least_disk: Bytes) -> Result<(), ModelError> {
        range("cpus", size.cpus.0, 1, self.cpus)?;
        range("memory", Show(size.memory), Show(Self::LEAST_MEMORY), Show(self.memory))?;
        range("disk", Show(size.disk), Show(least_disk), Show(Self::MOST_DISK))
    }
}

/// Bytes, shown exactly when rounding would make an error read `1 GiB is below 1 GiB`.
#[derive(PartialEq, PartialOrd)]
struct Show(Bytes);

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 % Bytes::mib(1).0 {
            0 => write!(f, "{}", self.0),
            _ => write!(f, "{} bytes", self.0.0),
        }
    }
}

fn range<T: PartialOrd + fmt::Display>(
    what: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ModelError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ModelError::Range {
        what,
        value: value.to_string(),
        least: least.to_string(),
        most: most.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpus: u32, memory: Bytes, disk: Bytes) -> Result<(), ModelError> {
        let limits = Limits::of_host(4, Bytes::gib(8));
        limits.check(&MachineSize { cpus: Cpus(cpus), memory, disk }, Bytes::gib(1))
    }

    #[test]
    fn sizes_have_both_ends() {
        let (memory, disk) = (Bytes::mib(512), Bytes::gib(1));
        assert_eq!(check(1, memory, disk), Ok(()));
        assert_eq!(check(4, Bytes::gib(8), Limits::MOST_DISK), Ok(()));
        assert_eq!(check(1, Limits::LEAST_MEMORY, disk), Ok(()));
        for (cpus, memory, disk, word) in [
            (0, memory, disk, "cpus"),
            (5, memory, disk, "cpus"),
            (u32::MAX, memory, disk, "cpus"),
            (1, Bytes(0), disk, "memory"),
            (1, Bytes(Limits::LEAST_MEMORY.0 - 1), disk, "memory"),
            (1, Bytes(u64::MAX), disk, "memory"),
            (1, memory, Bytes(0), "disk"),
            (1, memory, Bytes(disk.0 - 1), "disk"),
            (1, memory, Bytes(Limits::MOST_DISK.0 + 1), "disk"),
        ] {
            let error = check(cpus, memory, disk).unwrap_err().to_string();
            assert!(error.starts_with(word), "{error}");
        }
    }

    #[test]
    fn a_refusal_tells_the_range() {
        let error = check(9, Bytes::mib(512), Bytes::gib(2)).unwrap_err();
        assert_eq!(error.to_string(), "cpus is 9, outside 1 to 4");
        let error = check(1, Bytes::mib(512), Bytes(1)).unwrap_err();
        assert_eq!(error.to_string(), "disk is 1 bytes, outside 1 GiB to 16 TiB");
    }
}
