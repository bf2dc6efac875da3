//! A VM's console: one reader that keeps a bounded log and lets any number of people look on and type.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc},
};
use tokio_util::sync::CancellationToken;

/// Largest log file; the one before it is kept as `console.log.1`.
const LARGEST_LOG: u64 = 1 << 20;

/// Pieces of output that a viewer may lag behind before it loses some.
const BACKLOG: usize = 256;

/// How much of the log's end an error message quotes.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 4096;

type Piece = Arc<[u8]>;

/// A running VM's console.
pub struct Console {
    output: broadcast::Sender<Piece>,
    input: mpsc::Sender<Piece>,
    closed: CancellationToken,
    log: PathBuf,
}

impl Console {
    /// Takes over the connection to a VM's serial port, and logs what comes to `log`.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn take(port: UnixStream, log: &Path) -> io::Result<Arc<Self>> {
        let writer = Log::open(log)?;
        let (input, typed) = mpsc::channel(16);
        let console = Arc::new(Self {
            output: broadcast::Sender::new(BACKLOG),
            input,
            closed: CancellationToken::new(),
            log: log.to_owned(),
        });
        let (from, to) = port.into_split();
        tokio::spawn(read(from, console.output.clone(), writer, console.closed.clone()));
        tokio::spawn(write(to, typed, console.closed.clone()));
        Ok(console)
    }

    /// Waits until the VM's process is gone: it holds the other end as long as it lives.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// A descriptor to look on and to type: a socket, closed when the VM ends.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (from, to) = UnixStream::from_std(ours)?.into_split();
        tokio::spawn(show(self.output.subscribe(), to, self.closed.clone()));
        tokio::spawn(listen(from, self.input.clone(), self.closed.clone()));
        Ok(theirs.into())
    }

    /// The last lines, for an error message. Control characters are taken out.
    pub fn tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }
}

async fn read(
    mut from: OwnedReadHalf,
    output: broadcast::Sender<Piece>,
    log: Log,
    closed: CancellationToken,
) {
    let log = Mutex::new(log);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        // A full disk must not stop the guest: its console goes on without a log.
        let mut log = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(error) = log.append(&buffer[..n]) {
            tracing::warn!(%error, "the console log lost some output");
        }
        // Nobody looking on is no error.
        let _ = output.send(buffer[..n].into());
    }
    closed.cancel();
}

async fn write(mut to: OwnedWriteHalf, mut typed: mpsc::Receiver<Piece>, closed: CancellationToken) {
    loop {
        let piece = tokio::select! {
            piece = typed.recv() => piece,
            () = closed.cancelled() => None,
        };
        let Some(piece) = piece else { return };
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// Output to one viewer. One that is too slow loses output and is told so.
async fn show(mut output: broadcast::Receiver<Piece>, mut to: OwnedWriteHalf, closed: CancellationToken) {
    loop {
        let piece: Piece = tokio::select! {
            biased;
            received = output.recv() => match received {
                Ok(piece) => piece,
                Err(broadcast::error::RecvError::Lagged(_)) => Arc::from(&b"\r\n[output lost]\r\n"[..]),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = closed.cancelled() => return,
        };
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// What one viewer types, to the port.
async fn listen(mut from: OwnedReadHalf, input: mpsc::Sender<Piece>, closed: CancellationToken) {
    let mut buffer = vec![0; 4096];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = closed.cancelled() => return,
        };
        let Ok(n @ 1..) = read else { return };
        if input.send(buffer[..n].into()).await.is_err() {
            return;
        }
    }
}

/// The log's file, and how full it is.
struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.length + piece.len() as u64 > LARGEST_LOG {
            std::fs::rename(&self.path, older(&self.path))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(piece)?;
        self.length += piece.len() as u64;
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The last lines of a log, without control characters.
///
/// # Errors
/// When there is no log, or it cannot be read.
pub fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// A line without control characters and without the escape sequences of a terminal (ECMA-48, 5.4).
fn plain(line: &str) -> String {
    let mut kept = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next() == Some('[') {
                // Parameters and intermediates end with one final byte, @ to ~.
                let _ = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if !c.is_control() {
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn viewers_see_and_type_and_the_log_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let (port, mut vm) = UnixStream::pair().unwrap();
        let console = Console::take(port, &path).unwrap();
        let viewer = std::os::unix::net::UnixStream::from(console.open().unwrap());
        viewer.set_nonblocking(true).unwrap();
        let mut viewer = UnixStream::from_std(viewer).unwrap();

        vm.write_all(b"login: ").await.unwrap();
        let mut seen = [0; 7];
        viewer.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"login: ");
        viewer.write_all(b"root\n").await.unwrap();
        let mut typed = [0; 5];
        vm.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"root\n");

        drop(vm);
        console.closed().await;
        assert_eq!(viewer.read(&mut seen).await.unwrap(), 0);
        assert_eq!(console.tail(), "login: ");
    }

    #[test]
    fn the_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = Log::open(&path).unwrap();
        for _ in 0..40 {
            log.append(&[b'x'; 100_000]).unwrap();
        }
        let size = |p: &Path| std::fs::metadata(p).unwrap().len();
        assert!(size(&path) <= LARGEST_LOG);
        assert!(size(&older(&path)) <= LARGEST_LOG);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_tail_is_short_and_plain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let lines: String = (0..10_000).map(|n| format!("\x1b[1mline {n}\x1b[0m\r\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let end = tail(&path).unwrap();
        assert_eq!(end.lines().count(), TAIL_LINES);
        assert!(end.ends_with("\nline 9999"), "{end:?}");
    }
}
