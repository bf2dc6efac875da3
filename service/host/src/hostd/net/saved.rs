//! `network.json` in the run folder: what another life of this process has to know.

use super::forwarding::Changed;
use super::rules::Guest;
use crate::record::boot_id;
use banger_model::{Subnet, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What is written down, before it is made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    boot_id: String,
    /// The network.
    pub subnet: Subnet,
    /// The VMs in it.
    pub guests: BTreeMap<VmId, Guest>,
    /// What routes that did not.
    pub changed: Changed,
}

impl Saved {
    /// Reads it; none if there is none, or only that of another life of the machine, whose network is gone with it.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(saved) if saved.boot_id == boot_id()? => Ok(Some(saved)),
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "what was written down of the network is lost");
                Ok(None)
            }
        }
    }

    /// Writes it: the old or the new, never half of one. `/run` ends with the machine, as all of this does, so
    /// nothing has to reach a disk.
    pub fn write(
        file: &Path,
        subnet: Subnet,
        guests: &BTreeMap<VmId, Guest>,
        changed: &Changed,
    ) -> io::Result<()> {
        let saved = Self { boot_id: boot_id()?, subnet, guests: guests.clone(), changed: changed.clone() };
        let fresh = file.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&saved)?)?;
        fs::rename(fresh, file)
    }

    /// Removes it.
    pub fn remove(file: &Path) -> io::Result<()> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{NetworkRules, Slot};

    #[test]
    fn what_is_written_is_read_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("network.json");
        assert!(Saved::read(&file).unwrap().is_none());
        let subnet = Subnet::choose(None, &[], 1).unwrap();
        let guest = Guest {
            slot: Slot::try_from(3).unwrap(),
            index: 7,
            tap: "bngr7".into(),
            rules: NetworkRules { ports: vec!["8080:80".parse().unwrap()], ..Default::default() },
        };
        let guests = BTreeMap::from([(VmId::from_bits(1), guest)]);
        let changed = Changed { v4: ["eth0".into()].into(), v6: true };
        Saved::write(&file, subnet, &guests, &changed).unwrap();
        let read = Saved::read(&file).unwrap().unwrap();
        assert_eq!((read.subnet, read.guests, read.changed), (subnet, guests, changed));

        let other = fs::read_to_string(&file).unwrap().replace(&boot_id().unwrap(), "another boot");
        fs::write(&file, other).unwrap();
        assert!(Saved::read(&file).unwrap().is_none());
        fs::write(&file, "{").unwrap();
        assert!(Saved::read(&file).unwrap().is_none(), "nonsense is told and left behind");
        Saved::remove(&file).unwrap();
        Saved::remove(&file).unwrap();
    }
}
