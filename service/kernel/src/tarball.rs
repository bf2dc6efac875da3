//! The regular files of a tar stream, in one pass.

use crate::{
    KernelError,
    scratch::{refused, stream_error},
};
use std::io::Read;
use tar::EntryType;

/// The most entries of an archive; distributions' kernels have 4,000 to 10,000.
pub(crate) const MOST_ENTRIES: u64 = 100_000;
/// The longest extended header, in bytes.
const MOST_EXTENSION: u64 = 64 << 10;

/// Sees one file of an archive: its path as it was written, its size, and its bytes.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], u64, &mut dyn Read) -> Result<(), KernelError> + 'a;

/// Hands each regular file to `visit`. What is not read of it is passed over.
///
/// # Errors
/// [`KernelError::Stream`] when it is no tar stream or beyond a bound, and what `visit` says.
pub(crate) fn each_file(stream: impl Read, visit: &mut Visit<'_>) -> Result<(), KernelError> {
    let mut archive = tar::Archive::new(stream);
    let mut entries = 0;
    let mut long_path: Option<Vec<u8>> = None;
    // Raw: the tar crate would read extended headers of any length into memory.
    for entry in archive.entries().map_err(refused)?.raw(true) {
        let mut entry = entry.map_err(refused)?;
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(stream_error(format!("it has more than {MOST_ENTRIES} entries")));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let mut path = extension(&mut entry)?;
                path.retain(|b| *b != 0);
                long_path = Some(path);
            }
            EntryType::XHeader => {
                if let Some(path) = pax_path(&extension(&mut entry)?)? {
                    long_path = Some(path);
                }
            }
            EntryType::GNULongLink => {}
            EntryType::Regular | EntryType::Continuous => {
                let path = long_path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                let size = entry.size();
                visit(&path, size, &mut entry)?;
            }
            _ => long_path = None,
        }
    }
    Ok(())
}

/// The whole of an extended header.
fn extension(entry: &mut impl Read) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    entry.take(MOST_EXTENSION + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > MOST_EXTENSION {
        return Err(stream_error(format!("it has an extended header of more than {MOST_EXTENSION} bytes")));
    }
    Ok(bytes)
}

/// The `path` record of a PAX header (pax(1), "length key=value\n").
pub(crate) fn pax_path(header: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
    let mut path = None;
    for record in tar::PaxExtensions::new(header) {
        let record = record.map_err(refused)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" => return Err(stream_error("it has a file with an extended size")),
            _ => {}
        }
    }
    Ok(path)
}
