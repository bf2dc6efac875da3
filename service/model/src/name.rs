//! Names that people give to VMs, images and kernels.

use crate::error::{ModelError, shorten};
use std::{fmt, str::FromStr};

/// Longest name of any kind, in bytes: a DNS label (RFC 1035, section 2.3.4).
const LONGEST: usize = 63;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ModelError;

            fn from_str(text: &str) -> Result<Self, ModelError> {
                match $rule(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(why) => Err(ModelError::Name { what: $what, value: shorten(text), why }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A VM's name: a DNS label of 1 to 63 of `a-z`, `0-9` and `-`, because the VM answers to `<name>.vm`.
    VmName,
    "VM name",
    dns_label
);
impl VmName {
    /// The domain that VMs' names are in, without dots around it.
    pub const DOMAIN: &str = "vm";
}

name!(
    /// An image's name: a DNS label too, so that a VM can be named after its image.
    ImageName,
    "image name",
    dns_label
);
name!(
    /// A kernel's name: 1 to 63 of letters, digits, `.`, `_`, `+`, `~` and `-`, starting with a letter or digit, as
    /// distributions' releases are.
    KernelName,
    "kernel name",
    kernel_label
);

name!(
    /// A volume's name: 1 to 63 of letters, digits, `.`, `_`, `+`, `~` and `-`, starting with a letter or digit.
    VolumeName,
    "volume name",
    kernel_label
);

fn dns_label(text: &str) -> Result<(), &'static str> {
    length(text)?;
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("a name is made of a-z, 0-9 and '-'");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("a name neither starts nor ends with '-'");
    }
    Ok(())
}

fn kernel_label(text: &str) -> Result<(), &'static str> {
    length(text)?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+~".contains(&b)) {
        return Err("a name is made of letters, digits, '.', '-', '_', '+' and '~'");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("a name starts with a letter or digit");
    }
    Ok(())
}

fn length(text: &str) -> Result<(), &'static str> {
    match text.len() {
        0 => Err("a name has at least one character"),
        1..=LONGEST => Ok(()),
        _ => Err("a name has at most 63 characters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_names_are_dns_labels() {
        for good in ["a", "9", "debian-12", "x--y", &"a".repeat(63)] {
            assert_eq!(good.parse::<VmName>().map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "../x", "a\0", &"a".repeat(64)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn kernel_names_hold_releases() {
        for good in [
            "6.1.0-56-cloud-amd64",
            "6.12.1+deb13~rc1",
            "6.11.4-301.fc41.x86_64",
            "6.9.3-MANJARO",
            "mine_2",
            "host",
        ] {
            assert!(good.parse::<KernelName>().is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "ä", "a\n", &"1".repeat(64)] {
            assert!(bad.parse::<KernelName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_value_and_stays_short() {
        let error = "X".repeat(100_000).parse::<ImageName>().unwrap_err().to_string();
        assert!(error.starts_with("image name \"XXX"), "{error}");
        assert!(error.len() < 200);
    }
}
