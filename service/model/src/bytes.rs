//! Amounts of bytes, as people write them.

use crate::error::{ModelError, shorten};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An amount of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

impl Bytes {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

impl FromStr for Bytes {
    type Err = ModelError;

    /// Reads `1073741824`, `1G`, `1.5G`, `512MiB` or `512mb`: every unit is a power of 1024, as in
    /// podman's and QEMU's flags. The fraction is cut to whole bytes.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let refused = || ModelError::Size { value: shorten(text) };
        let upper = text.to_ascii_uppercase();
        let body = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
        let suffixed = body.len() != upper.len();
        let (digits, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| body.strip_suffix(unit).map(|rest| (rest, *shift)))
            .unwrap_or((body, 0));
        if suffixed && shift == 0 && upper.ends_with("IB") {
            return Err(refused());
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let decimal = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !decimal(whole) || !decimal(fraction) || fraction.len() > 9 {
            return Err(refused());
        }
        if digits.contains('.') && (fraction.is_empty() || shift == 0) {
            return Err(refused());
        }
        let whole: u64 = whole.parse().map_err(|_| refused())?;
        let base = whole.checked_mul(1 << shift).ok_or_else(refused)?;
        let part = match fraction {
            "" => 0,
            // At most 9 digits and a shift of at most 40: the product fits 128 bits with room to spare.
            f => {
                let numerator: u128 = f.parse().map_err(|_| refused())?;
                let part = (numerator << shift) / 10u128.pow(f.len() as u32);
                u64::try_from(part).map_err(|_| refused())?
            }
        };
        base.checked_add(part).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Bytes {
    /// Three digits or so: `512 B`, `1.5 GiB`, `180 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            let one = 1u64 << shift;
            if self.0 >= one {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return if tenths >= 100 || tenths % 10 == 0 {
                    write!(f, "{} {unit}iB", tenths / 10)
                } else {
                    write!(f, "{}.{} {unit}iB", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
            ("2gb", 2 << 30),
            ("100b", 100),
            ("1.5G", 3 << 29),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "G",
            "-1",
            "+1",
            "1X",
            "1.5",
            "1.",
            ".5G",
            "1 G",
            "1iB",
            "1.0000000001G",
            "18446744073709551616",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
        assert!("16777216T".parse::<Bytes>().is_err());
    }

    #[test]
    fn shows_three_digits_or_so() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (180 << 20, "180 MiB"), (1 << 30, "1 GiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn plain_numbers_round_trip(n: u64) {
            prop_assert_eq!(n.to_string().parse(), Ok(Bytes(n)));
        }
    }
}
