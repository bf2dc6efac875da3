//! What the services share with systemd: readiness and watchdog ([`Notifier`]), descriptors that outlive a
//! restart ([`fdstore`]), logs that the journal
//! understands ([`init_logging`]), names that are resolved ([`resolved`]), units for VMs
//! ([`scope`]), and the names and paths that the unit files and the code agree on
//! ([`paths`]). The unit files are in `units/`.

mod error;
pub mod fdstore;
mod ioctl;
mod log;
mod notify;
pub mod paths;
pub mod resolved;
pub mod scope;

pub use error::SystemdError;
pub use log::init_logging;
pub use notify::Notifier;
