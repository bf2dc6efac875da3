//! Any bytes as a manifest, an index or a configuration.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| banger_image::fuzz::document(bytes));
