//! What is known of the guest's main process: PID 1 writes it down, and the agent tells the host.

use banger_guest::wire::ExitStatus;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The main process, as PID 1 knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainProcess {
    /// Its number, while it runs.
    pub pid: Option<i32>,
    /// How it ended, once it has.
    pub ended: Option<ExitStatus>,
}

/// Where that is written.
#[derive(Debug, Clone)]
pub struct MainFile(PathBuf);

impl MainFile {
    /// The file of a running guest.
    pub fn of_guest() -> Self {
        Self::at("/run/banger/main.json")
    }

    /// A file elsewhere.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Writes it down, at once.
    pub fn write(&self, main: &MainProcess) -> io::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, serde_json::to_vec(main)?)?;
        fs::rename(new, &self.0)
    }

    /// What is written; nothing where there is no main process of ours.
    pub fn read(&self) -> Option<MainProcess> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    fn told(&self) -> PathBuf {
        self.0.with_extension("told")
    }

    /// Notes that the host knows of its end.
    pub fn set_told(&self) {
        // Then PID 1 waits until its patience is over.
        let _ = fs::write(self.told(), "");
    }

    /// Whether the host knows of its end.
    pub fn is_told(&self) -> bool {
        Path::exists(&self.told())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = MainFile::at(folder.path().join("main.json"));
        assert_eq!(file.read(), None);
        for main in [
            MainProcess { pid: Some(7), ended: None },
            MainProcess { pid: None, ended: Some(ExitStatus::Signal(9)) },
        ] {
            file.write(&main).unwrap();
            assert_eq!(file.read(), Some(main));
        }
        assert!(!file.is_told());
        file.set_told();
        assert!(file.is_told());
    }
}
