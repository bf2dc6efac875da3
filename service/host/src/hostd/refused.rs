//! What a verb answers when it fails.

use banger_host::{Refusal, Reply};
use std::{fmt::Display, io};

/// A verb failed: why for programs, why for people.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Why, for programs.
    pub kind: Refusal,
    /// Why, for people.
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Refused>;

/// A refusal.
pub fn refused(kind: Refusal, message: impl Into<String>) -> Refused {
    Refused { kind, message: message.into() }
}

/// For `map_err`: a step that the operating system refused.
pub fn system(step: impl Display) -> impl FnOnce(io::Error) -> Refused {
    move |error| refused(Refusal::System, format!("{step}: {error}"))
}

/// For `map_err`: a step that a host fails which lacks something.
pub fn not_ready(step: impl Display) -> impl FnOnce(io::Error) -> Refused {
    move |error| refused(Refusal::HostNotReady, format!("{step}: {error}"))
}

/// Adds what could not be undone, if anything, to the failure that made it necessary.
pub fn after_rollback(mut failure: Refused, left: Vec<String>) -> Refused {
    if !left.is_empty() {
        failure.kind = Refusal::Rollback;
        failure.message = format!("{}; not undone: {}", failure.message, left.join("; "));
    }
    failure
}

impl From<Refused> for Reply {
    fn from(Refused { kind, message }: Refused) -> Reply {
        Reply::Failed { kind, message }
    }
}
