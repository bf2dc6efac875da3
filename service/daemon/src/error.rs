//! What can go wrong, and the one place where it gets its name on the bus.

use crate::{config::ConfigError, store::StoreError, transfer::Cancelled};
use banger_agent::{AgentError, ExecFailure};
use banger_dbus::Error as Bus;
use banger_host::{HostError, Refusal as HostRefusal};
use banger_image::ImageError;
use banger_kernel::KernelError;
use banger_model::{ModelError, VmState};
use banger_polkit::Refusal;
use std::{
    io,
    path::{Path, PathBuf},
};

/// An operation failed. The text says what, on what, and what to do; paths of the service's own folders
/// are not secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value breaks a rule.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A pull failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The privileged helper refused or failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest refused or failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The database refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The caller may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An error that has its name already.
    #[error(transparent)]
    Named(#[from] Bus),
    /// The bus failed.
    #[error("the message bus failed: {0}")]
    Zbus(#[from] zbus::Error),
    /// The bus does not know who is asking.
    #[error("the message bus does not tell who is asking")]
    NoCaller,
    /// There is no such thing, or it is not the caller's.
    #[error("there is no {what} {wanted:?}{}", where_to_look(what))]
    NotFound {
        /// "image", "VM", "kernel", "job" or "command".
        what: &'static str,
        /// What was looked for.
        wanted: String,
    },
    /// Several ids begin like that.
    #[error("{what} {wanted:?} is ambiguous: it fits {}", fits.join(", "))]
    Ambiguous {
        /// As in [`Error::NotFound`].
        what: &'static str,
        /// What was looked for.
        wanted: String,
        /// Name and id of each that fits.
        fits: Vec<String>,
    },
    /// Something is made of it.
    #[error("the {what} {name:?} is in use{}: delete what uses it first", by_whom(by))]
    InUse {
        /// As in [`Error::NotFound`].
        what: &'static str,
        /// Its name.
        name: String,
        /// The caller's VMs that use it.
        by: Vec<String>,
    },
    /// Another VM runs with the volume.
    #[error(
        "the volume {name:?} is in use by the VM {by:?}, which runs: stop that one first, or have both only read it"
    )]
    VolumeInUse {
        /// Its name.
        name: String,
        /// The name of the VM.
        by: String,
    },
    /// The VM does not run.
    #[error("the VM {name:?} is {state}: {} it with `banger vm {} {name}`", awaken(*state).0, awaken(*state).1)]
    NotRunning {
        /// Its name.
        name: String,
        /// Its state.
        state: VmState,
    },
    /// The VM runs, and is not to be deleted while it does.
    #[error(
        "the VM {name:?} is {state}: stop it with `banger vm stop {name}`, or delete it with `banger vm rm --force {name}`"
    )]
    Runs {
        /// Its name.
        name: String,
        /// Its state.
        state: VmState,
    },
    /// The VM does not rest.
    #[error(
        "the VM {name:?} is {state}, and only the disk of one that is stopped can be committed: stop it with `banger vm stop {name}`"
    )]
    NotStopped {
        /// Its name.
        name: String,
        /// Its state.
        state: VmState,
    },
    /// The VM's disk was not unmounted.
    #[error(
        "the disk of {name:?} is not at rest ({why}): start the VM and stop it once, with `banger vm start {name}` and `banger vm stop {name}`"
    )]
    DirtyDisk {
        /// The VM's name.
        name: String,
        /// What its superblock says.
        why: String,
    },
    /// A user's file that an image is made of is not at hand.
    #[error(
        "the image {name:?} is not available, because {why}: register it again with `banger image register --name {name} --rootfs FILE`"
    )]
    Unavailable {
        /// The image's name.
        name: String,
        /// What happened to the file.
        why: &'static str,
    },
    /// The image is a user's file, and nobody else's business.
    #[error(
        "the image {name:?} is a file of its owner's, which others cannot use: make it banger's own first, with `banger image promote {name}`"
    )]
    StaysPrivate {
        /// Its name.
        name: String,
    },
    /// The image is banger's own already.
    #[error("the image {name:?} is banger's own: only one that was registered can be promoted")]
    NotRegistered {
        /// Its name.
        name: String,
    },
    /// The VM's monitor does not do what it is asked.
    #[error("the VM's monitor fails: {0}")]
    Monitor(String),
    /// Something else is being done with it.
    #[error(
        "something else is being done with this {what} for a while now: `banger job ls` shows what; try again then"
    )]
    Busy {
        /// As in [`Error::NotFound`].
        what: &'static str,
    },
    /// Nobody listens on a port of the guest.
    #[error(
        "port {port} of {name:?} cannot be reached ({}): `banger vm ports {name}` shows what listens",
        or_silence(why)
    )]
    Port {
        /// The VM's name.
        name: String,
        /// The port.
        port: u16,
        /// What the guest says.
        why: String,
    },
    /// The guest's agent is away.
    #[error(
        "the guest of {name:?} does not answer at the moment: try again, or look at `banger vm console {name}`"
    )]
    NoAgent {
        /// The VM's name.
        name: String,
    },
    /// Neither the caller nor the image says what to run.
    #[error("the image has no command of its own: give one, as in `banger run IMAGE -- COMMAND`")]
    NoCommand,
    /// The host uses the VMs' addresses for something else.
    #[error("{0}")]
    NetworkConflict(String),
    /// Every slot is taken.
    #[error("this host has as many VMs as there are addresses for: delete one")]
    NoSlot,
    /// This user has too much under way.
    #[error("you have {0} operations under way, as many as one user may have: wait for one to end")]
    TooMany(usize),
    /// A number in a request is impossible.
    #[error("{0}")]
    Spec(String),
    /// A descriptor is not what it should be.
    #[error("the descriptor for {what} cannot be used: {why}")]
    Descriptor {
        /// What it is for.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// This kind of job has no way back.
    #[error("a {kind} job cannot be cancelled: it ends by itself soon")]
    NotCancellable {
        /// The kind.
        kind: &'static str,
    },
    /// The host's disk is full.
    #[error("no space left for {}: free some, for example with `banger image prune`", path.display())]
    NoSpace {
        /// What could not be written.
        path: PathBuf,
    },
    /// A file of the service's own failed.
    #[error("{} failed: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The host lacks something.
    #[error("{0}")]
    HostNotReady(String),
    /// The VMM's process ended while the guest booted.
    #[error("the VM {name:?} did not start: {why}{}", last_lines(console))]
    VmmFailed {
        /// The VM's name.
        name: String,
        /// How it ended.
        why: String,
        /// The console's last lines.
        console: String,
    },
    /// The guest did not answer in time.
    #[error("the guest of {name:?} did not answer within {seconds} s{}", last_lines(console))]
    GuestSilent {
        /// The VM's name.
        name: String,
        /// The bound.
        seconds: u64,
        /// The console's last lines.
        console: String,
    },
    /// Steps of a start could not be undone.
    #[error("not everything could be removed: {}", left.join("; "))]
    Leftovers {
        /// Each step with its error.
        left: Vec<String>,
    },
    /// It failed, and so did undoing it.
    #[error("{cause}; and then {also}")]
    Rollback {
        /// Why it failed.
        cause: String,
        /// Why undoing failed.
        also: String,
    },
    /// Nothing of the caller's making.
    #[error("{0}; this is an error in banger: please report it")]
    Internal(String),
}

