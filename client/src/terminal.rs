//! The user's terminal: its size, and raw mode that always ends.

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal};

/// Rows and columns.
pub type Size = (u16, u16);

/// The size of a terminal that does not tell.
const USUAL: Size = (24, 80);

/// Standard input's terminal in raw mode: every key goes to the guest, Ctrl-C too. It ends when this is
/// dropped, on every way out: an error, a signal (which the client handles) and a panic (which unwinds).
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes standard input's terminal raw; `None` if it is none.
    ///
    /// # Errors
    /// Those of tcsetattr(3).
    pub fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Standard input's terminal without echo: what is typed is not to be seen. It ends when this is dropped.
#[derive(Debug)]
pub struct Hidden {
    before: Termios,
}

impl Hidden {
    /// Stops the echo.
    ///
    /// # Errors
    /// Those of tcsetattr(3).
    pub fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The size of the user's terminal, whichever stream it is on.
pub fn size() -> Size {
    let of = |told: rustix::io::Result<rustix::termios::Winsize>| {
        told.ok().map(|w| (w.ws_row, w.ws_col)).filter(|(rows, columns)| *rows > 0 && *columns > 0)
    };
    of(tcgetwinsize(io::stdin()))
        .or_else(|| of(tcgetwinsize(io::stdout())))
        .or_else(|| of(tcgetwinsize(io::stderr())))
        .unwrap_or(USUAL)
}

/// Whether somebody looks at both output and error stream, so that a hint helps and disturbs no script.
pub fn is_watched() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}
