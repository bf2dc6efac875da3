//! Any text as a reference: what is one stays the same through its text.

#![no_main]

use banger_image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let shown = reference.to_string();
        let again: Reference = shown.parse().unwrap_or_else(|error| panic!("{text:?} -> {shown:?}: {error}"));
        // All but the unsaid tag, which the text spells out.
        let parts = |of: &Reference| {
            (
                of.registry().to_owned(),
                of.repository().to_owned(),
                of.tag().map(str::to_owned),
                of.digest().cloned(),
            )
        };
        assert_eq!(parts(&again), parts(&reference), "{text:?} -> {shown:?}");
        assert_eq!(again.to_string(), shown);
        // A name of banger's own can be made of every one.
        let _ = reference.default_name();
    }
});
