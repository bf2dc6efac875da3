//! The client of QEMU's control socket.

use crate::{Event, Message, send_fd::send_with};
use serde_json::{Value, json};
use std::{collections::VecDeque, io, os::fd::BorrowedFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The longest line that is read, in bytes. QEMU's own answers to what is asked here stay under 1 KiB.
pub const LONGEST_LINE: usize = 64 << 10;

/// How many events wait to be fetched before the oldest are forgotten.
const MOST_EVENTS: usize = 64;

/// A connection to a QEMU, past its greeting. QEMU serves one connection at a time: a second one waits.
///
/// Each method may be dropped while it waits (for a time limit, say): the connection stays usable, and the
/// late answer is skipped.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Event>,
    last_id: u64,
    version: String,
}

/// Whether the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Its processors run.
    Running,
    /// They are stopped by [`Qmp::stop`].
    Paused,
    /// Another of QEMU's states, by its word (`shutdown`, `guest-panicked`, `io-error`, ...).
    Other(String),
}

/// What went between a guest and one of its disks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskCounts {
    /// Read by the guest.
    pub read: u64,
    /// Written by it.
    pub written: u64,
}

/// Talking to QEMU failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("QEMU's control socket failed")]
    Io(#[from] io::Error),
    /// QEMU is gone.
    #[error("QEMU closed its control socket")]
    Closed,
    /// More bytes than [`LONGEST_LINE`] without a line's end.
    #[error("QEMU sent a line longer than {LONGEST_LINE} bytes")]
    LineTooLong,
    /// A line that is not QMP.
    #[error("QEMU sent what is not QMP: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// QEMU refused.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// QEMU's sentence.
        reason: String,
    },
}

impl Qmp {
    /// Reads the greeting on a new connection and leaves the negotiation mode.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn connect(stream: UnixStream) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream,
            received: Vec::new(),
            events: VecDeque::new(),
            last_id: 0,
            version: String::new(),
        };
        match qmp.message().await? {
            Message::Greeting { version } => qmp.version = version,
            other => return Err(QmpError::Malformed { reason: format!("no greeting but {other:?}") }),
        }
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// QEMU's version, such as `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn status(&mut self) -> Result<RunState, QmpError> {
        let answer = self.execute("query-status").await?;
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => Ok(RunState::Running),
            Some("paused") => Ok(RunState::Paused),
            Some(other) => Ok(RunState::Other(other.chars().take(64).collect())),
            None => Err(QmpError::Malformed { reason: "query-status without a status".into() }),
        }
    }

    /// What went between the guest and each of its disks (`query-blockstats`).
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn disks(&mut self) -> Result<Vec<DiskCounts>, QmpError> {
        let answer = self.execute("query-blockstats").await?;
        let malformed = || QmpError::Malformed { reason: "query-blockstats without statistics".into() };
        let disk = |disk: &Value| {
            let count = |key| disk.get("stats")?.get(key)?.as_u64();
            Some(DiskCounts { read: count("rd_bytes")?, written: count("wr_bytes")? })
        };
        answer.as_array().ok_or_else(malformed)?.iter().map(|it| disk(it).ok_or_else(malformed)).collect()
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop").await.map(drop)
    }

    /// Lets the guest's processors run again.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont").await.map(drop)
    }

    /// Presses the guest's power button; what the guest makes of it is its own affair.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn power_down(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown").await.map(drop)
    }

    /// Ends QEMU, as if the guest's plug were pulled. QEMU's writes that the guest has seen finished are
    /// in the disk's file.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn quit(&mut self) -> Result<(), QmpError> {
        match self.execute("quit").await {
            // It may be gone before its answer is read.
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(QmpError::Io(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next event, oldest first. At most 64 wait; older ones are forgotten.
    ///
    /// # Errors
    /// Any of [`QmpError`]; [`QmpError::Closed`] once QEMU is gone.
    pub async fn event(&mut self) -> Result<Event, QmpError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Message::Event(event) = self.message().await? {
                return Ok(event);
            }
        }
    }

    pub(crate) async fn execute(&mut self, command: &'static str) -> Result<Value, QmpError> {
        self.execute_with(command, json!({}), None).await
    }

    /// Carries out a command, with a descriptor beside it if there is one.
    pub(crate) async fn execute_with(
        &mut self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        self.last_id += 1;
        let asked = self.last_id;
        let mut object = json!({"execute": command, "id": asked});
        if arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            object["arguments"] = arguments;
        }
        let mut line = object.to_string();
        line.push('\n');
        let sent = match descriptor {
            Some(descriptor) => send_with(&self.stream, line.as_bytes(), descriptor).await?,
            None => 0,
        };
        self.stream.write_all(&line.as_bytes()[sent..]).await?;
        loop {
            match self.message().await? {
                Message::Return { id: Some(id), value } if id == asked => return Ok(value),
                Message::Error { id: Some(id), reason } if id == asked => {
                    return Err(QmpError::Refused { command, reason });
                }
                Message::Event(event) => {
                    if self.events.len() == MOST_EVENTS {
                        self.events.pop_front();
                    }
                    self.events.push_back(event);
                }
                // The answer to a command whose asker gave up.
                Message::Return { .. } | Message::Error { .. } => {}
                Message::Greeting { .. } => {
                    return Err(QmpError::Malformed { reason: "a second greeting".into() });
                }
            }
        }
    }

    async fn message(&mut self) -> Result<Message, QmpError> {
        let line = self.line().await?;
        Message::parse(&line).map_err(|reason| QmpError::Malformed { reason })
    }

    /// The next line without its end. What has been received stays in `self` while waiting, so nothing is
    /// lost when the caller gives up.
    async fn line(&mut self) -> Result<Vec<u8>, QmpError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.received.len();
            if searched > LONGEST_LINE {
                return Err(QmpError::LineTooLong);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(QmpError::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
