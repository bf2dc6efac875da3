//! The connection to a guest's agent.

use crate::{
    AgentError, Exec, ExecRequest, Violation,
    connection::Connection,
    exec::Guard,
    handshake::{self, READ},
};
use banger_guest::wire::{
    Decoder, ExecFailure, ExecSpec, ExitStatus, Figures, GuestInfo, Identity, MOST_PAYLOAD, MOST_REQUEST,
    encode, pack,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, oneshot},
    task::AbortHandle,
};

/// How much is written to a guest at once, when so much is waiting.
const WRITE: usize = 64 << 10;

/// A connection to a guest's agent. It ends when this is dropped; commands that still run get SIGHUP.
#[derive(Debug)]
pub struct Agent {
    guest: GuestInfo,
    connection: Arc<Connection>,
    /// Held while a ping is on its way: one at a time.
    pings: Mutex<()>,
    tasks: [AbortHandle; 2],
}

impl Agent {
    /// Shakes hands with the agent behind this socket, and returns when the guest is ready. A guest that
    /// does not come up never answers: the caller bounds the wait.
    ///
    /// # Errors
    /// [`AgentError`] when the connection ends or what answers is not an agent.
    pub async fn connect(socket: UnixStream) -> Result<Self, AgentError> {
        let (mut reader, mut writer) = socket.into_split();
        let (guest, decoder) = handshake::shake(&mut reader, &mut writer).await?;
        let connection = Arc::new(Connection::new());
        let tasks = [
            tokio::spawn(read(connection.clone(), reader, decoder)).abort_handle(),
            tokio::spawn(write(connection.clone(), writer)).abort_handle(),
        ];
        Ok(Self { guest, connection, pings: Mutex::new(()), tasks })
    }

    /// What the guest says about itself.
    pub fn guest(&self) -> &GuestInfo {
        &self.guest
    }

    /// Runs a command, and returns when its program has started. Dropping the future takes the request back.
    ///
    /// # Errors
    /// [`AgentError::Command`] when the guest cannot start it, [`AgentError::Invalid`] and
    /// [`AgentError::TooMany`] when it was not asked to, and what ended the connection.
    pub async fn exec(&self, request: ExecRequest) -> Result<Exec, AgentError> {
        let spec = ExecSpec::from(request);
        spec.check().map_err(AgentError::Invalid)?;
        let bytes = pack(&spec).map_err(Violation::from)?;
        if bytes.len() > MOST_REQUEST {
            return Err(AgentError::Invalid("its arguments and environment are longer than 256 KiB"));
        }
        let (asker, answer) = oneshot::channel();
        let line = self.connection.open(bytes, spec.tty.is_some(), spec.stdin, asker)?;
        let guard = Guard::new(self.connection.clone(), line);
        match answer.await {
            Ok(Ok(())) => Ok(Exec::new(guard)),
            Ok(Err(failure)) => Err(refused(&spec, failure)),
            Err(_) => Err(self.connection.error().unwrap_or(AgentError::Closed)),
        }
    }

