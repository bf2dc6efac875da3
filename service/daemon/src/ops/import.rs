//! Importing images: archives and filesystems that a client hands over as a descriptor.

use super::publish::{self, Claim};
use crate::{
    error::Error,
    ids,
    jobs::Job,
    service::Service,
    store::ImageRow,
    transfer::{Cancelled, Direction, Peer, Source, copy_sparse, receive_sparse},
};
use banger_dbus::{Dict, DictWriter, names};
use banger_image::{
    Filesystem, Format, ImageError, ImportRequest, Imported, Input, Limits, Opened, Platform, Prepared,
    ROOTFS, Reference, RunConfig,
};
use banger_model::{Bytes, ImageId, ImageName, ImageSource, Phase, Uid};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::Arc,
};

/// What to import.
pub struct Import {
    /// Where it is.
    pub input: OwnedFd,
    /// Its name here; the archive's own when not given.
    pub name: Option<ImageName>,
    /// The name of what has none in the archive.
    pub default_name: Option<ImageName>,
    /// What it is.
    pub format: Format,
    /// Which image of an archive with several.
    pub select: Option<String>,
    /// For which machine.
    pub platform: Platform,
    /// Size of the filesystem, if not the default.
    pub size: Option<Bytes>,
    /// How to run what does not say so itself.
    pub config: RunConfig,
    /// For whom.
    pub owner: Uid,
}

/// What turned out to be in the input.
enum Found {
    Archive(Box<Prepared>),
    Filesystem(Input),
}

/// Takes an image in and publishes it.
///
/// # Errors
/// Every kind of [`ImageError`] but those of registries, a name taken or missing. Nothing is left then.
pub async fn import(service: Arc<Service>, request: Import, job: Arc<Job>) -> Result<Dict, Error> {
    if let Some(name) = &request.name {
        claim(name.clone(), request.owner).check(&service)?;
    }
    let (scratch, working, limits) = (service.images(), job.clone(), service.config.limits.0);
    let (request, found) =
        tokio::task::spawn_blocking(move || look(request, &limits, &scratch, &working)).await??;
    let name = match &request.name {
        Some(name) => name.clone(),
        None => own_name(&request, &found)?,
    };
    let claim = claim(name, request.owner);
    claim.check(&service)?;
    let id = publish::make(&service, &claim, &job, async |id, staging| {
        let (staging, working, name) = (staging.to_owned(), job.clone(), claim.name.clone());
        let made = tokio::task::spawn_blocking(move || match found {
            Found::Archive(prepared) => {
                let size = request.size;
                let made = prepared.build(size, &staging, &limits, &*working, &working.cancel)?;
                Ok(unpacked(row(id, name, &request), made))
            }
            Found::Filesystem(input) => take(id, name, &request, input, &staging, &working),
        });
        made.await?
    })
    .await?;
    Ok(DictWriter::new().with("image", names::path_of(id)).done())
}

fn claim(name: ImageName, owner: Uid) -> Claim {
    Claim { name, owner, reference: String::new() }
}

/// Finds out what there is.
fn look(request: Import, limits: &Limits, scratch: &Path, job: &Job) -> Result<(Import, Found), Error> {
    let fd = request.input.try_clone().map_err(|e| Error::disk(scratch, e))?;
    let input = match Peer::new(fd, "input", Direction::In, job.cancel.clone())?.into_source() {
        Source::File(file) => Input::File(Arc::new(file)),
        Source::Pipe(peer) => Input::Stream(Box::new(Stream(peer))),
    };
    let opened = Opened::new(input, request.format, limits)?;
    if opened.format() == Format::Ext4 {
        return Ok((request, Found::Filesystem(opened.into_input())));
    }
    let wanted = ImportRequest {
        select: request.select.clone(),
        platform: request.platform.clone(),
        config: request.config.clone(),
        scratch: scratch.to_owned(),
    };
    let prepared = opened.prepare(&wanted, limits, job, &job.cancel)?;
    Ok((request, Found::Archive(Box::new(prepared))))
}

/// The name that follows from what the archive calls its image: a reference, or only a tag, which is no name.
fn own_name(request: &Import, found: &Found) -> Result<ImageName, Error> {
    let reference = match found {
        Found::Archive(prepared) => prepared.reference(),
        Found::Filesystem(_) => None,
    };
    let whole = reference.filter(|text| text.contains([':', '/'])).map(str::parse::<Reference>);
    match (whole, &request.default_name) {
        (Some(Ok(reference)), _) => Ok(reference.default_name()),
        (_, Some(name)) => Ok(name.clone()),
        _ => Err(Error::Spec("what is imported does not say what it is called: give it a name".into())),
    }
}

fn row(id: ImageId, name: ImageName, request: &Import) -> ImageRow {
    ImageRow {
        id,
        names: vec![name],
        source: ImageSource::Import,
        reference: String::new(),
        digest: String::new(),
        platform: request.platform.to_string(),
        size: Bytes(0),
        content: Bytes(0),
        compressed: Bytes(0),
        layers: Vec::new(),
        config: request.config.clone(),
        owner: request.owner,
        private: false,
        signature: String::new(),
        kernel: String::new(),
        created: ids::now().seconds,
    }
}

fn unpacked(row: ImageRow, made: Imported) -> ImageRow {
    ImageRow {
        digest: made.manifest_digest.to_string(),
        platform: made.platform.to_string(),
        size: made.size,
        content: made.content,
        compressed: made.compressed,
        layers: made.layers,
        config: made.config,
        ..row
    }
}

/// Takes a filesystem as it is. What counts is the copy: the client may change its file at any time.
fn take(
    id: ImageId,
    name: ImageName,
    request: &Import,
    input: Input,
    staging: &Path,
    job: &Job,
) -> Result<ImageRow, Error> {
    job.phase(Phase::Importing);
    let path = staging.join(ROOTFS);
    let failed = |e| Error::disk(&path, e);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let copy = options.open(&path).map_err(failed)?;
    match input {
        Input::File(file) => {
            let length = file.metadata().map_err(failed)?.len();
            Filesystem::inspect(&file)?;
            job.total(length);
            copy_sparse(&file, &copy, length, &job.cancel, |n| job.advance(n)).map_err(failed)?;
            copy.set_len(length).map_err(failed)?;
        }
        Input::Stream(mut stream) => {
            receive_sparse(&mut stream, &copy, |n| job.advance(n)).map_err(|e| match e.downcast() {
                Ok(error) => Error::Image(error),
                Err(error) => Error::disk(&path, error),
            })?;
        }
    }
    let found = Filesystem::inspect(&copy)?;
    let size = grown(&copy, &path, request.size)?;
    copy.sync_all().map_err(failed)?;
    Ok(ImageRow { size, content: found.used, ..row(id, name, request) })
}

/// Enlarges the file to the size that is wanted; the guest grows its filesystem.
fn grown(copy: &File, path: &Path, wanted: Option<Bytes>) -> Result<Bytes, Error> {
    let failed = |e| Error::disk(path, e);
    let present = Bytes(copy.metadata().map_err(failed)?.len());
    match wanted {
        Some(size) if size < present => {
            Err(ImageError::InvalidSize { size, least: present, most: Bytes::gib(16 << 10) }.into())
        }
        Some(size) => copy.set_len(size.0).map_err(failed).map(|()| size),
        None => Ok(present),
    }
}

/// A client's pipe, whose cancellation is the image's.
struct Stream(Peer);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            match error.get_ref().is_some_and(|inner| inner.is::<Cancelled>()) {
                true => io::Error::other(ImageError::Cancelled),
                false => error,
            }
        })
    }
}
