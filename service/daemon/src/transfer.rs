//! Bytes from and to descriptors that clients hand over, which may be slow, stuck or hostile.

use crate::error::Error;
use banger_model::Bytes;
use nix::{
    errno::Errno,
    fcntl::{OFlag, copy_file_range},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::SFlag,
    unistd::{Whence, lseek},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};
use tokio_util::sync::CancellationToken;

/// Longest time between two looks at the cancellation, in milliseconds.
const LOOK: u16 = 200;

/// Largest piece copied between two looks at the cancellation.
const PIECE: u64 = 64 << 20;

/// What a write to a pipe that poll(2) called ready takes without blocking (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;

/// What a descriptor may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It is read.
    In,
    /// It is written.
    Out,
}

/// A client's descriptor: a regular file or a pipe, open in the right direction.
pub struct Peer {
    file: File,
    regular: bool,
    cancel: CancellationToken,
}

impl Peer {
    /// Checks a descriptor before it is used for anything.
    ///
    /// # Errors
    /// [`Error::Descriptor`] for a folder, device or socket, or one that is open in the other direction.
    pub fn new(
        fd: OwnedFd,
        what: &'static str,
        direction: Direction,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let refused = |why: String| Error::Descriptor { what, why };
        let stat = nix::sys::stat::fstat(&fd).map_err(|e| refused(e.to_string()))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG && kind != SFlag::S_IFIFO {
            return Err(refused("it is neither a file nor a pipe".into()));
        }
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::F_GETFL).map_err(|e| refused(e.to_string()))?;
        let flags = OFlag::from_bits_truncate(flags);
        let opposite = match direction {
            Direction::In => OFlag::O_WRONLY,
            Direction::Out => OFlag::O_RDONLY,
        };
        if flags & OFlag::O_ACCMODE == opposite || flags.contains(OFlag::O_PATH) {
            return Err(refused(format!(
                "it is not open for {}",
                match direction {
                    Direction::In => "reading",
                    Direction::Out => "writing",
                }
            )));
        }
        Ok(Self { file: fd.into(), regular: kind == SFlag::S_IFREG, cancel })
    }

    /// Waits until the descriptor is ready, looking at the cancellation now and then.
    fn ready(&self, events: PollFlags) -> io::Result<()> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            match poll(&mut [PollFd::new(self.file.as_fd(), events)], PollTimeout::from(LOOK)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `from` to it, holes as holes where it is a file. `copied` is told the offset reached.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::NoSpace`] or what failed.
    pub fn send(&mut self, from: &File, on: &Path, copied: impl Fn(u64)) -> Result<(), Error> {
        let failed = |error| Error::disk(on, error);
        if self.regular {
            let length = from.metadata().map_err(failed)?.len();
            copy_sparse(from, &self.file, length, &self.cancel, &copied).map_err(failed)?;
            return self.file.set_len(length).map_err(failed);
        }
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let n = from.read_at(&mut buffer, at).map_err(failed)?;
            if n == 0 {
                return Ok(());
            }
            self.write_all(&buffer[..n]).map_err(failed)?;
            at += n as u64;
            copied(at);
        }
    }
}

/// A descriptor to read, by what can be done with it.
pub enum Source {
    /// A file, which can be read at any place.
    File(File),
    /// A pipe, which is read once.
    Pipe(Peer),
}

impl Peer {
    /// What it is.
    pub fn into_source(self) -> Source {
        match self.regular {
            true => Source::File(self.file),
            false => Source::Pipe(self),
        }
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ready(PollFlags::POLLIN)?;
        self.file.read(buffer)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ready(PollFlags::POLLOUT)?;
        let most = if self.regular { bytes.len() } else { bytes.len().min(ATOMIC) };
        self.file.write(&bytes[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies all of a reader to a new file, up to a bound.
///
/// # Errors
/// [`Error::Descriptor`] when it is longer, [`Error::Cancelled`], [`Error::NoSpace`] or what failed.
pub fn receive(
    from: &mut Peer,
    to: &Path,
    what: &'static str,
    most: Bytes,
    copied: impl Fn(u64),
) -> Result<u64, Error> {
    let failed = |error| Error::disk(to, error);
    let mut file = File::create_new(to).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let n = from.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        at += n as u64;
        if at > most.0 {
            return Err(Error::Descriptor { what, why: format!("it is longer than {most}") });
        }
        file.write_all(&buffer[..n]).map_err(failed)?;
        copied(at);
    }
    file.sync_all().map_err(failed)?;
    Ok(at)
}

/// Copies all of a reader to a new file, zeros as holes.
///
/// # Errors
/// What failed, on either side.
pub fn receive_sparse(from: &mut dyn Read, to: &File, copied: impl Fn(u64)) -> io::Result<u64> {
    const BLOCK: usize = 4096;
    let (mut buffer, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for (number, block) in buffer[..filled].chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, at + (number * BLOCK) as u64)?;
            }
        }
        at += filled as u64;
        copied(at);
        if filled < buffer.len() {
            to.set_len(at)?;
            return Ok(at);
        }
    }
}

/// Copies the first `length` bytes of a file to the same offsets of another. Blocks are shared where the
/// filesystem can (btrfs, XFS), and holes stay holes. `copied` is told the offset reached.
///
/// # Errors
/// What failed; a cancellation is the error that [`cancelled`] makes.
pub fn copy_sparse(
    from: &File,
    to: &File,
    length: u64,
    cancel: &CancellationToken,
    copied: impl Fn(u64),
) -> io::Result<()> {
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length)? {
        let mut reached = start;
        while reached < end {
            if cancel.is_cancelled() {
                return Err(cancelled());
            }
            reached += copy_piece(from, to, reached, (end - reached).min(PIECE))?;
            copied(reached);
        }
        at = end;
    }
    copied(length);
    Ok(())
}

/// The next run of data at or after `at`, if there is one before `length`.
fn next_data(file: &File, at: u64, length: u64) -> Result<Option<(u64, u64)>, Errno> {
    if at >= length {
        return Ok(None);
    }
    match lseek(file, at as i64, Whence::SeekData) {
        Ok(start) => {
            let end = lseek(file, start, Whence::SeekHole)?;
            Ok(Some((start as u64, (end as u64).min(length))))
        }
        // Nothing but a hole from here on.
        Err(Errno::ENXIO) => Ok(None),
        // A filesystem that does not know holes.
        Err(Errno::EINVAL) => Ok(Some((at, length))),
        Err(error) => Err(error),
    }
}

/// Copies up to `length` bytes at `offset`; tells how many.
fn copy_piece(from: &File, to: &File, offset: u64, length: u64) -> io::Result<u64> {
    let (mut source, mut target) = (offset as i64, offset as i64);
    match copy_file_range(from, Some(&mut source), to, Some(&mut target), length as usize) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(n as u64),
        Err(Errno::EINTR) => Ok(0),
        // Another filesystem, or a file that takes appended bytes alone: through memory then.
        Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EBADF) => {
            let mut buffer = vec![0; length.min(1 << 20) as usize];
            from.read_exact_at(&mut buffer, offset)?;
            to.write_all_at(&buffer, offset)?;
            Ok(buffer.len() as u64)
        }
        Err(error) => Err(error.into()),
    }
}

/// The error of a copy that somebody cancelled; [`Error::disk`] knows it again.
pub fn cancelled() -> io::Error {
    io::Error::other(Cancelled)
}

/// What is inside [`cancelled`].
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn peer(fd: OwnedFd, direction: Direction) -> Result<Peer, Error> {
        Peer::new(fd, "kernel", direction, CancellationToken::new())
    }

    #[test]
    fn only_files_and_pipes_in_the_right_direction() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let read = || OwnedFd::from(File::open(&path).unwrap());
        let (out, into) = std::io::pipe().unwrap();
        assert!(peer(read(), Direction::In).is_ok());
        assert!(peer(read(), Direction::Out).is_err());
        assert!(peer(OwnedFd::from(into), Direction::In).is_err());
        assert!(peer(OwnedFd::from(out), Direction::In).is_ok());
        assert!(peer(File::open(folder.path()).unwrap().into(), Direction::In).is_err());
        assert!(peer(File::open("/dev/null").unwrap().into(), Direction::In).is_err());
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(peer(socket.into(), Direction::In).is_err());
    }

    #[test]
    fn a_stuck_pipe_can_be_cancelled() {
        let (out, _into) = std::io::pipe().unwrap();
        let cancel = CancellationToken::new();
        let mut peer = Peer::new(out.into(), "kernel", Direction::In, cancel.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let reader = std::thread::spawn(move || receive(&mut peer, &path, "kernel", Bytes::mib(1), |_| {}));
        cancel.cancel();
        assert!(matches!(reader.join().unwrap(), Err(Error::Cancelled)));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, [1; 1025]).unwrap();
        let mut from = peer(File::open(&source).unwrap().into(), Direction::In).unwrap();
        let copy = receive(&mut from, &folder.path().join("copy"), "kernel", Bytes::kib(1), |_| {});
        assert!(copy.unwrap_err().to_string().contains("longer than 1 KiB"));
    }

    #[test]
    fn a_file_is_sent_with_its_holes_and_a_pipe_with_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        let file = File::create(&source).unwrap();
        file.write_all_at(b"end", (8 << 20) - 3).unwrap();
        let source = File::open(&source).unwrap();
        peer(File::create(&copy).unwrap().into(), Direction::Out)
            .unwrap()
            .send(&source, &copy, |_| {})
            .unwrap();
        let copied = std::fs::metadata(&copy).unwrap();
        assert_eq!(copied.len(), 8 << 20);
        assert!(copied.blocks() * 512 < 1 << 20);

        let (mut out, into) = std::io::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).unwrap();
            all
        });
        peer(into.into(), Direction::Out).unwrap().send(&source, &copy, |_| {}).unwrap();
        let all = reader.join().unwrap();
        assert_eq!(all.len(), 8 << 20);
        assert!(all.ends_with(b"\0end"));
    }
}
