//! What an image holds is what its layers say: from a registry through [`banger_image::Puller`] to a filesystem that
//! e2fsck finds sound and that is read back without the writer's code. And what is refused leaves nothing.

// Clippy exempts only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

#[path = "../fake/mod.rs"]
mod fake;
#[path = "../../../ext4/tests/support/reader.rs"]
#[allow(dead_code)]
mod reader;

mod large;
mod merging;
mod metadata;
mod names;
mod progress;
mod refused;
mod sparse;
mod support;
