//! What the frames say, beyond plain bytes.

use super::WireError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The host's first frame ([`super::Kind::Hello`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version of the protocol that the host speaks.
    pub oldest: u16,
    /// Newest version of the protocol that the host speaks.
    pub newest: u16,
    /// Random; comes back in the welcome.
    pub nonce: [u8; 16],
}

/// The agent's answer ([`super::Kind::Welcome`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The hello's.
    pub nonce: [u8; 16],
    /// The version that both speak from now on; 0 when there is none.
    pub version: u16,
    /// Who answers.
    pub info: GuestInfo,
}

/// What a guest says about itself. All of it is the guest's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The agent's version.
    pub agent: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether the image's own init is PID 1.
    pub has_init: bool,
    /// When each phase of the boot was through, in order.
    pub phases: Vec<PhaseTime>,
    /// What went wrong without keeping the guest from coming up, as sentences.
    pub warnings: Vec<String>,
}

/// When a phase of the boot was through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub name: String,
    /// Milliseconds since the kernel started.
    pub ms: u32,
}

/// A command to run ([`super::Kind::Exec`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments, exactly as the program gets them; at least one. A program without a slash is
    /// looked up in `PATH`.
    pub argv: Vec<String>,
    /// `NAME=value`, added to the guest's default environment.
    pub env: Vec<String>,
    /// The working folder; `/` by default.
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the guest; root by default.
    pub user: Option<String>,
    /// A terminal of this size instead of three pipes.
    pub tty: Option<WindowSize>,
    /// Whether there is standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a command ended ([`super::Kind::Exited`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Why a command did not start ([`super::Kind::Failed`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFailure {
    /// There is no such program.
    NotFound,
    /// The program is there and cannot be executed: this is why (errno).
    NotExecutable(i32),
    /// The guest has no such user.
    NoSuchUser,
    /// The guest has no such group.
    NoSuchGroup,
    /// The working folder cannot be entered: this is why (errno).
    WorkingDirectory(i32),
    /// As many commands as the guest takes are running.
    TooMany,
    /// The request breaks a rule.
    Invalid,
    /// A step on the way failed with this errno.
    System(Step, i32),
}

/// A step on the way to a running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Making pipes.
    Pipe,
    /// Making a terminal.
    Terminal,
    /// Making a process.
    Fork,
    /// Becoming the user.
    User,
    /// Everything else on the way to the program.
    Setup,
}

/// Most phases, and most warnings.
const MOST_STRINGS: usize = 64;
/// Longest string of a guest's, in bytes.
const LONGEST_STRING: usize = 512;

impl GuestInfo {
    /// Whether the guest kept to the limits: no more than 64 phases and warnings, no string over 512 bytes,
    /// nothing that moves a terminal's cursor.
    pub fn is_bounded(&self) -> bool {
        let strings = [&self.boot_id, &self.agent, &self.kernel].into_iter();
        let names = self.phases.iter().map(|p| &p.name);
        let printable = |s: &String| s.len() <= LONGEST_STRING && !s.chars().any(char::is_control);
        self.phases.len() <= MOST_STRINGS
            && self.warnings.len() <= MOST_STRINGS
            && strings.chain(names).chain(&self.warnings).all(printable)
    }
}

impl ExitStatus {
    /// Whether a process can end so: with a code from 0 to 255, or by a signal from 1 to 64.
    pub fn is_possible(&self) -> bool {
        match self {
            ExitStatus::Code(code) => (0..=255).contains(code),
            ExitStatus::Signal(signal) => (1..=64).contains(signal),
        }
    }
}

impl ExecSpec {
    /// What is wrong with the request, if anything.
    ///
    /// # Errors
    /// The rule that it breaks, as half a sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        let strings = self.argv.iter().chain(&self.env).chain(&self.cwd).chain(&self.user);
        if self.argv.first().is_none_or(|program| program.is_empty()) {
            return Err("there is no program to run");
        }
        if strings.clone().any(|s| s.contains('\0')) {
            return Err("an argument contains a NUL byte");
        }
        if !self.env.iter().all(|e| e.find('=').is_some_and(|at| at > 0)) {
            return Err("an environment entry is not NAME=value");
        }
        if !self.cwd.iter().all(|c| c.starts_with('/')) {
            return Err("the working folder is not an absolute path");
        }
        Ok(())
    }
}

/// The bytes of a message ([postcard](https://postcard.jamesmunns.com/wire-format)).
///
/// # Errors
/// [`WireError::Payload`] when it cannot be written.
pub fn pack<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    postcard::to_allocvec(message).map_err(|_| WireError::Payload)
}

/// The message of these bytes, all of them.
///
/// # Errors
/// [`WireError::Payload`] when they are not that message.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(WireError::Payload),
    }
}
