//! Every number that an image may not exceed. An administrator changes most of them in `/etc/banger/config.toml`
//! (docs/configuration.md).

use banger_model::Bytes;
use std::time::Duration;

/// What an image, a layer and a registry may cost at most. Each field has a test that exceeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A manifest or an index, in bytes. Registries themselves stop at 4 MiB (distribution specification, section
    /// "Pushing manifests").
    pub manifest: Bytes,
    /// The configuration blob.
    pub config: Bytes,
    /// Indexes inside indexes before a manifest must come.
    pub index_depth: u32,
    /// Signatures of one image that are looked at, where one is required.
    pub signatures: u32,
    /// One signature, with all that belongs to it.
    pub signature: Bytes,
    /// Layers of one image. Docker and overlayfs stop at 127.
    pub layers: u32,
    /// Compressed bytes of all layers.
    pub compressed: Bytes,
    /// Unpacked bytes of all layers, as archives.
    pub unpacked: Bytes,
    /// Unpacked bytes of a layer for each compressed one; deflate itself can reach 1032. Counted once a layer is
    /// larger than [`Limits::ratio_from`].
    pub ratio: u64,
    /// The ratio does not matter below this many unpacked bytes.
    pub ratio_from: Bytes,
    /// Archive entries of all layers.
    pub entries: u64,
    /// Files of an archive that images are imported from.
    pub members: u64,
    /// One component of a path, in bytes: what ext4 can store.
    pub name: u32,
    /// A whole path or link target, in bytes: PATH_MAX without its NUL.
    pub path: u32,
    /// Extended attributes of one entry, names and values.
    pub xattrs: Bytes,
    /// One extended header of an archive (PAX records, a GNU long name, a sparse map).
    pub extension: Bytes,
    /// Downloads of one pull at a time.
    pub downloads: usize,
    /// How often one blob's download starts again after it broke off without any progress.
    pub retries: u32,
    /// How long to wait before a second attempt; each further one waits twice as long, up to 10 s. A registry's
    /// `Retry-After` wins, up to 60 s.
    pub backoff: Duration,
    /// How long a registry may send nothing.
    pub stall: Duration,
    /// How long connecting may take.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: Bytes::mib(4),
            config: Bytes::mib(4),
            index_depth: 2,
            signatures: 64,
            signature: Bytes::mib(1),
            layers: 128,
            compressed: Bytes::gib(64),
            unpacked: Bytes::gib(256),
            ratio: 400,
            ratio_from: Bytes::gib(1),
            entries: 8_000_000,
            members: 65_536,
            name: 255,
            path: 4095,
            xattrs: Bytes::kib(64),
            extension: Bytes::mib(1),
            downloads: 4,
            retries: 5,
            backoff: Duration::from_millis(200),
            stall: Duration::from_secs(30),
            connect: Duration::from_secs(15),
        }
    }
}
