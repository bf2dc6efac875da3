//! What the tests of whole images share: random trees, the programs of e2fsprogs, and a reader of our own.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

pub mod reader;
pub mod tools;
pub mod trees;
