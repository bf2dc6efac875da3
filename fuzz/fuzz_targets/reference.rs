//! Any text as a reference: what is one stays the same through its text.

#![no_main]

use banger_image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let shown = reference.to_string();
        let again: Reference = shown.parse().unwrap_or_else(|error| panic!("{text:?} -> {shown:?}: {error}"));
        assert_eq!(again, reference, "{text:?} -> {shown:?}");
        assert_eq!(again.to_string(), shown);
        // A name of banger's own can be made of every one.
        let _ = reference.default_name();
    }
});
