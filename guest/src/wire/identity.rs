//! Who a guest is after its memory came out of a snapshot.

use crate::Settings;
use serde::{Deserialize, Serialize};

/// What a guest has to know that went on in somebody's memory: the time, who it is, and numbers that nobody else has
/// ([`super::Kind::Identify`]; JSON, because settings are).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Identity {
    /// The host's clock: seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// Random bytes, for the kernel's pool.
    pub seed: Vec<u8>,
    /// Who it is: name, network and hosts. What else is in them was for its boot.
    pub settings: Settings,
    /// A new machine id, 32 hexadecimal digits, for another VM than the snapshot's (machine-id(5)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

impl Identity {
    /// How many random bytes there are.
    pub const SEED: usize = 64;

    /// Whether all of it is as it should be.
    pub fn is_sound(&self) -> bool {
        let digits =
            |id: &String| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        self.seed.len() == Self::SEED
            && self.nanoseconds < 1_000_000_000
            && self.machine_id.as_ref().is_none_or(digits)
            && self.settings.to_json().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let machine_id = Some("0123456789abcdef0123456789abcdef".to_owned());
        Identity { seconds: 1, nanoseconds: 2, seed: vec![7; 64], settings: Settings::new("web"), machine_id }
    }

    #[test]
    fn what_is_not_sound_is_known() {
        assert!(identity().is_sound());
        assert!(!Identity { seed: vec![7; 63], ..identity() }.is_sound());
        assert!(!Identity { nanoseconds: 1_000_000_000, ..identity() }.is_sound());
        assert!(!Identity { machine_id: Some("x".repeat(32)), ..identity() }.is_sound());
        assert!(!Identity { settings: Settings::new("not a label"), ..identity() }.is_sound());
    }

    #[test]
    fn it_travels_as_json() {
        let text = serde_json::to_vec(&identity()).unwrap();
        assert_eq!(serde_json::from_slice::<Identity>(&text).unwrap(), identity());
    }
}
