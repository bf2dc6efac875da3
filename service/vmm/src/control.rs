//! A running VMM, whichever it is.

use crate::{Api, ApiError, DiskCounts, Qmp, QmpError, RunState, VmmKind};
use banger_model::Bytes;
use std::path::Path;
use tokio::net::UnixStream;

/// A connection to a VM's VMM. Make one for an operation and drop it after: QEMU serves one at a time.
#[derive(Debug)]
pub enum Control {
    /// QEMU.
    Qemu(Qmp),
    /// Firecracker.
    Firecracker(Api),
}

/// A VMM refused, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// QEMU did.
    #[error(transparent)]
    Qemu(#[from] QmpError),
    /// Firecracker did.
    #[error(transparent)]
    Firecracker(#[from] ApiError),
    /// Somebody else answers at the VM's socket.
    #[error("the VM's control socket is not its VMM's own")]
    Stranger,
}

/// What the guest says of its memory, through its balloon. All of it is the guest's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// What the guest's kernel manages.
    pub total: Option<Bytes>,
    /// What nothing uses.
    pub free: Option<Bytes>,
    /// What could be used without swapping.
    pub available: Option<Bytes>,
    /// What holds copies of disks.
    pub caches: Option<Bytes>,
}

impl Control {
    /// Connects to the VMM that listens at `socket`. `uid` is the user that may: the VM's own, or root who made the
    /// socket for it. A VMM that was taken over cannot lead its caller to another VM's that way.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn connect(kind: VmmKind, socket: &Path, uid: u32) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(socket).await;
        match kind {
            VmmKind::Qemu => {
                let stream = stream.map_err(QmpError::from)?;
                Ok(Control::Qemu(Qmp::connect(checked(stream, uid)?).await?))
            }
            VmmKind::Firecracker => {
                let stream = stream.map_err(ApiError::Connect)?;
                Ok(Control::Firecracker(Api::connect(checked(stream, uid)?).await?))
            }
        }
    }

    /// Its version, such as `7.2.22`.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn version(&mut self) -> Result<String, ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.version().to_owned()),
            Control::Firecracker(api) => Ok(api.version().await?.to_string()),
        }
    }

    /// Stops the guest's processors. Stopped ones stay so.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn pause(&mut self) -> Result<(), ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.stop().await?),
            Control::Firecracker(api) => Ok(api.pause().await?),
        }
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn resume(&mut self) -> Result<(), ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.cont().await?),
            Control::Firecracker(api) => Ok(api.resume().await?),
        }
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn state(&mut self) -> Result<RunState, ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.status().await?),
            Control::Firecracker(api) => Ok(api.state().await?),
        }
    }

    /// What the guest's balloon tells of its memory; empty where the guest has no driver for it.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn memory(&mut self) -> Result<GuestMemory, ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.guest_memory().await?),
            Control::Firecracker(api) => Ok(api.guest_memory().await?),
        }
    }

    /// What went between the guest and each of its disks; nothing where the VMM does not count that by disk.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn disks(&mut self) -> Result<Vec<DiskCounts>, ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.disks().await?),
            Control::Firecracker(_) => Ok(Vec::new()),
        }
    }

    /// Presses the guest's power button, or the keys that do it; what the guest makes of that is its own affair.
    ///
    /// # Errors
    /// Any of [`ControlError`].
    pub async fn power_down(&mut self) -> Result<(), ControlError> {
        match self {
            Control::Qemu(qmp) => Ok(qmp.power_down().await?),
            Control::Firecracker(api) => Ok(api.ctrl_alt_del().await?),
        }
    }
}

fn checked(stream: UnixStream, uid: u32) -> Result<UnixStream, ControlError> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == uid || peer.uid() == 0 => Ok(stream),
        _ => Err(ControlError::Stranger),
    }
}
