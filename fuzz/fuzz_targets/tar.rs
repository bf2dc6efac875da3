//! Any bytes as an archive.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: Vec<u8>| {
    let _ = banger_image::fuzz::tar(&banger_fuzz::sealed(bytes));
});
