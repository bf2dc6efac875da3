//! From an OCI reference to an ext4 root filesystem.
//!
//! A pull resolves a [`Reference`] to a manifest, downloads the layers in parallel into a cache of blobs, and merges
//! them newest first, while they arrive, straight into an ext4 image. No file is unpacked onto the host, so nothing in
//! a layer can reach the host's filesystem, and nothing here needs privileges.
//!
//! The way of the bytes, each arrow a bounded queue or a file: `registry` (HTTP) → `blobs` (cache, digests) → `unpack`
//! (inflate, diff digests) → `tar` (entries) → `merge` (what is visible) → `rootfs` (ext4).

mod archive;
mod blobs;
mod bundle;
mod catalogue;
mod config;
mod digest;
mod download;
mod entry;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod gzip;
mod limits;
mod manifest;
mod merge;
mod output;
mod platform;
mod progress;
mod puller;
mod reference;
mod registries;
mod registry;
mod resolve;
mod rootfs;
mod seed;
mod signature;
mod space;
mod tar;
mod unfinished;
mod unpack;

pub use archive::{
    Export, Exported, Filesystem, Format, ImportRequest, Imported, Input, Opened, Prepared, export,
};
pub use blobs::{PruneBlobs, PrunedBlobs};
pub use bundle::{Bundle, BundleRequest};
pub use catalogue::{Artifact, Catalogue, Entry as CatalogueEntry, EntryKind, Problem};
pub use config::RunConfig;
pub use digest::Digest;
pub use download::Download;
pub use error::{ImageError, Unsafe, Unsupported};
pub use limits::Limits;
pub use platform::Platform;
pub use progress::{Progress, Silent};
pub use puller::{Layer, Login, PullRequest, Pulled, Puller, ROOTFS};
pub use reference::Reference;
pub use registries::{Registries, RegistriesFolder, Registry};
pub use resolve::Resolved;
pub use seed::{Seed, seed};
pub use signature::{Identity, Required, SignaturePolicy, Subject};
