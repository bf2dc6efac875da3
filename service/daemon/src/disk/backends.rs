//! What root disks can be made of on this host, and what new ones are made of.

use crate::{config::BackendChoice, error::Error};
use banger_host::Host;
use banger_model::DiskBackend;
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// What was found once, when the service began.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// Why there is no device-mapper; none if there is.
    pub no_device_mapper: Option<String>,
    /// Why the state folder's filesystem shares no blocks; none if it does.
    pub no_reflink: Option<String>,
    choice: BackendChoice,
}

impl Backends {
    /// What was found, and what the administrator wants.
    pub fn new(no_device_mapper: Option<String>, no_reflink: Option<String>, choice: BackendChoice) -> Self {
        Self { no_device_mapper, no_reflink, choice }
    }

    fn why_not(&self, backend: DiskBackend) -> Option<&str> {
        match backend {
            DiskBackend::DeviceMapper => self.no_device_mapper.as_deref(),
            DiskBackend::Reflink => self.no_reflink.as_deref(),
            DiskBackend::Copy => None,
        }
    }

    /// What a new VM's disk is made of: what is configured, else the best that there is. The file of a registered image
    /// stays its user's, who may change it: of that a copy is made.
    ///
    /// # Errors
    /// [`Error::HostNotReady`] when what is configured is not there.
    pub fn choose(&self, registered: bool) -> Result<DiskBackend, Error> {
        if registered {
            return Ok(DiskBackend::Copy);
        }
        let Some(wanted) = self.choice.forced() else {
            let there = DiskBackend::ALL.into_iter().find(|backend| self.why_not(*backend).is_none());
            return Ok(there.unwrap_or_default());
        };
        match self.why_not(wanted) {
            None => Ok(wanted),
            Some(why) => Err(Error::HostNotReady(format!(
                "disks are configured to be made by {wanted}, which this host does not have ({why}): set backend = \
                 \"auto\" in [disks] of the configuration"
            ))),
        }
    }

    /// What new disks are made of and why, in words.
    pub fn told(&self) -> (Result<DiskBackend, Error>, String) {
        let chosen = self.choose(false);
        let missing = [DiskBackend::DeviceMapper, DiskBackend::Reflink]
            .into_iter()
            .filter_map(|backend| Some(format!("no {backend} ({})", self.why_not(backend)?)));
        let mut why: Vec<String> = missing.collect();
        if self.choice.forced().is_some() {
            why.insert(0, "it is configured".into());
        } else if why.is_empty() {
            why.push("it is the best that there is".into());
        }
        (chosen, why.join("; "))
    }
}

/// Finds out what there is. The state folder is tried with two small files.
pub async fn probe(host: &dyn Host, state: &Path, choice: BackendChoice) -> Backends {
    let no_device_mapper = match host.probe_disks().await {
        Ok(why) => why,
        Err(error) => Some(error.to_string()),
    };
    let no_reflink = try_reflink(state).err().map(|error| error.to_string());
    let found = Backends::new(no_device_mapper, no_reflink, choice);
    let (chosen, why) = found.told();
    match chosen {
        Ok(backend) => tracing::info!(%backend, why, "disks"),
        Err(error) => tracing::error!(%error, "no VM can be made"),
    }
    found
}

fn try_reflink(state: &Path) -> io::Result<()> {
    let file = |name: &str| {
        let path = state.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        // Without a name nothing of it can be left.
        file.and_then(|file| std::fs::remove_file(&path).map(|()| file))
    };
    let (from, to) = (file(".reflink-from")?, file(".reflink-to")?);
    from.write_all_at(&[1; 4096], 0)?;
    Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(device_mapper: bool, reflink: bool, choice: BackendChoice) -> Backends {
        let why = |there: bool| (!there).then(|| "not here".to_owned());
        Backends::new(why(device_mapper), why(reflink), choice)
    }

    #[test]
    fn the_best_that_there_is() {
        use DiskBackend::{Copy, DeviceMapper, Reflink};
        for (device_mapper, reflink, best) in [
            (true, true, DeviceMapper),
            (true, false, DeviceMapper),
            (false, true, Reflink),
            (false, false, Copy),
        ] {
            let backends = found(device_mapper, reflink, BackendChoice::Auto);
            assert_eq!(backends.choose(false).unwrap(), best);
            assert_eq!(backends.choose(true).unwrap(), Copy, "a file that stays its user's");
            let (told, why) = backends.told();
            assert_eq!(told.unwrap(), best);
            assert_eq!(why.contains("no reflink (not here)"), !reflink, "{why}");
        }
    }

    #[test]
    fn what_is_configured_or_an_error() {
        let backends = found(true, false, BackendChoice::Copy);
        assert_eq!(backends.choose(false).unwrap(), DiskBackend::Copy);
        let error = found(false, true, BackendChoice::DeviceMapper).choose(false).unwrap_err().to_string();
        assert!(error.contains("device-mapper") && error.contains("not here"), "{error}");
    }

    #[test]
    fn trying_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let _ = try_reflink(folder.path());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
