//! Images that come from files, and go into them: without a registry and without a network.
//!
//! What is imported is a descriptor, a file or a pipe, never a path. [`Opened`] finds out what it is; a file is read in
//! place, and of a pipe, whose parts come in any order, the parts are kept in a file without a name until they are needed.
//! From there an image goes the way of a pull: every digest checked, layers merged newest first, nothing unpacked
//! onto the host. So the same image gives the same filesystem and the same digest however it came.

mod build;
mod docker;
mod document;
mod export;
mod members;
mod oci;
mod open;
mod raw;
mod region;
mod tar_writer;
mod tree;

use crate::{Digest, ImageError, Layer, Limits, Platform, Progress, RunConfig, Unsafe};
use banger_model::{Bytes, Phase};
pub use export::{Export, Exported, export};
pub use open::{Input, Opened};
pub use raw::Filesystem;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};
use tokio_util::sync::CancellationToken;
pub(crate) use tree::filesystem;

/// What an import says its input is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// What its first bytes and names look like.
    #[default]
    Auto,
    /// The archive of an OCI image layout (image specification, image-layout.md).
    Oci,
    /// What `docker save` writes.
    Docker,
    /// The archive of a root filesystem.
    Rootfs,
    /// An ext4 filesystem.
    Ext4,
}

impl FromStr for Format {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Ok(match text {
            "auto" => Self::Auto,
            "oci" => Self::Oci,
            "docker" => Self::Docker,
            "rootfs" => Self::Rootfs,
            "ext4" => Self::Ext4,
            _ => {
                let reference = crate::error::shorten(text.as_bytes());
                let why = "a format is auto, oci, docker, rootfs or ext4";
                return Err(ImageError::InvalidReference { reference, why });
            }
        })
    }
}

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// Which image of an archive that has several: its name there, or its digest.
    pub select: Option<String>,
    /// For which machine.
    pub platform: Platform,
    /// How to run a root filesystem, which does not say so itself.
    pub config: RunConfig,
    /// An existing folder for what comes through a pipe; the file in it has no name.
    pub scratch: PathBuf,
}

/// An archive that has become a filesystem: `rootfs.ext4` in the staging folder.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Digest of its manifest; where it came without one, of the manifest that says the same.
    pub manifest_digest: Digest,
    /// The platform that it is for.
    pub platform: Platform,
    /// How to run it.
    pub config: RunConfig,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes that the files in it take.
    pub content: Bytes,
    /// Bytes of its layers as the archive has them.
    pub compressed: Bytes,
    /// Its layers, oldest first.
    pub layers: Vec<Layer>,
}

impl Opened {
    /// Reads the archive as far as it takes to know which image it is; of a pipe, all of it. Takes as long as it takes:
    /// not to be called from asynchronous code.
    ///
    /// # Errors
    /// Every kind but those of registries.
    pub fn prepare(
        self,
        request: &ImportRequest,
        limits: &Limits,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Prepared, ImageError> {
        progress.phase(Phase::Importing);
        Ok(Prepared(self.plan(request, limits, progress, cancel)?))
    }
}

/// An image that is known, and of which everything is at hand.
pub struct Prepared(build::Plan);

impl Prepared {
    /// What the archive calls the image, such as `docker.io/library/alpine:3.20`, or a tag alone.
    pub fn reference(&self) -> Option<&str> {
        self.0.reference.as_deref()
    }

    /// Makes the filesystem in an existing empty folder, on disk when this returns; its `size` is the larger of 1.25
    /// times the content and 1 GiB unless it is given. As with [`Opened::prepare`], not for asynchronous code.
    ///
    /// # Errors
    /// As [`Opened::prepare`]; the folder is empty again then.
    pub fn build(
        self,
        size: Option<Bytes>,
        staging: &Path,
        limits: &Limits,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Imported, ImageError> {
        build::build(self.0, size, staging, limits, progress, cancel)
    }
}

/// What is wrong with the archive itself, not with one of its layers.
fn refused(why: impl Into<String>) -> ImageError {
    Unsafe::Document { what: "the archive", why: why.into() }.into()
}

/// The errors of the reader of archives, which names a layer, in words for an archive that is none.
fn outer(error: ImageError) -> ImageError {
    match error {
        ImageError::Unsafe(Unsafe::Archive { why, .. }) => refused(why),
        other => other,
    }
}
