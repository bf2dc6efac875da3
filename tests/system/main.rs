//! The system lane's scenarios: what a user of a Debian host with the package installed does, on that host. `cargo xtask
//! test system` boots it in QEMU and runs this program there, as root, when it has come up.
//!
//! Each scenario is a list of parts; between two of them the host is rebooted. After each scenario nothing may be left of it.

#![allow(clippy::unwrap_used, reason = "a failure here is the scenario's")]

mod firecracker;
mod host;
mod job;
mod life;
mod network;
mod package;
mod rights;

use host::TEST;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

/// A scenario: its name, its parts, and whether this host has what it needs.
struct Scenario {
    name: &'static str,
    parts: &'static [fn()],
    possible: fn() -> bool,
}

const fn scenario(name: &'static str, parts: &'static [fn()]) -> Scenario {
    Scenario { name, parts, possible: || true }
}

const fn with_firecracker(name: &'static str, parts: &'static [fn()]) -> Scenario {
    Scenario { name, parts, possible: firecracker::came_along }
}

/// All of them, in their order: the first installs the package, the last removes it.
const SCENARIOS: &[Scenario] = &[
    scenario("the_package_installs_and_works_at_once", &[package::installs]),
    scenario("the_units_are_confined", &[package::is_confined]),
    scenario("the_main_job_by_the_client", &[job::by_client]),
    scenario("the_main_job_by_busctl", &[job::by_busctl]),
    scenario("disks_are_snapshots_and_processors_the_hosts_own", &[job::uses_the_host]),
    scenario("a_vm_has_a_unit_of_its_own", &[job::has_a_unit]),
    scenario("names_resolve_through_resolved", &[job::has_a_name]),
    scenario("who_sits_at_the_host_may_and_others_are_refused", &[rights::by_session]),
    scenario("vms_outlive_both_services", &[life::services_end]),
    scenario("a_full_stop_and_start_of_the_service", &[life::stops_and_starts]),
    scenario("vms_are_let_through_by_firewalld", &[network::beside_firewalld]),
    with_firecracker("a_vm_lives_under_firecracker", &[firecracker::lives]),
    with_firecracker("firecracker_snapshots_are_restored_and_forked", &[firecracker::is_written_down]),
    scenario("vms_start_with_the_host_that_are_to", &[life::before_reboot, life::after_reboot]),
    scenario("a_power_cut_leaves_the_truth", &[life::before_power_cut, life::after_power_cut]),
    scenario("an_upgrade_keeps_vms_running", &[package::upgrades]),
    scenario("a_removal_stops_vms_and_a_purge_leaves_nothing", &[package::is_removed]),
];

/// Where it goes on after a reboot: the number of the scenario, of its part, and how many passed and failed so far.
const PROGRESS: &str = "/var/lib/system-test";

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    scenario: usize,
    part: usize,
    passed: usize,
    failed: usize,
}

impl Progress {
    fn read() -> Self {
        let text = fs::read_to_string(PROGRESS).unwrap_or_default();
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        Self { scenario: next(), part: next(), passed: next(), failed: next() }
    }

    fn write(self) {
        let text = format!("{} {} {} {}", self.scenario, self.part, self.passed, self.failed);
        let mut file = File::create(PROGRESS).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
    }
}

fn main() -> ExitCode {
    // The second serial port goes to whoever booted this host.
    let mut port = OpenOptions::new().write(true).open("/dev/ttyS1").unwrap();
    let mut say = move |line: &str| writeln!(port, "{line}").unwrap();
    let only = fs::read_to_string(Path::new(TEST).join("only")).unwrap_or_default();
    let mut progress = Progress::read();
    if progress.scenario == 0 && progress.part == 0 {
        say(&format!("running {} tests", SCENARIOS.iter().filter(|it| wanted(it, only.trim())).count()));
    }
    while let Some(scenario) = SCENARIOS.get(progress.scenario) {
        if !wanted(scenario, only.trim()) {
            progress.scenario += 1;
            continue;
        }
        if !(scenario.possible)() {
            say(&format!("test {} ... ignored, whoever booted this host has no Firecracker", scenario.name));
            progress.scenario += 1;
            continue;
        }
        let whole = progress.part + 1 == scenario.parts.len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            scenario.parts[progress.part]();
            if whole {
                host::assert_clean();
            }
        }));
        match outcome {
            Ok(()) if !whole => {
                progress.part += 1;
                progress.write();
                host::end(scenario.name.contains("power_cut"));
                return ExitCode::SUCCESS;
            }
            Ok(()) => {
                progress.passed += 1;
                say(&format!("test {} ... ok", scenario.name));
            }
            Err(panic) => {
                progress.failed += 1;
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                say(&format!("test {} ... FAILED", scenario.name));
                say(&format!("{}\n{}", text.unwrap_or_default(), host::journal()));
                if progress.scenario == 0 {
                    // Without the package there is nothing to try.
                    break;
                }
                host::tidy_up();
            }
        }
        (progress.scenario, progress.part) = (progress.scenario + 1, 0);
        progress.write();
    }
    let word = if progress.failed == 0 { "ok" } else { "FAILED" };
    say(&format!("\ntest result: {word}. {} passed; {} failed;", progress.passed, progress.failed));
    match host::systemctl(&["poweroff"]).code {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The package comes first and goes last, whatever else is wanted.
fn wanted(scenario: &Scenario, only: &str) -> bool {
    scenario.name.contains(only) || scenario.name == SCENARIOS[0].name
}
