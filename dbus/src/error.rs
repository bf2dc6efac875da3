//! Errors by their D-Bus name: the service returns them from its methods, the client reads them back.

use banger_model::ModelError;
use std::fmt;
use zbus::names::{ErrorName, OwnedErrorName};

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A failure as it travels on the bus. The text is one sentence or two: what failed, on what, and
        /// what to do.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Error {
            $($(#[$doc])* #[doc = concat!("\n\nOn the bus: `", $name, "`.")] $variant(String),)*
            /// An error by a name that is none of the above: the bus's own, or a newer service's.
            Other {
                /// Its D-Bus name.
                name: OwnedErrorName,
                /// Its text.
                message: String,
            },
        }

        impl Error {
            /// Every name that the service answers with.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The error of this name.
            fn known(name: &str, message: String) -> std::result::Result<Self, String> {
                match name {
                    $($name => Ok(Error::$variant(message)),)*
                    _ => Err(message),
                }
            }

            /// The D-Bus name.
            pub fn name(&self) -> &str {
                match self {
                    $(Error::$variant(_) => $name,)*
                    Error::Other { name, .. } => name.as_str(),
                }
            }

            /// The sentence.
            pub fn message(&self) -> &str {
                match self {
                    $(Error::$variant(message) => message,)*
                    Error::Other { message, .. } => message,
                }
            }
        }
    };
}

errors! {
    /// A name does not follow the rule for names.
    InvalidName = "org.banger.Error.InvalidName",
    /// An image reference cannot be read.
    InvalidReference = "org.banger.Error.InvalidReference",
    /// A number, size or word in a specification is outside what is possible.
    InvalidSpec = "org.banger.Error.InvalidSpec",
    /// An option that this version does not know.
    UnknownOption = "org.banger.Error.UnknownOption",
    /// There is no such thing, or it is not the caller's.
    NotFound = "org.banger.Error.NotFound",
    /// The name is taken.
    AlreadyExists = "org.banger.Error.AlreadyExists",
    /// A prefix of an id fits several things.
    Ambiguous = "org.banger.Error.Ambiguous",
    /// The thing is in a state in which that cannot be done.
    WrongState = "org.banger.Error.WrongState",
    /// Something else still uses it.
    InUse = "org.banger.Error.InUse",
    /// Another job is at work on it.
    Busy = "org.banger.Error.Busy",
    /// The caller has as many as they may have.
    QuotaExceeded = "org.banger.Error.QuotaExceeded",
    /// The host's disk is full, or would be.
    NoSpace = "org.banger.Error.NoSpace",
    /// The host lacks something that banger needs.
    HostNotReady = "org.banger.Error.HostNotReady",
    /// There is no kernel to boot.
    KernelRequired = "org.banger.Error.KernelRequired",
    /// The registry could not be reached, or broke off.
    RegistryUnavailable = "org.banger.Error.RegistryUnavailable",
    /// The registry refused, or has no such image.
    RegistryDenied = "org.banger.Error.RegistryDenied",
    /// The administrator requires a signature that the image does not have.
    SignatureRequired = "org.banger.Error.SignatureRequired",
    /// What arrived is not what its digest says.
    DigestMismatch = "org.banger.Error.DigestMismatch",
    /// The image is of a form or platform that banger does not run.
    UnsupportedImage = "org.banger.Error.UnsupportedImage",
    /// The image breaks a rule that protects the host.
    UnsafeImage = "org.banger.Error.UnsafeImage",
    /// The host's network uses the same addresses.
    NetworkConflict = "org.banger.Error.NetworkConflict",
    /// The virtual machine monitor failed.
    VMMFailed = "org.banger.Error.VMMFailed",
    /// The guest does not answer.
    GuestUnreachable = "org.banger.Error.GuestUnreachable",
    /// Somebody cancelled it.
    Cancelled = "org.banger.Error.Cancelled",
    /// It took too long.
    TimedOut = "org.banger.Error.TimedOut",
    /// It failed, and undoing it failed too.
    RollbackFailed = "org.banger.Error.RollbackFailed",
    /// The guest has no such program.
    CommandNotFound = "org.banger.Error.CommandNotFound",
    /// The guest has the file and cannot execute it.
    CommandNotExecutable = "org.banger.Error.CommandNotExecutable",
    /// The caller may not.
    AccessDenied = "org.freedesktop.DBus.Error.AccessDenied",
    /// An argument has the wrong type or form.
    InvalidArgs = "org.freedesktop.DBus.Error.InvalidArgs",
    /// The caller might, after a prompt that the call did not allow.
    InteractiveAuthorizationRequired = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    /// Everything else.
    Failed = "org.freedesktop.DBus.Error.Failed",
}

/// What libdbus calls a bus, or a connection to it, that is not there.
const NO_SERVER: &str = "org.freedesktop.DBus.Error.NoServer";

