//! The client of a running Firecracker's socket: HTTP over a Unix socket, bounded in every answer.

use super::answer::{BalloonStatistics, Fault, InstanceInfo, InstanceState, VersionAnswer};
use super::{Action, Request, State, Version, request::SnapshotCreate};
use crate::{GuestMemory, RunState};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{fmt, io};
use tokio::{net::UnixStream, task::AbortHandle};

/// The longest answer that is read, in bytes. Firecracker's own stay under 4 KiB.
pub const LARGEST_ANSWER: usize = 64 << 10;

/// A connection to a Firecracker.
#[derive(Debug)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asking for its version.
    Version,
    /// Asking for its state.
    InstanceInfo,
    /// Saying what to log.
    Logger,
    /// Saying where measurements go.
    Metrics,
    /// Processors and memory.
    MachineConfig,
    /// Kernel and initramfs.
    BootSource,
    /// A disk.
    Drive,
    /// A network card.
    NetworkInterface,
    /// Sockets between host and guest.
    Vsock,
    /// The source of random numbers.
    Entropy,
    /// The balloon.
    Balloon,
    /// Asking what the balloon tells.
    BalloonStatistics,
    /// The start.
    InstanceStart,
    /// Pressing three keys.
    SendCtrlAltDel,
    /// Writing what was measured.
    FlushMetrics,
    /// Pausing.
    Pause,
    /// Resuming.
    Resume,
    /// Writing a snapshot.
    SnapshotCreate,
    /// Reading a snapshot.
    SnapshotLoad,
}

impl Step {
    /// The step that a request is.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Version => Step::Version,
            Request::InstanceInfo => Step::InstanceInfo,
            Request::Logger(_) => Step::Logger,
            Request::Metrics(_) => Step::Metrics,
            Request::MachineConfig(_) => Step::MachineConfig,
            Request::BootSource(_) => Step::BootSource,
            Request::Drive(_) => Step::Drive,
            Request::NetworkInterface(_) => Step::NetworkInterface,
            Request::Vsock(_) => Step::Vsock,
            Request::Entropy(_) => Step::Entropy,
            Request::Balloon(_) => Step::Balloon,
            Request::BalloonStatistics => Step::BalloonStatistics,
            Request::Action(Action::InstanceStart) => Step::InstanceStart,
            Request::Action(Action::SendCtrlAltDel) => Step::SendCtrlAltDel,
            Request::Action(Action::FlushMetrics) => Step::FlushMetrics,
            Request::Vm(State::Paused) => Step::Pause,
            Request::Vm(State::Resumed) => Step::Resume,
            Request::SnapshotCreate(_) => Step::SnapshotCreate,
            Request::SnapshotLoad(_) => Step::SnapshotLoad,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Version => "to tell its version",
            Step::InstanceInfo => "to tell its state",
            Step::Logger => "its log",
            Step::Metrics => "its measurements",
            Step::MachineConfig => "processors and memory",
            Step::BootSource => "kernel and initramfs",
            Step::Drive => "the disk",
            Step::NetworkInterface => "the network card",
            Step::Vsock => "the vsock",
            Step::Entropy => "the source of random numbers",
            Step::Balloon => "the balloon",
            Step::BalloonStatistics => "to tell of the balloon",
            Step::InstanceStart => "to start the guest",
            Step::SendCtrlAltDel => "to press keys",
            Step::FlushMetrics => "to write its measurements",
            Step::Pause => "to pause the guest",
            Step::Resume => "to resume the guest",
            Step::SnapshotCreate => "to write a snapshot",
            Step::SnapshotLoad => "to read a snapshot",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Talking to Firecracker failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is nobody at its socket.
    #[error("Firecracker's socket cannot be reached")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("Firecracker's socket failed while it was asked {step}")]
    Http {
        /// What was being done.
        step: Step,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is too long, or not what was asked for.
    #[error("Firecracker's answer when asked {step} is not one: {reason}")]
    Malformed {
        /// What was being done.
        step: Step,
        /// What is wrong with it.
        reason: String,
    },
    /// Firecracker refused.
    #[error("Firecracker refused {step}: {fault}")]
    Refused {
        /// What was being done.
        step: Step,
        /// The status, such as 400.
        status: u16,
        /// Firecracker's sentence.
        fault: String,
    },
    /// It is too old.
    #[error("Firecracker is {found}, and {needed} or newer is needed for this")]
    TooOld {
        /// Its version.
        found: Version,
        /// What is needed.
        needed: Version,
    },
}

impl Api {
    /// Takes a connection.
    ///
    /// # Errors
    /// [`ApiError::Http`].
    pub async fn connect(stream: UnixStream) -> Result<Self, ApiError> {
        let http = |error: hyper::Error| ApiError::Http { step: Step::Version, source: error.into() };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(http)?;
        // How it ends, the next request tells.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender, task })
    }

