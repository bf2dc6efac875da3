//! A VM's slot: the small number from which its TAP, its addresses and its uid follow.
//!
//! A slot is all that the privileged helper is told about a VM's network and user, so a name or an
//! address from outside never reaches it.

use crate::error::ModelError;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// How many VMs can be running at once; one /30 network each, together 172.30.0.0/18.
const SLOTS: u16 = 4096;

/// First uid of the VMs' own users. Nothing allocates there: systemd's ranges end below it.
/// <https://systemd.io/UIDS-GIDS>
const FIRST_UID: u32 = 1_900_000_000;

/// A slot, 0 to 4095.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

/// The addresses of one VM's point-to-point network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The host's end, on the TAP.
    pub host: Ipv4Addr,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// Length of the network prefix, in bits.
    pub prefix: u8,
    /// The guest's MAC address, locally administered.
    pub mac: [u8; 6],
}

impl Slot {
    /// Every slot, lowest first.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(Slot)
    }

    /// The name of the TAP; at most 8 of the 15 bytes that a network interface's name may have
    /// (`IFNAMSIZ`, netdevice(7)).
    pub fn tap_name(self) -> String {
        format!("bngr{}", self.0)
    }

    /// The uid, and gid, of the VM's process.
    pub fn uid(self) -> u32 {
        FIRST_UID + u32::from(self.0)
    }

    /// The addresses of the VM.
    pub fn network(self) -> GuestNetwork {
        let base = u32::from(Ipv4Addr::new(172, 30, 0, 0)) + u32::from(self.0) * 4;
        let [high, low] = self.0.to_be_bytes();
        GuestNetwork {
            host: Ipv4Addr::from(base + 1),
            guest: Ipv4Addr::from(base + 2),
            prefix: 30,
            mac: [0x02, 0xba, 0x6e, 0x00, high, low],
        }
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
            let net = slot.network();
            assert!(seen.insert(net.host.to_string()));
            assert!(seen.insert(net.guest.to_string()));
            assert!(seen.insert(format!("{:?}", net.mac)));
            assert!(seen.insert(slot.uid().to_string()));
            assert!(seen.insert(slot.tap_name()));
            assert!(slot.tap_name().len() <= 15);
            assert_eq!(net.mac[0] & 3, 2, "locally administered, unicast");
        }
    }

    #[test]
    fn the_last_slot_is_4095() {
        assert_eq!(Slot::try_from(4095).map(|s| s.network().guest), Ok(Ipv4Addr::new(172, 30, 63, 254)));
        assert!(Slot::try_from(4096).is_err());
        assert!(serde_json::from_str::<Slot>("4096").is_err());
    }
}
