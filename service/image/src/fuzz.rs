//! What the fuzz targets call: whatever parses bytes from outside, without network and disk.

use crate::{
    Digest, ImageError, Limits, Platform,
    config::ImageConfig,
    entry::{BodySink, Entries as _},
    manifest::Document,
    merge::Merger,
    rootfs::{Entries, Rootfs},
    tar::Archive,
};
use banger_ext4::{Options, Size, Timestamp, Writer};
use banger_model::Bytes;
use std::{io::Cursor, path::Path};

/// Small enough that one input takes milliseconds.
fn limits() -> Limits {
    Limits { entries: 1000, extension: Bytes::kib(64), ..Limits::default() }
}

/// Counts what a body has.
#[derive(Default)]
struct Counted {
    data: u64,
    all: u64,
}

impl BodySink for Counted {
    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.data += bytes.len() as u64;
        self.hole(bytes.len() as u64)
    }

    fn hole(&mut self, length: u64) -> Result<(), ImageError> {
        // The largest that a sparse map can say.
        self.all = self.all.saturating_add(length);
        Ok(())
    }
}

/// Reads an archive to its end.
///
/// # Errors
/// What is wrong with it.
///
/// # Panics
/// When more data comes out than went in.
pub fn tar(bytes: &[u8]) -> Result<u64, ImageError> {
    let mut archive = Archive::new(Cursor::new(bytes), Digest::of(b""), limits());
    let mut bodies = Counted::default();
    let mut entries = 0;
    while archive.next()?.is_some() {
        entries += 1;
        archive.copy_body(&mut bodies)?;
    }
    assert!(bodies.data <= bytes.len() as u64, "{} bytes out of {}", bodies.data, bytes.len());
    assert!(bodies.all >= bodies.data);
    Ok(entries)
}

/// Merges archives, oldest first, into a filesystem.
///
/// # Errors
/// What is wrong with them.
pub fn merge(layers: &[&[u8]]) -> Result<Vec<u8>, ImageError> {
    let options = Options { uuid: [7; 16], label: Vec::new(), expected: 0, epoch: Timestamp::default() };
    let path = Path::new("memory");
    let failed = |error| crate::rootfs::failed(error, path, String::new());
    let mut image = Cursor::new(Vec::new());
    let writer = Writer::new(&mut image, options).map_err(failed)?;
    let mut merger = Merger::new(Rootfs::new(writer, path, Entries::default()), limits());
    for layer in layers.iter().rev() {
        let archive = || Archive::new(Cursor::new(*layer), Digest::of(b""), limits());
        if merger.layer(&mut archive())? {
            merger.again(&mut archive())?;
        }
    }
    let summary = merger.finish()?.writer.finish(Size::AtLeast(0)).map_err(failed)?;
    let mut image = image.into_inner();
    image.resize(summary.size as usize, 0);
    Ok(image)
}

/// Reads a manifest, an index or a configuration.
///
/// # Panics
/// When something is in it that its limits do not allow.
pub fn document(bytes: &[u8]) {
    let limits = Limits { layers: 8, ..Limits::default() };
    match Document::parse(bytes, None, &limits) {
        Ok(Document::Index(index)) => drop(index.select(&Platform::host()).map(|found| found.size)),
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= 8 && manifest.config.size <= limits.config.0);
        }
        Err(error) => assert!(error.to_string().len() < 10_000),
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        // What the database keeps of it comes back.
        let text = serde_json::to_string(&config.run).expect("a configuration is JSON");
        assert_eq!(serde_json::from_str::<crate::RunConfig>(&text).expect("it was written here"), config.run);
    }
}