impl Error {
    /// The error of this D-Bus name, with this text.
    pub fn from_name(name: &str, message: String) -> Self {
        Self::known(name, message).unwrap_or_else(|message| match OwnedErrorName::try_from(name) {
            Ok(name) => Error::Other { name, message },
            Err(_) => Error::Failed(message),
        })
    }

    /// Whether nobody answers under the service's name: not installed, not running, or not startable.
    pub fn is_service_absent(&self) -> bool {
        let absent = [
            "org.freedesktop.DBus.Error.ServiceUnknown",
            "org.freedesktop.DBus.Error.NameHasNoOwner",
            "org.freedesktop.systemd1.NoSuchUnit",
        ];
        absent.contains(&self.name()) || self.name().starts_with("org.freedesktop.DBus.Error.Spawn.")
    }

    /// Whether the bus itself is not there.
    pub fn is_bus_absent(&self) -> bool {
        self.name() == NO_SERVER
    }

    /// Whether the service went away while it owed a reply.
    pub fn is_service_gone(&self) -> bool {
        let gone = ["org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected"];
        gone.contains(&self.name())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &zbus::message::Header<'_>) -> zbus::Result<zbus::Message> {
        zbus::Message::error(call, zbus::DBusError::name(self)).build(&self.message())
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(Error::name(self))
    }

    fn description(&self) -> Option<&str> {
        Some(self.message())
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        use zbus::DBusError as _;
        match &error {
            zbus::Error::MethodError(name, text, _) => {
                Error::from_name(name.as_str(), text.clone().unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(e) => {
                let text = e.description().map_or_else(|| e.to_string(), str::to_owned);
                Error::from_name(e.name().as_str(), text)
            }
            zbus::Error::DBus(e) => {
                let text = e.description().map_or_else(|| e.name().to_string(), str::to_owned);
                Error::from_name(e.name().as_str(), text)
            }
            zbus::Error::Connection(..) | zbus::Error::Address(_) | zbus::Error::Handshake(_) => {
                Error::from_name(NO_SERVER, error.to_string())
            }
            zbus::Error::InputOutput(_) => {
                Error::from_name("org.freedesktop.DBus.Error.Disconnected", error.to_string())
            }
            _ => Error::Failed(error.to_string()),
        }
    }
}

impl From<zbus::fdo::Error> for Error {
    fn from(error: zbus::fdo::Error) -> Self {
        zbus::Error::from(error).into()
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        let text = error.to_string();
        match error {
            ModelError::Name { .. } => Error::InvalidName(text),
            ModelError::Id { .. } => Error::InvalidArgs(text),
            ModelError::Size { .. }
            | ModelError::Range { .. }
            | ModelError::Word { .. }
            | ModelError::Network { .. }
            | ModelError::Port { .. } => Error::InvalidSpec(text),
            ModelError::Transition { .. } => Error::WrongState(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_well_formed_and_leads_back() {
        for name in Error::NAMES {
            assert!(ErrorName::try_from(*name).is_ok(), "{name}");
            let error = Error::from_name(name, "why".into());
            assert_eq!((error.name(), error.message()), (*name, "why"));
            assert!(!matches!(error, Error::Other { .. }), "{name}");
        }
    }

    #[test]
    fn a_reply_carries_name_and_sentence_and_reads_back() {
        let call = zbus::Message::method_call("/a", "B").destination(":1.1").build(&()).unwrap();
        for error in [
            Error::NotFound("there is no image \"x\"".into()),
            Error::AccessDenied("no".into()),
            Error::Failed("so".into()),
            Error::from_name("org.example.Error.New", "later".into()),
        ] {
            let reply = zbus::DBusError::create_reply(&error, &call.header()).unwrap();
            assert_eq!(Error::from(zbus::Error::from(reply)), error);
        }
    }

    #[test]
    fn a_name_that_is_none_becomes_failed() {
        assert_eq!(Error::from_name("not a name", "x".into()), Error::Failed("x".into()));
    }

    #[test]
    fn absence_is_told_from_failure() {
        let error = |name: &str| Error::from_name(name, String::new());
        assert!(error("org.freedesktop.DBus.Error.ServiceUnknown").is_service_absent());
        assert!(error("org.freedesktop.DBus.Error.Spawn.ChildExited").is_service_absent());
        assert!(!error("org.freedesktop.DBus.Error.Failed").is_service_absent());
        assert!(error("org.freedesktop.DBus.Error.NoReply").is_service_gone());
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let address: zbus::Address = "unix:path=/nowhere".parse().unwrap();
        let error = Error::from(zbus::Error::Connection(refused.into(), Box::new(address)));
        assert!(error.is_bus_absent(), "{error:?}");
    }

    #[test]
    fn a_refused_value_keeps_its_sentence() {
        let error = "-".parse::<banger_model::VmName>().unwrap_err();
        let text = error.to_string();
        assert_eq!(Error::from(error), Error::InvalidName(text));
    }
}
