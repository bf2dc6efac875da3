//! What can go wrong while a private host is made, used or taken down.

use std::{fmt::Display, io, process::ExitStatus};

/// A step of the harness failed.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A system call or a file operation failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, and on what.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that should have worked did not.
    #[error("{program} ended with {status}: {stderr}")]
    Program {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote on standard error.
        stderr: String,
    },
    /// A service did not come up.
    #[error("{service} did not come up: {why}\n{log}")]
    NotReady {
        /// The service.
        service: &'static str,
        /// What was waited for.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// The host lacks something that the harness cannot make.
    #[error("{0}")]
    Missing(String),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, HarnessError>;

/// Says what was being done when a system call failed.
pub trait Doing<T> {
    /// Turns the error into one that says what could not be done.
    ///
    /// # Errors
    /// [`HarnessError::Io`] with the original error as its source.
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|error| HarnessError::Io { doing: what.to_string(), source: error.into() })
    }
}