    /// Makes one request that is answered by nothing.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn ask(&mut self, request: &Request) -> Result<(), ApiError> {
        self.bytes(request).await.map(drop)
    }

    /// Makes requests in order, up to the first that fails.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn all(&mut self, requests: &[Request]) -> Result<(), ApiError> {
        for request in requests {
            self.ask(request).await?;
        }
        Ok(())
    }

    /// Its version.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn version(&mut self) -> Result<Version, ApiError> {
        let answer: VersionAnswer = self.answer(&Request::Version).await?;
        let unreadable = |()| ApiError::Malformed {
            step: Step::Version,
            reason: format!("{:?} is no version", shorten(&answer.firecracker_version)),
        };
        answer.firecracker_version.parse().map_err(unreadable)
    }

    /// Its version, which is not older than `needed`.
    ///
    /// # Errors
    /// [`ApiError::TooOld`], and the others.
    pub async fn at_least(&mut self, needed: Version) -> Result<Version, ApiError> {
        let found = self.version().await?;
        if found < needed {
            return Err(ApiError::TooOld { found, needed });
        }
        Ok(found)
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn state(&mut self) -> Result<RunState, ApiError> {
        let info: InstanceInfo = self.answer(&Request::InstanceInfo).await?;
        Ok(match info.state {
            InstanceState::NotStarted => RunState::Other("not started".into()),
            InstanceState::Running => RunState::Running,
            InstanceState::Paused => RunState::Paused,
        })
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn pause(&mut self) -> Result<(), ApiError> {
        self.ask(&Request::Vm(State::Paused)).await
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn resume(&mut self) -> Result<(), ApiError> {
        self.ask(&Request::Vm(State::Resumed)).await
    }

    /// Writes a snapshot of a paused VM into files that are there.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn save(&mut self) -> Result<(), ApiError> {
        self.ask(&Request::SnapshotCreate(SnapshotCreate {
            snapshot_type: "Full".into(),
            snapshot_path: super::paths::SNAPSHOT_STATE.into(),
            mem_file_path: super::paths::SNAPSHOT_MEMORY.into(),
        }))
        .await
    }

    /// What the guest's balloon tells of its memory.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn guest_memory(&mut self) -> Result<GuestMemory, ApiError> {
        let told: BalloonStatistics = self.answer(&Request::BalloonStatistics).await?;
        Ok(told.into())
    }

    /// Presses the three keys that make a guest restart, and a microVM end.
    ///
    /// # Errors
    /// Any of [`ApiError`].
    pub async fn ctrl_alt_del(&mut self) -> Result<(), ApiError> {
        self.ask(&Request::Action(Action::SendCtrlAltDel)).await
    }

    async fn answer<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ApiError> {
        let bytes = self.bytes(request).await?;
        let malformed = |error: serde_json::Error| ApiError::Malformed {
            step: Step::of(request),
            reason: error.to_string(),
        };
        serde_json::from_slice(&bytes).map_err(malformed)
    }

    async fn bytes(&mut self, request: &Request) -> Result<Bytes, ApiError> {
        let step = Step::of(request);
        let http = |source: Box<dyn std::error::Error + Send + Sync>| ApiError::Http { step, source };
        let body = request.body().map_err(|error| http(error.into()))?;
        let mut message = hyper::Request::builder()
            .method(request.method().as_str())
            .uri(request.path())
            .header("Host", "localhost")
            .header("Accept", "application/json");
        if body.is_some() {
            message = message.header("Content-Type", "application/json");
        }
        let message =
            message.body(Full::new(body.unwrap_or_default().into())).map_err(|error| http(error.into()))?;
        self.sender.ready().await.map_err(|error| http(error.into()))?;
        let answer = self.sender.send_request(message).await.map_err(|error| http(error.into()))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let bytes = bytes.map_err(http)?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let fault = match serde_json::from_slice::<Fault>(&bytes) {
            Ok(fault) => shorten(&fault.fault_message),
            Err(_) => shorten(&String::from_utf8_lossy(&bytes)),
        };
        Err(ApiError::Refused { step, status: status.as_u16(), fault })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A foreign sentence, fit to be shown.
fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1024).collect()
}
