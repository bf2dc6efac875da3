//! A private host: bus, polkitd, services and registry in namespaces of their own.
//!
//! [`run`] makes one, runs a command in it, takes it down and reports what is left. The executable that calls
//! it plays every part itself: it is started again as the outer process (root, new pid namespace), as init
//! (mounts, network, services) and as the step that becomes a service or the command. So its `main` begins
//! with [`role`].
//!
//! Nothing of the machine changes: `/etc`, `/usr`, `/run` and `/var/lib` are private copies, the network is
//! empty but for loopback, and everything is gone with the namespaces. Loop devices are the exception, being
//! the whole machine's; they are looked for in the end like all else.

pub mod bus;
mod error;
mod hostd;
pub mod images;
mod init;
pub mod inside;
mod launch;
mod leaks;
mod mounts;
mod outer;
mod polkit;
mod registry;
mod signals;
mod spec;
mod supervise;
mod users;

pub use error::{Doing, HarnessError, Result};
pub use launch::THIS;
pub use outer::{Request, run};
pub use spec::{ALICE_UID, BANGER_UID, BOB_UID, REGISTRY, Report, User};
pub use supervise::{output, tail};

/// Plays the part that the first argument names. None when it names no part: then this is the program itself.
pub fn role() -> Option<std::process::ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (role, rest) = args.split_first()?;
    let outcome = match role.as_str() {
        outer::ROLE => outer::main(rest),
        init::ROLE => init::main(rest).map(|()| 0),
        launch::ROLE => launch::main(rest).map(|never| match never {}),
        _ => return None,
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("private host: {error}");
        125
    });
    Some(std::process::ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