impl Error {
    /// An error of a file: a full disk and a cancelled copy are told from the rest.
    pub fn disk(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path: path.into() },
            _ if source.get_ref().is_some_and(|inner| inner.is::<Cancelled>()) => Error::Cancelled,
            _ => Error::Disk { path: path.into(), source },
        }
    }

    /// Hides another user's thing behind [`Error::NotFound`] when the caller was refused.
    pub fn hide(self, what: &'static str, wanted: &str) -> Self {
        match self {
            Error::Refused(_) => Error::NotFound { what, wanted: wanted.into() },
            other => other,
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Error::Internal(format!("a task broke off: {error}"))
    }
}

impl From<Error> for Bus {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Bus {
    fn from(error: &Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Model(error) => error.clone().into(),
            Error::Named(error) => error.clone(),
            Error::Image(error) => image(error, text),
            Error::Host(error) => host(error, text),
            Error::Agent(error) => agent(error, text),
            Error::Kernel(error) => kernel(error, text),
            Error::Store(StoreError::Taken { .. }) => Bus::AlreadyExists(text),
            Error::Store(StoreError::InUse) | Error::InUse { .. } | Error::VolumeInUse { .. } => {
                Bus::InUse(text)
            }
            Error::Store(StoreError::Gone) => Bus::NotFound(text),
            Error::Refused(Refusal::InteractionRequired { .. }) => {
                Bus::InteractiveAuthorizationRequired(text)
            }
            Error::Refused(Refusal::NotFound) | Error::NotFound { .. } => Bus::NotFound(text),
            Error::Refused(_) | Error::NoCaller => Bus::AccessDenied(text),
            Error::Ambiguous { .. } => Bus::Ambiguous(text),
            Error::NotRunning { .. }
            | Error::Runs { .. }
            | Error::NotStopped { .. }
            | Error::DirtyDisk { .. }
            | Error::Unavailable { .. }
            | Error::StaysPrivate { .. }
            | Error::NotRegistered { .. }
            | Error::NotCancellable { .. } => Bus::WrongState(text),
            Error::NoAgent { .. } | Error::GuestSilent { .. } => Bus::GuestUnreachable(text),
            Error::NoCommand | Error::Spec(_) => Bus::InvalidSpec(text),
            Error::Busy { .. } => Bus::Busy(text),
            Error::Port { .. } => Bus::GuestUnreachable(text),
            Error::NetworkConflict(_) => Bus::NetworkConflict(text),
            Error::NoSlot | Error::TooMany(_) => Bus::QuotaExceeded(text),
            Error::Descriptor { .. } => Bus::InvalidArgs(text),
            Error::Cancelled => Bus::Cancelled(text),
            Error::NoSpace { .. } => Bus::NoSpace(text),
            Error::HostNotReady(_) => Bus::HostNotReady(text),
            Error::VmmFailed { .. } | Error::Monitor(_) => Bus::VMMFailed(text),
            Error::Leftovers { .. } | Error::Rollback { .. } => Bus::RollbackFailed(text),
            Error::Config(_) | Error::Zbus(_) | Error::Disk { .. } | Error::Internal(_) | Error::Store(_) => {
                Bus::Failed(text)
            }
        }
    }
}

