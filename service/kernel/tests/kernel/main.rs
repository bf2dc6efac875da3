//! The crate from outside: trees of modules in, archives out.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod initramfs;
mod modules;
mod tree;
