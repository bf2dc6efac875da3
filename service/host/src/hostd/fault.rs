//! The moments at which a test may end this helper: before and after each verb, and within those that do several
//! things. Without the feature `faults`, which no release has, nothing of it is there.

use banger_model::VmId;
use std::fmt::Display;

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` is for tests: no release may have it");

/// Comes to a moment: `hostd/start-vm/folder`.
pub fn come(verb: impl Display, moment: &str, vm: Option<VmId>) {
    #[cfg(feature = "faults")]
    listened::tell(&format!("hostd/{verb}/{moment} {}\n", vm.map(|vm| vm.to_string()).unwrap_or_default()));
    #[cfg(not(feature = "faults"))]
    let _ = (verb, moment, vm);
}

/// Where a test listens, in the run folder, in which only root makes anything.
#[cfg(feature = "faults")]
pub mod listened {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    static SOCKET: OnceLock<PathBuf> = OnceLock::new();

    /// Says which run folder it is.
    pub fn at(run: &Path) {
        SOCKET.get_or_init(|| run.join("faults.sock"));
    }

    /// Tells the test, if there is one, and waits until it hangs up.
    pub fn tell(line: &str) {
        let Some(Ok(mut test)) = SOCKET.get().map(UnixStream::connect) else { return };
        if test.write_all(line.as_bytes()).is_ok() {
            // Whatever it answers, and if it only goes away: on with it.
            let _ = test.read(&mut [0]);
        }
    }
}