fn image(error: &ImageError, text: String) -> Bus {
    match error {
        ImageError::InvalidReference { .. } => Bus::InvalidReference(text),
        ImageError::NotFound { .. } => Bus::NotFound(text),
        ImageError::RegistryUnavailable { .. } => Bus::RegistryUnavailable(text),
        ImageError::RegistryDenied { .. } => Bus::RegistryDenied(text),
        ImageError::DigestMismatch { .. } => Bus::DigestMismatch(text),
        ImageError::Unsupported(_) => Bus::UnsupportedImage(text),
        ImageError::Unsafe(_) => Bus::UnsafeImage(text),
        ImageError::NoSpace { .. } => Bus::NoSpace(text),
        ImageError::InvalidSize { .. } => Bus::InvalidSpec(text),
        ImageError::SignatureRequired { .. } => Bus::SignatureRequired(text),
        ImageError::Configuration { .. } => Bus::HostNotReady(text),
        ImageError::Cancelled => Bus::Cancelled(text),
        ImageError::Io { .. } => Bus::Failed(text),
    }
}

fn host(error: &HostError, text: String) -> Bus {
    match (error, error.refusal()) {
        (HostError::Unreachable { .. } | HostError::Lost { .. } | HostError::Protocol { .. }, _)
        | (_, Some(HostRefusal::HostNotReady)) => Bus::HostNotReady(text),
        (_, Some(HostRefusal::Conflict)) => Bus::NetworkConflict(text),
        (_, Some(HostRefusal::InUse)) => Bus::InUse(text),
        (_, Some(HostRefusal::Range)) => Bus::InvalidSpec(text),
        (_, Some(HostRefusal::NotFound)) => Bus::NotFound(text),
        (_, Some(HostRefusal::Vmm)) => Bus::VMMFailed(text),
        (_, Some(HostRefusal::WrongState)) => Bus::WrongState(text),
        (_, Some(HostRefusal::Rollback)) => Bus::RollbackFailed(text),
        _ => Bus::Failed(text),
    }
}

fn agent(error: &AgentError, text: String) -> Bus {
    match error {
        AgentError::Command { failure: ExecFailure::NotFound, .. } => Bus::CommandNotFound(text),
        AgentError::Command { failure: ExecFailure::NotExecutable(_), .. } => Bus::CommandNotExecutable(text),
        AgentError::Command { .. } | AgentError::Invalid(_) => Bus::InvalidSpec(text),
        AgentError::TooMany(_) => Bus::Busy(text),
        AgentError::NoMain => Bus::WrongState(text),
        _ => Bus::GuestUnreachable(text),
    }
}

fn kernel(error: &KernelError, text: String) -> Bus {
    match error {
        KernelError::NoKernel => Bus::KernelRequired(text),
        KernelError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            Bus::NoSpace(text)
        }
        KernelError::Io { .. } => Bus::Failed(text),
        _ => Bus::InvalidSpec(text),
    }
}

fn where_to_look(what: &str) -> String {
    match what {
        "command" => String::new(),
        other => format!(": `banger {} ls` shows those that there are", other.to_lowercase()),
    }
}

fn or_silence(why: &str) -> &str {
    match why {
        "" => "the guest does not say why",
        why => why,
    }
}

/// What makes a VM run that does not: the verb for people, and the client's word.
fn awaken(state: VmState) -> (&'static str, &'static str) {
    match state {
        VmState::Paused => ("resume", "resume"),
        _ => ("start", "start"),
    }
}

fn by_whom(by: &[String]) -> String {
    match by {
        [] => String::new(),
        names => format!(" by {}", names.join(", ")),
    }
}

fn last_lines(console: &str) -> String {
    match console {
        "" => String::new(),
        text => format!("; the console's last lines:\n{text}"),
    }
}
