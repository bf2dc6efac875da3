//! A command in a guest.

use crate::{
    AgentError,
    connection::{Connection, Line},
    stream::{Output, Stream},
};
use banger_guest::wire::{ExecSpec, ExitStatus, WindowSize};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What to run in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments, exactly as the program gets them. A program without a slash is looked up in
    /// the guest's `PATH`.
    pub argv: Vec<String>,
    /// `NAME=value`, added to the guest's default environment (`PATH`, `HOME`, `USER`, `LOGNAME`, `TERM`).
    pub env: Vec<String>,
    /// The working folder, absolute; `/` by default.
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the guest; root by default.
    pub user: Option<String>,
    /// A terminal of this size instead of three pipes. Everything then comes through standard output.
    pub tty: Option<WindowSize>,
    /// Whether there is standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
}

impl From<ExecRequest> for ExecSpec {
    fn from(request: ExecRequest) -> Self {
        let ExecRequest { argv, env, cwd, user, tty, stdin } = request;
        Self { argv, env, cwd, user, tty, stdin }
    }
}

/// A command that runs in a guest.
///
/// The three streams may be moved out. Standard output and error must be read or dropped, or the command
/// waits for its reader; what a dropped one would have had is discarded. When the last [`ExecControl`] of a
/// command that still runs is dropped, the command gets SIGHUP, and 5 seconds later SIGKILL.
#[derive(Debug)]
pub struct Exec {
    /// Standard input. Shutting it down, or dropping it, is the end of the input.
    pub stdin: ExecStdin,
    /// Standard output, or the terminal's.
    pub stdout: ExecOutput,
    /// Standard error; at its end from the first with a terminal.
    pub stderr: ExecOutput,
    /// Everything else.
    pub control: ExecControl,
}

/// A handle on a command that runs in a guest.
#[derive(Debug, Clone)]
pub struct ExecControl(Arc<Guard>);

/// Standard input of a command.
#[derive(Debug)]
pub struct ExecStdin {
    connection: Arc<Connection>,
    line: Arc<Line>,
}

/// Standard output or error of a command.
#[derive(Debug)]
pub struct ExecOutput {
    connection: Arc<Connection>,
    line: Arc<Line>,
    which: fn(&mut Stream) -> &mut Output,
}

/// Hangs a command up when nobody is interested in it any more.
#[derive(Debug)]
pub(crate) struct Guard {
    connection: Arc<Connection>,
    line: Arc<Line>,
}

impl Guard {
    pub(crate) fn new(connection: Arc<Connection>, line: Arc<Line>) -> Self {
        Self { connection, line }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.line.is_over() {
            self.connection.with(&self.line, Stream::hang_up);
        }
    }
}

impl Exec {
    pub(crate) fn new(guard: Guard) -> Self {
        let (connection, line) = (guard.connection.clone(), guard.line.clone());
        let output = |which| ExecOutput { connection: connection.clone(), line: line.clone(), which };
        Self {
            stdout: output(|stream| &mut stream.stdout),
            stderr: output(|stream| &mut stream.stderr),
            stdin: ExecStdin { connection: connection.clone(), line: line.clone() },
            control: ExecControl(Arc::new(guard)),
        }
    }

    /// A handle on the command, for another task.
    pub fn control(&self) -> ExecControl {
        self.control.clone()
    }

    /// Waits for the end of the command; see [`ExecControl::wait`].
    ///
    /// # Errors
    /// As [`ExecControl::wait`].
    pub async fn wait(&self) -> Result<ExitStatus, AgentError> {
        self.control.wait().await
    }
}

impl ExecControl {
    /// Waits for the end of the command, and for all of its output to have arrived here. That does not come
    /// about while more than a window (256 KiB) of output waits for its reader.
    ///
    /// # Errors
    /// What ended the connection to the guest.
    pub async fn wait(&self) -> Result<ExitStatus, AgentError> {
        self.0.line.end().await
    }

    /// Gives the command's terminal another size. A command without one does not notice.
    pub fn resize(&self, size: WindowSize) {
        self.0.connection.with(&self.0.line, |stream| stream.resize(size));
    }

    /// Sends a signal, 1 to 64, to the command's process group. A command that has ended does not notice.
    ///
    /// # Errors
    /// [`AgentError::Invalid`] for another number, and when too many signals are on their way.
    pub fn signal(&self, number: i32) -> Result<(), AgentError> {
        if !(1..=64).contains(&number) {
            return Err(AgentError::Invalid("a signal is a number from 1 to 64"));
        }
        match self.0.connection.with(&self.0.line, |stream| stream.signal(number)) {
            true => Ok(()),
            false => Err(AgentError::Invalid("too many signals are on their way to the guest")),
        }
    }
}

impl AsyncWrite for ExecStdin {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.with(&self.line, |stream| {
            if stream.input.is_closed() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            stream.input.write(bytes, cx.waker()).map_or(Poll::Pending, |n| Poll::Ready(Ok(n)))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.with(&self.line, |stream| stream.input.end());
        Poll::Ready(Ok(()))
    }
}

impl Drop for ExecStdin {
    fn drop(&mut self) {
        self.connection.with(&self.line, |stream| stream.input.end());
    }
}

impl AsyncRead for ExecOutput {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        match self.connection.with(&self.line, |stream| (self.which)(stream).read(room, cx.waker())) {
            // An output that was cut off is no end.
            Some(0) if self.line.is_cut_off() => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Some(length) => {
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for ExecOutput {
    fn drop(&mut self) {
        self.connection.with(&self.line, |stream| (self.which)(stream).discard());
    }
}
