//! What can go wrong between host and guest.

use banger_guest::wire::{ExecFailure, Kind, StreamId, WireError};
use std::{io, sync::Arc};

/// Talking to a guest failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    /// The request was refused before the guest saw it.
    #[error("the command cannot be run: {0}")]
    Invalid(&'static str),
    /// The guest could not start the command.
    #[error("{}", describe(program, context, *failure))]
    Command {
        /// The command's program.
        program: String,
        /// The user or the working folder, when the failure is about that.
        context: String,
        /// What the guest said.
        failure: ExecFailure,
    },
    /// The guest has no main process that a signal could be sent to, or it has ended.
    #[error("the guest has no main process")]
    NoMain,
    /// As many commands are running as may.
    #[error("the guest runs {0} commands already: wait for one to end")]
    TooMany(usize),
    /// The connection ended: the guest is down, or its agent is.
    #[error("the guest's agent has closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection to the guest's agent failed: {0}")]
    Io(Arc<io::Error>),
    /// The guest broke the protocol, and the connection was closed for it.
    #[error("the guest's agent broke the protocol: {0}; the connection was closed")]
    Protocol(#[from] Violation),
}

/// How a guest broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// What came is no frame.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A frame came that has no place in the state its stream is in.
    #[error("an unexpected {kind:?} on stream {stream}")]
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// Its stream.
        stream: StreamId,
    },
    /// More came than there was room for.
    #[error("more bytes on stream {0} than its window allows")]
    Window(StreamId),
    /// A value is outside its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// The agent has dropped everything: it was started again, or did not understand the host.
    #[error("it has started over")]
    Lost,
    /// No welcome came within so many bytes.
    #[error("no welcome in {0} bytes")]
    NoWelcome(usize),
    /// The guest's agent speaks no version of the protocol that the host speaks.
    #[error("it speaks no version of it that this host speaks")]
    Version,
}

impl From<io::Error> for AgentError {
    /// A VM that goes takes its end of the socket with it, whatever was still in it.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

fn describe(program: &str, context: &str, failure: ExecFailure) -> String {
    let errno = io::Error::from_raw_os_error;
    match failure {
        ExecFailure::NotFound => format!("{program:?}: there is no such program in the guest"),
        ExecFailure::NotExecutable(e) => format!("{program:?} cannot be executed in the guest: {}", errno(e)),
        ExecFailure::NoSuchUser => format!("the guest has no user {context:?}"),
        ExecFailure::NoSuchGroup => format!("the guest has no group for {context:?}"),
        ExecFailure::WorkingDirectory(e) => {
            format!("the working folder {context:?} cannot be used: {}", errno(e))
        }
        ExecFailure::TooMany => "the guest runs as many commands as it takes: wait for one to end".into(),
        ExecFailure::Invalid => format!("the guest refused the request to run {program:?}"),
        ExecFailure::System(step, e) => {
            format!("{program:?} could not be started in the guest ({step:?}): {}", errno(e))
        }
    }
}
