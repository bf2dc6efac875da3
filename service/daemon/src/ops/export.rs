//! Writing images to clients' descriptors: as a filesystem, or as an OCI archive.

use crate::{
    error::Error,
    jobs::Job,
    service::Service,
    store::ImageRow,
    transfer::{Cancelled, Direction, Peer},
};
use banger_dbus::{Dict, DictWriter};
use banger_image::{Export, ImageError, Platform};
use banger_model::Phase;
use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    str::FromStr,
    sync::Arc,
};

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// Its filesystem.
    Ext4,
    /// The archive of an OCI image layout with one layer.
    Oci,
}

impl FromStr for ExportFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "ext4" => Ok(Self::Ext4),
            "oci" => Ok(Self::Oci),
            _ => Err(Error::Named(banger_dbus::Error::InvalidArgs("a format is ext4 or oci".into()))),
        }
    }
}

/// Writes an image to a client's descriptor.
///
/// # Errors
/// [`Error::Descriptor`] when it is neither a file nor a pipe; else what failed.
pub async fn export(
    service: Arc<Service>,
    image: ImageRow,
    to: OwnedFd,
    format: ExportFormat,
    job: Arc<Job>,
) -> Result<Dict, Error> {
    job.phase(Phase::Exporting);
    let written = tokio::task::spawn_blocking(move || {
        let peer = Peer::new(to, "output", Direction::Out, job.cancel.clone())?;
        match format {
            ExportFormat::Ext4 => filesystem(&service, &image, peer, &job),
            ExportFormat::Oci => archive(&service, &image, peer, &job),
        }
    });
    written.await?
}

fn filesystem(service: &Service, image: &ImageRow, mut peer: Peer, job: &Job) -> Result<Dict, Error> {
    job.total(image.size.0);
    let from = service.open_rootfs(image)?;
    peer.send(&from, &service.rootfs(image.id), |n| job.advance(n))?;
    Ok(DictWriter::new().with("bytes", image.size).done())
}

fn archive(service: &Service, image: &ImageRow, peer: Peer, job: &Job) -> Result<Dict, Error> {
    let platform: Platform = image.platform.parse()?;
    let rootfs = service.open_rootfs(image)?;
    let scratch = service.images();
    let wanted = Export {
        rootfs: &rootfs,
        config: &image.config,
        platform: &platform,
        name: &image.called(),
        scratch: &scratch,
    };
    let mut to = io::BufWriter::with_capacity(1 << 20, Target(peer));
    let done = banger_image::export(&wanted, &mut to, &service.config.limits.0, job, &job.cancel)?;
    to.flush().map_err(|e| match e.downcast() {
        Ok(error) => Error::Image(error),
        Err(error) => Error::disk(&scratch, error),
    })?;
    let digest = done.manifest_digest.to_string();
    Ok(DictWriter::new().with("bytes", done.size).with("digest", digest).done())
}

/// A client's descriptor, whose cancellation is the image's.
struct Target(Peer);

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| {
            match error.get_ref().is_some_and(|inner| inner.is::<Cancelled>()) {
                true => io::Error::other(ImageError::Cancelled),
                false => error,
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
