//! Where images come from.

use crate::{ModelError, error::shorten};
use std::{fmt, str::FromStr};

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageSource {
    /// Pulled out of a registry.
    Registry,
    /// A bundle that the catalogue names.
    Catalogue,
    /// Handed over as an archive or a filesystem.
    Import,
    /// A file that stays its user's.
    Register,
    /// The disk of a VM.
    Commit,
}

impl ImageSource {
    /// Every source.
    pub const ALL: [Self; 5] = [Self::Registry, Self::Catalogue, Self::Import, Self::Register, Self::Commit];

    /// The word for it on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Catalogue => "catalogue",
            Self::Import => "import",
            Self::Register => "register",
            Self::Commit => "commit",
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ImageSource {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|source| source.as_str() == text);
        found.ok_or_else(|| ModelError::Word { what: "source of images", value: shorten(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for source in ImageSource::ALL {
            assert_eq!(source.to_string().parse::<ImageSource>().unwrap(), source);
        }
        assert!("disk".parse::<ImageSource>().is_err());
    }
}