    /// Begins a graceful shutdown: filesystems are synced, and the guest's init is asked to power off. The
    /// guest powers itself off regardless once `grace` is over. Returns when the guest has begun; then
    /// [`Agent::closed`] tells when the connection is gone. Asking again can only make it quicker.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), AgentError> {
        let grace = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let begun = self.connection.shutdown(grace)?;
        self.answer(begun).await
    }

    /// Sends a signal, 1 to 64, to the guest's main process: the one that banger-guest started as PID 1, else the
    /// image's own init.
    ///
    /// # Errors
    /// [`AgentError::Invalid`] for a number that is no signal, [`AgentError::NoMain`] when there is no such process, and
    /// what ended the connection.
    pub async fn signal_main(&self, signal: i32) -> Result<(), AgentError> {
        if !(1..=64).contains(&signal) {
            return Err(AgentError::Invalid("a signal is a number from 1 to 64"));
        }
        match self.answer(self.connection.signal_main(signal)?).await? {
            0 => Ok(()),
            _ => Err(AgentError::NoMain),
        }
    }

    /// Tells a guest whose memory came out of a snapshot who it is and what time it is. Returns what went wrong in the guest,
    /// as sentences of its own.
    ///
    /// # Errors
    /// [`AgentError::Invalid`] for what the guest would refuse, and what ended the connection.
    pub async fn identify(&self, identity: &Identity) -> Result<Vec<String>, AgentError> {
        let text = match identity.is_sound() {
            true => serde_json::to_vec(identity).ok().filter(|text| text.len() <= MOST_PAYLOAD),
            false => None,
        };
        let text = text.ok_or(AgentError::Invalid("the identity is not one, or longer than 32 KiB"))?;
        self.answer(self.connection.identify(text)?).await
    }

    /// What the guest measures of itself at this moment.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn measure(&self) -> Result<Figures, AgentError> {
        let measured = self.connection.measure()?;
        self.answer(measured).await
    }

    /// How the guest's main process ended; `None` while it runs, where there is none, and where that is not known.
    pub fn main_ended(&self) -> Option<ExitStatus> {
        *self.connection.main.borrow()
    }

    /// Waits for an answer of the agent's.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn ping(&self) -> Result<(), AgentError> {
        let _turn = self.pings.lock().await;
        self.answer(self.connection.ping()).await
    }

    /// Waits for the end of the connection and says what ended it.
    pub async fn closed(&self) -> AgentError {
        self.connection.ended().await
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, AgentError> {
        tokio::select! {
            biased;
            Ok(answer) = answer => Ok(answer),
            error = self.connection.ended() => Err(error),
        }
    }
}

impl Agent {
    /// Ends the connection, whoever still has it.
    pub fn close(&self) {
        self.connection.end(AgentError::Closed);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
    }
}

fn refused(spec: &ExecSpec, failure: ExecFailure) -> AgentError {
    let context = match failure {
        ExecFailure::WorkingDirectory(_) => spec.cwd.as_deref().unwrap_or("/"),
        _ => spec.user.as_deref().unwrap_or("root"),
    };
    AgentError::Command {
        program: spec.argv.first().cloned().unwrap_or_default(),
        context: context.to_owned(),
        failure,
    }
}

/// Takes everything that the guest sends. It never waits for anybody here, so that the guest always gets rid
/// of what it has.
async fn read(connection: Arc<Connection>, mut reader: OwnedReadHalf, mut decoder: Decoder) {
    let mut buffer = vec![0; READ];
    let error = loop {
        if let Err(violation) = drain(&connection, &mut decoder) {
            tracing::warn!(%violation, "a guest's agent broke the protocol");
            break violation.into();
        }
        match reader.read(&mut buffer).await {
            Ok(0) => break AgentError::Closed,
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) => break error.into(),
        }
    };
    connection.end(error);
}

fn drain(connection: &Connection, decoder: &mut Decoder) -> Result<(), Violation> {
    while let Some(frame) = decoder.pop()? {
        connection.take(&frame)?;
    }
    Ok(())
}

async fn write(connection: Arc<Connection>, mut writer: OwnedWriteHalf) {
    let mut bytes = Vec::with_capacity(2 * WRITE);
    while connection.error().is_none() {
        bytes.clear();
        while bytes.len() < WRITE
            && let Some((kind, stream, payload)) = connection.next()
        {
            if let Err(error) = encode(kind, stream, &payload, &mut bytes) {
                return connection.end(Violation::from(error).into());
            }
        }
        if bytes.is_empty() {
            connection.wake.notified().await;
            continue;
        }
        tokio::select! {
            written = writer.write_all(&bytes) => match written {
                Ok(()) => {}
                Err(error) => return connection.end(error.into()),
            },
            // A guest that takes nothing must not hold on to a connection that is over.
            _ = connection.ended() => return,
        }
    }
}
