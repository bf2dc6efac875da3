//! The guest's init and agent: one static binary, which is `/init` of the initramfs.
//!
//! Started by the kernel it brings the guest up ([`boot`]) and becomes the image's own init. Where there is
//! none it starts itself as `init` ([`pid1`]). In both cases it also runs as `agent` ([`agent`]), a process of its
//! own whose name begins with `@`: systemd spares such processes to the very end
//! (<https://systemd.io/ROOT_STORAGE_DAEMONS>).

mod agent;
mod boot;
mod connect;
mod ioctl;
mod main_process;
mod pid1;
mod power;
mod session;
mod spawn;
mod uevent;
mod users;

use std::process::ExitCode;

/// Where banger-guest is in a running guest: not on the image's disk.
const SELF: &str = "/run/banger/banger-guest";

/// Where the settings are in a running guest.
const SETTINGS: &str = "/run/banger/settings.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match (std::process::id(), arguments.as_slice()) {
        (1, ["init", agent]) => pid1::run(agent),
        // The kernel passes on whatever of its command line it does not know.
        (1, _) => boot::run(),
        (_, ["agent"]) => agent::run(),
        (_, ["agent", "--stdin"]) => agent::run_on_stdin(None),
        (_, ["agent", "--stdin", main]) => agent::run_on_stdin(Some(main)),
        (_, ["connect", port]) => connect::run(port),
        _ => {
            eprintln!(
                "usage: banger-guest agent [--stdin [MAIN]] | connect PORT\nIn a guest, the kernel starts it as /init."
            );
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("banger-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
