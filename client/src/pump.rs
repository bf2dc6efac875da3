//! Moves a stream of bytes from one descriptor to another, on a thread of its own: the local ends may be
//! terminals, files or pipes, blocking or not, and most of them cannot be waited for without a thread.

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
    io::Errno,
    pipe::{SpliceFlags, splice},
    termios::isatty,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};
use tokio::sync::oneshot;

/// Bytes moved at a time: a pipe's default capacity (pipe(7)).
const PIECE: usize = 64 << 10;

/// How a pump ended.
#[derive(Debug)]
pub enum End {
    /// The source has no more.
    Eof,
    /// Nobody reads the target any more.
    Closed,
    /// It broke.
    Failed(io::Error),
}

/// Starts a pump; both descriptors are dropped when it ends, and then its end is told.
pub fn start<From, To>(from: From, to: To) -> oneshot::Receiver<End>
where
    From: AsFd + Send + 'static,
    To: AsFd + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let end = run(from.as_fd(), to.as_fd());
        drop((from, to));
        // Whoever no longer listens does not want to know.
        let _ = tell.send(end);
    });
    told
}

/// Moves everything, and returns when there is no more.
pub fn run(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> End {
    match copy(from, to) {
        Ok(()) => End::Eof,
        Err(Errno::PIPE | Errno::CONNRESET) => End::Closed,
        // A terminal whose other side is gone reads as an error.
        Err(Errno::IO) if isatty(from) => End::Eof,
        Err(error) => End::Failed(error.into()),
    }
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let to_pipe = matches!(kind(to), Some(FileType::Fifo));
    if !to_pipe || !matches!(kind(from), Some(FileType::Fifo | FileType::RegularFile)) {
        return copy_by_buffer(from, to);
    }
    loop {
        match splice(from, None, to, None, PIECE, SpliceFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, to)?,
            // A filesystem that cannot.
            Err(Errno::INVAL | Errno::NOSYS) => return copy_by_buffer(from, to),
            Err(error) => return Err(error),
        }
    }
}

/// What a descriptor is. Only pipes and files are spliced from: with a terminal or a socket splice(2) may wait for more
/// with the first bytes in hand. Only pipes are spliced to: with a file it notes the position, waits for data, and
/// then sets the position from its note, which takes back what somebody else wrote meanwhile (`> file 2>&1`).
fn kind(fd: BorrowedFd<'_>) -> Option<FileType> {
    fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)).ok()
}

fn copy_by_buffer(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                wait_for(from, PollFlags::IN)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        write_all(to, &buffer[..count])?;
    }
}

/// Writes all of `bytes`, waiting where the descriptor does not block.
///
/// # Errors
/// Those of write(2).
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(to, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until a splice can go on. Which side held it up is not told, so both are asked in turn.
fn wait(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    wait_for(from, PollFlags::IN)?;
    wait_for(to, PollFlags::OUT)
}

fn wait_for(fd: BorrowedFd<'_>, what: PollFlags) -> Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(fd, what)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::OwnedFd,
    };

    fn through(bytes: &[u8], from: impl FnOnce(&[u8]) -> OwnedFd) -> Vec<u8> {
        let (mut out, to) = io::pipe().unwrap();
        let _pump = start(from(bytes), to);
        let mut got = Vec::new();
        out.read_to_end(&mut got).unwrap();
        got
    }

    fn piped(bytes: &[u8]) -> OwnedFd {
        let (from, mut into) = io::pipe().unwrap();
        let bytes = bytes.to_vec();
        thread::spawn(move || into.write_all(&bytes).unwrap());
        from.into()
    }

    fn filed(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file.into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn bytes_arrive_as_they_were(bytes in prop::collection::vec(any::<u8>(), 0..200_000)) {
            prop_assert_eq!(&through(&bytes, piped), &bytes);
            prop_assert_eq!(&through(&bytes, filed), &bytes);
        }
    }

    #[test]
    fn two_streams_can_share_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        let (quiet, into_quiet) = io::pipe().unwrap();
        let other = start(quiet, file.try_clone().unwrap());
        assert!(matches!(run(piped(b"one ").as_fd(), file.as_fd()), End::Eof));
        // The other stream says nothing, and ends.
        drop(into_quiet);
        assert!(matches!(other.blocking_recv(), Ok(End::Eof)));
        file.write_all(b"two").unwrap();
        file.rewind().unwrap();
        let mut got = String::new();
        file.read_to_string(&mut got).unwrap();
        assert_eq!(got, "one two");
    }

    #[test]
    fn a_file_to_append_to_is_written_by_hand() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), "before ").unwrap();
        let to = File::options().append(true).open(path.path()).unwrap();
        let end = run(piped(b"after").as_fd(), to.as_fd());
        assert!(matches!(end, End::Eof), "{end:?}");
        assert_eq!(std::fs::read(path.path()).unwrap(), b"before after");
    }

    #[test]
    fn descriptors_that_do_not_block_are_waited_for() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let from = piped(&bytes);
        let (mut out, to) = io::pipe().unwrap();
        for fd in [from.as_fd(), to.as_fd()] {
            rustix::io::ioctl_fionbio(fd, true).unwrap();
        }
        let _pump = start(from, to);
        let mut got = Vec::new();
        out.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
    }

    #[test]
    fn a_socket_is_passed_on_piece_by_piece() {
        let (mut into, from) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut out, to) = io::pipe().unwrap();
        let _pump = start(from, to);
        for n in 0..1000u32 {
            into.write_all(&n.to_le_bytes()).unwrap();
            let mut got = [0; 4];
            out.read_exact(&mut got).unwrap();
            assert_eq!(got, n.to_le_bytes());
        }
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        let (out, to) = io::pipe().unwrap();
        drop(out);
        let (from, mut into) = io::pipe().unwrap();
        into.write_all(b"x").unwrap();
        let end = run(from.as_fd(), to.as_fd());
        assert!(matches!(end, End::Closed), "{end:?}");
    }

    #[test]
    fn a_full_disk_is_told() {
        let to = File::options().write(true).open("/dev/full").unwrap();
        let end = run(piped(b"x").as_fd(), to.as_fd());
        assert!(matches!(end, End::Failed(_)), "{end:?}");
    }
}
