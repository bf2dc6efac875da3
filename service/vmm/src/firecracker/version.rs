//! Firecracker's version.

use std::{fmt, str::FromStr};

/// A version, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Changes when the API does.
    pub major: u32,
    /// Grows with what it can do.
    pub minor: u32,
    /// Corrections.
    pub patch: u32,
}

impl Version {
    /// The first that gives distributions' kernels their devices (through ACPI), and whose snapshots take another TAP
    /// is 1.12 ([`Version::OVERRIDES`]).
    pub const OLDEST: Version = Version { major: 1, minor: 8, patch: 0 };
    /// The first with `network_overrides` in a snapshot's restore.
    pub const OVERRIDES: Version = Version { major: 1, minor: 12, patch: 0 };
    /// The first whose balloon reports free pages.
    pub const REPORTING: Version = Version { major: 1, minor: 14, patch: 0 };
}

impl FromStr for Version {
    type Err = ();

    /// `1.17.0`, `1.17.0-dev`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = plain.trim_start_matches('v').split('.').map(|part| part.parse().map_err(|_| ()));
        let mut next = || numbers.next().unwrap_or(Err(()));
        Ok(Version { major: next()?, minor: next()?, patch: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("1.8.0") >= Version::OLDEST && version("1.7.9") < Version::OLDEST);
        assert!(version("1.17.0-dev") > version("1.9.1"));
        assert_eq!(version("v1.12.3").to_string(), "1.12.3");
        for text in ["", "1", "1.2", "a.b.c", "1.2.x"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Version>();
        }
    }
}
