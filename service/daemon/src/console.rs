//! A VM's console: one reader that keeps a bounded log and lets any number of people look on and type.

mod log;

pub use log::{Content, tail};

use crate::machines::lock;
use log::Log;
use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    sync::{broadcast, mpsc},
};
use tokio_util::sync::CancellationToken;

/// Pieces of output that a viewer may lag behind before it loses some.
const BACKLOG: usize = 256;

/// Piece in which a log is passed on.
const PIECE: usize = 64 << 10;

type Piece = Arc<[u8]>;

/// A running VM's console.
pub struct Console {
    output: broadcast::Sender<Piece>,
    input: mpsc::Sender<Piece>,
    closed: CancellationToken,
    /// Locked while output is added and shown, so that nothing is in both the log and what follows it, or in neither.
    log: Arc<Mutex<Log>>,
    viewers: Arc<AtomicU32>,
}

impl Console {
    /// Takes over the two directions of a VM's serial port, and logs what comes to `log`, of which each file
    /// holds at most `largest` bytes.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn take(
        from: impl AsyncRead + Send + Unpin + 'static,
        to: impl AsyncWrite + Send + Unpin + 'static,
        log: &Path,
        largest: u64,
    ) -> io::Result<Arc<Self>> {
        let log = Arc::new(Mutex::new(Log::open(log, largest)?));
        let (input, typed) = mpsc::channel(16);
        let console = Arc::new(Self {
            output: broadcast::Sender::new(BACKLOG),
            input,
            closed: CancellationToken::new(),
            log: log.clone(),
            viewers: Arc::default(),
        });
        tokio::spawn(read(from, console.output.clone(), log, console.closed.clone()));
        tokio::spawn(write(to, typed, console.closed.clone()));
        Ok(console)
    }

    /// Waits until the VM's process is gone: it holds the other end as long as it lives.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
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
        let (input, closed, viewers) = (self.input.clone(), self.closed.clone(), self.viewers.clone());
        viewers.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            listen(from, input, closed).await;
            viewers.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(theirs.into())
    }

    /// How many look on and may type.
    pub fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// A descriptor to read the log from, the last `lines` lines or all of it, and then what comes, until the VM ends.
    ///
    /// # Errors
    /// When the log cannot be read, or no pipe be made.
    pub fn follow(&self, lines: Option<u32>) -> io::Result<OwnedFd> {
        let (mut content, output) = {
            let log = lock(&self.log);
            (Content::of(log.path())?, self.output.subscribe())
        };
        if let Some(lines) = lines {
            content.last(lines)?;
        }
        let (to, theirs) = pipe_to_client()?;
        tokio::spawn(follow(content, output, to, self.closed.clone()));
        Ok(theirs)
    }

    /// The last lines, for an error message. Control characters are taken out.
    pub fn tail(&self) -> String {
        let path = lock(&self.log).path().to_owned();
        tail(&path).unwrap_or_default()
    }
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    output: broadcast::Sender<Piece>,
    log: Arc<Mutex<Log>>,
    closed: CancellationToken,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        // A full disk must not stop the guest: its console goes on without a log.
        let mut log = lock(&log);
        if let Err(error) = log.append(&buffer[..n]) {
            tracing::warn!(%error, "the console log lost some output");
        }
        // Nobody looking on is no error.
        let _ = output.send(buffer[..n].into());
    }
    closed.cancel();
}

async fn write(mut to: impl AsyncWrite + Unpin, mut typed: mpsc::Receiver<Piece>, closed: CancellationToken) {
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

fn pipe_to_client() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Sender::from_owned_fd(writer.into())?, reader.into()))
}

/// A descriptor to read a log from that nobody adds to.
///
/// # Errors
/// When no pipe can be made.
pub fn hand_out(content: Content) -> io::Result<OwnedFd> {
    let (mut to, theirs) = pipe_to_client()?;
    tokio::spawn(async move { copy(content, &mut to).await });
    Ok(theirs)
}

/// A log to its reader. One that goes away is no error.
async fn copy(content: Content, to: &mut pipe::Sender) -> bool {
    let mut from = content.reader();
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(n @ 1..) if to.write_all(&piece[..n]).await.is_ok() => {}
            Ok(0) => return true,
            _ => return false,
        }
    }
}

async fn follow(
    content: Content,
    mut output: broadcast::Receiver<Piece>,
    mut to: pipe::Sender,
    closed: CancellationToken,
) {
    if !copy(content, &mut to).await {
        return;
    }
    loop {
        let piece: Piece = tokio::select! {
            biased;
            received = output.recv() => match received {
                Ok(piece) => piece,
                Err(broadcast::error::RecvError::Lagged(_)) => Arc::from(&b"\r\n[output lost]\r\n"[..]),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = closed.cancelled() => return,
            // The reader has gone.
            _ = to.ready(Interest::ERROR) => return,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn viewers_see_and_type_and_the_log_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let (port, mut vm) = UnixStream::pair().unwrap();
        let (from, to) = port.into_split();
        let console = Console::take(from, to, &path, 1 << 20).unwrap();
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

    #[tokio::test]
    async fn who_follows_the_log_misses_nothing_and_gets_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let (port, mut vm) = UnixStream::pair().unwrap();
        let (from, to) = port.into_split();
        let console = Console::take(from, to, &path, 64 << 10).unwrap();
        let mut readers = Vec::new();
        for n in 0..200u32 {
            vm.write_all(format!("line {n}\n").as_bytes()).await.unwrap();
            if n % 40 == 0 {
                readers.push(console.follow(None).unwrap());
                readers.push(console.follow(Some(0)).unwrap());
            }
        }
        drop(vm);
        console.closed().await;
        let read = readers.into_iter().map(|reader| {
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                std::fs::File::from(reader).read_to_string(&mut text).unwrap();
                text
            })
        });
        for (index, text) in futures_util::future::join_all(read).await.into_iter().enumerate() {
            let text = text.unwrap();
            let numbers: Vec<u32> =
                text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
            let first = numbers.first().copied().unwrap_or(200);
            assert_eq!(numbers, (first..200).collect::<Vec<_>>(), "reader {index}: {text:?}");
            assert!(index % 2 == 1 || first == 0, "all of it: {first}");
        }
    }

    #[tokio::test]
    async fn a_follower_that_goes_is_noticed_without_output() {
        let folder = tempfile::tempdir().unwrap();
        let (port, _vm) = UnixStream::pair().unwrap();
        let (from, to) = port.into_split();
        let console = Console::take(from, to, &folder.path().join("console.log"), 1 << 20).unwrap();
        drop(console.follow(None).unwrap());
        while console.output.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
