//! The real client against a fake service on a real bus: dbus-daemon with a configuration of its own.

// All of this is test code; the lint spares only what is inside a test function.
#![allow(clippy::unwrap_used)]

mod bus;
mod credentials;
mod fake;
mod jobs;
mod lists;
mod pty;
mod run;
mod streams;
mod terminal;
mod usage;
