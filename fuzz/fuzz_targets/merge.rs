//! Any bytes as the layers of an image: what comes out is a sound filesystem, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: Vec<u8>| {
    let bytes = banger_fuzz::sealed(bytes);
    if let Ok(image) = banger_image::fuzz::merge(&banger_fuzz::layers(&bytes)) {
        banger_fuzz::fsck::check(&image);
    }
});
