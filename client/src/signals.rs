//! The signals that people and sessions send: each command decides what they mean to it.

use crate::error::Error;
use std::{future::Future, io};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGWINCH's number on Linux (signal(7)).
pub const WINDOW: i32 = 28;

/// Receives signals instead of dying of them.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    window: Signal,
}

impl Signals {
    /// From here on nothing but this ends the process by a signal, save SIGKILL.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    /// The next signal's number, [`WINDOW`] among them.
    pub async fn any(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.window.recv() => return WINDOW,
        };
        kind.as_raw_value()
    }

    /// The number of the next signal that asks to end.
    pub async fn end(&mut self) -> i32 {
        loop {
            match self.any().await {
                WINDOW => {}
                signal => return signal,
            }
        }
    }

    /// Waits for `work`, and gives up when a signal asks to end.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or those of `work`.
    pub async fn guard<T, E>(&mut self, work: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        tokio::select! {
            result = work => Ok(result?),
            signal = self.end() => Err(Error::Interrupted(signal)),
        }
    }
}
