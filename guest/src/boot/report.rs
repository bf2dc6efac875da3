//! What a boot leaves behind for the agent to tell the host.

use banger_guest::wire::{GuestInfo, PhaseTime};
use nix::{
    sys::utsname::uname,
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use std::{fs, io};

const PATH: &str = "/run/banger/boot.json";

/// How a boot went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    phases: Vec<PhaseTime>,
    warnings: Vec<String>,
    /// Whether the image's own init is PID 1.
    pub has_init: bool,
}

impl Report {
    /// A phase is through.
    pub fn phase(&mut self, name: &str) {
        // Counts from the kernel's start.
        let now =
            clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| t.tv_sec() * 1000 + t.tv_nsec() / 1_000_000);
        self.phases.push(PhaseTime { name: name.to_owned(), ms: u32::try_from(now).unwrap_or(u32::MAX) });
    }

    /// Something went wrong that does not keep the guest from coming up. It is also said on the console.
    pub fn warn(&mut self, warning: String) {
        eprintln!("banger-guest: {warning}");
        let printable: String = warning.chars().filter(|c| !c.is_control()).take(100).collect();
        if self.warnings.len() < 20 {
            self.warnings.push(printable);
        }
    }

    /// Leaves the report for the agent.
    pub fn store(&self) -> io::Result<()> {
        fs::write(PATH, serde_json::to_vec(self)?)
    }

    /// The report of this boot; an empty one where there is none.
    pub fn load() -> Self {
        fs::read(PATH).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// What the agent tells the host.
    pub fn into_info(self) -> GuestInfo {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kernel = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
        GuestInfo {
            boot_id: boot_id.trim_end().to_owned(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            kernel,
            has_init: self.has_init,
            phases: self.phases,
            warnings: self.warnings,
        }
    }
}
