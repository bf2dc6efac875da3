//! Loading the kernel modules that the initramfs brings.

use super::Report;
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};
use std::{
    fs::{self, File},
    path::Path,
};

const FOLDER: &str = "/modules";

/// Loads what `/modules/order` lists, one file name a line, in that order. One that does not load is told and
/// passed over: should it have been needed, then the root disk does not appear, and that is fatal.
pub fn load(report: &mut Report) {
    // A kernel with everything built in comes without.
    let Ok(order) = fs::read_to_string(Path::new(FOLDER).join("order")) else { return };
    for name in order.lines().filter(|line| !line.is_empty()) {
        let loaded = File::open(Path::new(FOLDER).join(name)).map_err(|e| e.to_string()).and_then(|file| {
            match finit_module(file, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(e) => Err(e.desc().to_owned()),
            }
        });
        if let Err(error) = loaded {
            report.warn(format!("kernel module {name} does not load: {error}"));
        }
    }
}
