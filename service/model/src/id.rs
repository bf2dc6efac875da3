//! Ids of the things that banger keeps: 64 random bits, written as 16 lower-case hexadecimal digits.
//!
//! The form is safe as a D-Bus path element, a file name and part of a device name.

use crate::error::{ModelError, shorten};
use std::{fmt, str::FromStr};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The id made of these 64 bits, which the caller takes from a random source.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// The first 8 digits, enough to tell things apart in a listing.
            pub fn short(&self) -> String {
                format!("{:08x}", self.0 >> 32)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ModelError;

            fn from_str(text: &str) -> Result<Self, ModelError> {
                let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != 16 || !text.bytes().all(digit) {
                    return Err(ModelError::Id { value: shorten(text) });
                }
                u64::from_str_radix(text, 16).map(Self).map_err(|_| ModelError::Id { value: shorten(text) })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// An image.
    ImageId
);
id!(
    /// A kernel that was imported.
    KernelId
);
id!(
    /// A virtual machine.
    VmId
);
id!(
    /// A volume.
    VolumeId
);
id!(
    /// A job.
    JobId
);
id!(
    /// A command that runs in a guest.
    ExecId
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(bits: u64) {
            let id = VmId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse::<VmId>(), Ok(id));
            prop_assert!(id.to_string().starts_with(&id.short()));
        }

        #[test]
        fn only_sixteen_lower_hex_digits_are_an_id(text in ".{0,20}") {
            let good = text.len() == 16 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
            prop_assert_eq!(text.parse::<VmId>().is_ok(), good);
        }
    }

    #[test]
    fn a_sign_or_capital_is_not_a_digit() {
        for text in ["+000000000000001", "ABCDEF0123456789", "0x00000000000001", ""] {
            assert!(text.parse::<ImageId>().is_err(), "{text:?}");
        }
    }
}
