//! The file that a filesystem is written to.
//!
//! Content goes around the page cache (O_DIRECT, open(2)) where the host's filesystem can do that. It is on disk then
//! when the last of it is written, instead of being copied once more and waited for in the end; and an image that is
//! larger than the memory pushes nothing out of it.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    sync::Arc,
};

/// Writes a new file, around the page cache as long as that works.
#[derive(Debug)]
pub(crate) struct Output(Arc<File>);

impl Output {
    /// Writes to `file`.
    pub(crate) fn new(file: Arc<File>) -> Self {
        // Some filesystems, in memory mostly, only have the page cache.
        if let Err(error) = set_direct(&file, true) {
            tracing::debug!(%error, "content goes through the page cache");
        }
        Self(file)
    }
}

/// Whether writes to `file` go around the page cache from now on.
pub(crate) fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let flags = flags(file)?;
    let flags = if direct { flags | OFlag::O_DIRECT } else { flags - OFlag::O_DIRECT };
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn flags(file: &File) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.as_ref().write(bytes) {
            // The disk wants another alignment than these bytes or their place have.
            Err(error)
                if error.kind() == io::ErrorKind::InvalidInput
                    && flags(&self.0)?.contains(OFlag::O_DIRECT) =>
            {
                set_direct(&self.0, false)?;
                self.0.as_ref().write(bytes)
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.as_ref().seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn any_alignment_arrives() {
        // Not in /tmp, which may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        let file = Arc::new(File::create_new(&path).unwrap());
        let mut output = Output::new(Arc::clone(&file));
        let memory: Vec<u8> = (0..4 * 4096).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let (aligned, unaligned) = (&memory[memory.as_ptr().align_offset(4096)..][..4096], &memory[..5]);
        output.write_all(aligned).unwrap();
        output.write_all(unaligned).unwrap();
        assert!(!flags(&file).unwrap().contains(OFlag::O_DIRECT), "it has given up");
        output.write_all(aligned).unwrap();
        output.seek(SeekFrom::Start(20_000)).unwrap();
        output.write_all(aligned).unwrap();
        let mut expected = [aligned, unaligned, aligned].concat();
        expected.resize(20_000, 0);
        expected.extend_from_slice(aligned);
        assert!(fs::read(&path).unwrap() == expected);
    }
}
