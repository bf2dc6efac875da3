//! What can go wrong when a service is set up.

/// A service could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The log filter cannot be read.
    #[error(
        "the log filter {filter:?} is not valid: {why}; write a level such as info, or target=level pairs"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong.
        why: String,
    },
    /// Logging was set up before.
    #[error("logging was set up before")]
    Twice,
}
