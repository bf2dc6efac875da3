//! What can go wrong in the client, as a sentence and as an exit code.

use crate::progress::note;
use banger_dbus::{DictError, Error as BusError};
use std::io;

/// Exit code of banger's own failures, as podman has it.
pub const FAILED: u8 = 125;
/// Exit code when the command is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code when there is no such command.
const NOT_FOUND: u8 = 127;
/// SIGPIPE's number (signal(7)).
const SIGPIPE: u8 = 13;

/// The client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service, or the bus, answered with an error.
    #[error("{}", sentence(.0))]
    Bus(#[from] BusError),
    /// The service's answer could not be read.
    #[error(
        "the service's answer could not be read: {0}. Client and service may be of different versions; compare with `banger version`"
    )]
    Reply(#[from] DictError),
    /// The arguments fit the syntax, and still make no sense.
    #[error("{0}")]
    Usage(String),
    /// A file could not be used.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was tried: a verb.
        doing: &'static str,
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Standard output is closed: whoever read it has seen enough.
    #[error("standard output is closed")]
    OutputClosed,
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted(i32),
    /// Some of several things failed, each already reported.
    #[error("{0} of {1} failed")]
    Some(usize, usize),
}

impl Error {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Error::Bus(BusError::CommandNotFound(_)) => NOT_FOUND,
            Error::Bus(BusError::CommandNotExecutable(_)) => NOT_EXECUTABLE,
            Error::Interrupted(signal) => of_signal(*signal),
            Error::OutputClosed => 128 + SIGPIPE,
            _ => FAILED,
        }
    }

    /// Whether there is nothing more to say about it.
    pub fn is_silent(&self) -> bool {
        matches!(self, Error::OutputClosed | Error::Interrupted(_) | Error::Some(..))
    }

    /// The D-Bus name of the error, if it has one.
    pub fn bus_name(&self) -> Option<&str> {
        match self {
            Error::Bus(error) => Some(error.name()),
            _ => None,
        }
    }

    /// Tells a person on standard error what went wrong.
    pub fn report(&self, verbose: bool) {
        if self.is_silent() {
            return;
        }
        // What a guest or a registry said must not reach the terminal as an instruction.
        let plain = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
        let text: String = self.to_string().chars().map(plain).collect();
        match self.bus_name() {
            Some(name) if verbose => note(&format!("Error: {text}\n  ({name})")),
            _ => note(&format!("Error: {text}")),
        }
    }

    /// A file could not be used.
    pub fn file(doing: &'static str, path: impl AsRef<std::path::Path>, source: io::Error) -> Self {
        Error::File { doing, path: path.as_ref().display().to_string(), source }
    }
}

impl From<banger_dbus::zbus::Error> for Error {
    fn from(error: banger_dbus::zbus::Error) -> Self {
        Error::Bus(error.into())
    }
}

/// The exit code of a process that a signal ended, as shells tell it.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal.clamp(0, 127)).unwrap_or(u8::MAX)
}

/// What the service said, or what there is to do when it said nothing.
fn sentence(error: &BusError) -> String {
    if error.is_bus_absent() {
        return format!(
            "there is no system bus: {}. Start dbus, or set DBUS_SYSTEM_BUS_ADDRESS to the bus that has the service",
            error.message()
        );
    }
    if error.is_service_absent() {
        return "the banger service is not there. Install it, or start it with `sudo systemctl start bangerd`; \
                `journalctl -u bangerd` tells why it does not come up"
            .into();
    }
    if error.is_service_gone() {
        return "the banger service went away before it answered. It takes up its work again when it is back: \
                look with `banger vm ls` and `banger job ls`, and try again"
            .into();
    }
    match (error, error.message()) {
        (BusError::AccessDenied(_), "") => "you may not do that: an administrator decides with polkit".into(),
        (_, "") => format!("the service gave no reason ({})", error.name()),
        (_, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(name: &str, text: &str) -> Error {
        Error::Bus(BusError::from_name(name, text.into()))
    }

    #[test]
    fn exit_codes_are_podmans() {
        assert_eq!(bus("org.banger.Error.NotFound", "x").code(), 125);
        assert_eq!(bus("org.banger.Error.CommandNotExecutable", "x").code(), 126);
        assert_eq!(bus("org.banger.Error.CommandNotFound", "x").code(), 127);
        assert_eq!(Error::Interrupted(2).code(), 130);
        assert_eq!(Error::Interrupted(15).code(), 143);
        assert_eq!(Error::OutputClosed.code(), 141);
        assert_eq!(Error::Usage("x".into()).code(), 125);
    }

    #[test]
    fn a_signal_beyond_all_bounds_is_still_a_code() {
        assert_eq!(of_signal(i32::MAX), 255);
        assert_eq!(of_signal(-5), 128);
    }

    #[test]
    fn an_absent_service_has_a_remedy() {
        let error = bus("org.freedesktop.DBus.Error.ServiceUnknown", "The name is not activatable");
        assert!(error.to_string().contains("systemctl start bangerd"), "{error}");
        let error = bus("org.freedesktop.DBus.Error.NoServer", "no such file");
        assert!(error.to_string().contains("DBUS_SYSTEM_BUS_ADDRESS"), "{error}");
        let error = bus("org.freedesktop.DBus.Error.NoReply", "remote peer disconnected");
        assert!(error.to_string().contains("went away"), "{error}");
    }

    #[test]
    fn the_services_own_sentence_is_kept() {
        let error = bus("org.banger.Error.NotFound", "there is no image \"x\"; see `banger image ls`");
        assert_eq!(error.to_string(), "there is no image \"x\"; see `banger image ls`");
        assert_eq!(error.bus_name(), Some("org.banger.Error.NotFound"));
    }
}
