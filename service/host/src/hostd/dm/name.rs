//! What device-mapper devices are called: the one place where the names are made.

use super::ioctl;
use banger_model::VmId;
use std::fmt;

/// What every name begins with, and nothing of anybody else's does.
const PREFIX: &str = "banger-";
/// Behind the name of the device below a VM's disk.
const ORIGIN: &str = "-origin";
/// Digits of an id.
const ID: usize = 16;

// The kernel's own limit, with the zero behind the name.
const _: () = assert!(PREFIX.len() + ID + ORIGIN.len() < ioctl::NAME);

/// The name of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceName(String);

impl DeviceName {
    /// The disk of a VM.
    pub fn disk(vm: VmId) -> Self {
        Self(format!("{PREFIX}{vm}"))
    }

    /// What lies below it: the image, and zeros up to the disk's size.
    pub fn origin(vm: VmId) -> Self {
        Self(format!("{PREFIX}{vm}{ORIGIN}"))
    }

    /// The name, if it is one of these.
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.strip_prefix(PREFIX)?;
        let id = id.strip_suffix(ORIGIN).unwrap_or(id);
        id.parse::<VmId>().ok().map(|_| Self(text.to_owned()))
    }

    /// As the kernel has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let vm = VmId::from_bits(0xab);
        for name in [DeviceName::disk(vm), DeviceName::origin(vm)] {
            assert_eq!(DeviceName::parse(name.as_str()), Some(name.clone()));
            assert!(name.as_str().len() < ioctl::NAME);
        }
        for other in
            ["banger-", "banger-00000000000000ab-cow", "vg-root", "banger-00000000000000AB", "-origin"]
        {
            assert_eq!(DeviceName::parse(other), None, "{other}");
        }
    }
}
