//! The objects on the bus, one file per interface. A handler parses and bounds its arguments, finds out who
//! is asking, resolves, authorizes, and hands one finished request to [`crate::ops`].

mod create_options;
mod credentials;
mod exec;
mod image;
mod import_options;
mod job;
mod kernel;
mod kernel_options;
mod manager;
mod vm;
mod volume;

pub use exec::ExecObject;
pub use image::ImageObject;
pub use job::JobObject;
pub use kernel::KernelObject;
pub use manager::ManagerObject;
pub use vm::VmObject;
pub use volume::VolumeObject;

use banger_dbus::{Dict, Error, Options};

/// For calls that take no options yet: refuses any.
fn no_options(options: Dict) -> Result<(), Error> {
    Options::new(options).finish()
}
