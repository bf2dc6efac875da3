//! A VM's slot: the small number from which its addresses and its uid follow.
//!
//! A slot, and the host's one [`Subnet`](crate::Subnet), are all that the privileged helper is told about a VM's
//! network and user, so a name from outside never reaches it.

use crate::error::ModelError;
use serde::{Deserialize, Serialize};

/// How many VMs there can be at once: half of a subnet's addresses.
const SLOTS: u16 = 4096;

/// First uid of the VMs' own users. Nothing allocates there: systemd's ranges end below it.
/// <https://systemd.io/UIDS-GIDS>
const FIRST_UID: u32 = 1_900_000_000;

/// A slot, 0 to 4095.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// Every slot, lowest first.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(Slot)
    }

    /// The uid, and gid, of the VM's process.
    pub fn uid(self) -> u32 {
        FIRST_UID + u32::from(self.0)
    }

    /// The guest's address on a vsock (vsock(7)): 0 to 2 are not a guest's.
    pub fn cid(self) -> u32 {
        3 + u32::from(self.0)
    }

    /// The guest's MAC address: locally administered, and its for as long as the VM exists.
    pub fn mac(self) -> [u8; 6] {
        let [high, low] = self.0.to_be_bytes();
        [0x02, 0xba, 0x6e, 0x00, high, low]
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl TryFrom<u16> for Slot {
    type Error = ModelError;

    fn try_from(number: u16) -> Result<Self, ModelError> {
        if number < SLOTS {
            return Ok(Self(number));
        }
        Err(ModelError::Range {
            what: "slot",
            value: number.to_string(),
            least: "0".into(),
            most: (SLOTS - 1).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn nothing_is_shared_between_slots() {
        let mut seen = HashSet::new();
        for slot in Slot::all() {
            assert!(seen.insert(format!("{:?}", slot.mac())));
            assert!(seen.insert(slot.uid().to_string()));
            assert_eq!(slot.mac()[0] & 3, 2, "locally administered, unicast");
        }
    }

    #[test]
    fn the_last_slot_is_4095() {
        assert_eq!(Slot::try_from(4095).map(u16::from), Ok(4095));
        assert!(Slot::try_from(4096).is_err());
        assert!(serde_json::from_str::<Slot>("4096").is_err());
    }
}
