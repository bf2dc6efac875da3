//! Host lane: faults at every moment of every plan. The moments come from the plans themselves, so that a step is
//! covered by existing. What is killed is killed for good (SIGKILL), while everything waits at its moment.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod catcher;
mod helper;
mod plans;
mod reboot;
mod world;
