//! What can be wrong with a value that somebody gave us.

/// A value was refused. The text says which value, what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A name is not one.
    #[error("{what} {value:?} is not valid: {why}")]
    Name {
        /// Which kind of name.
        what: &'static str,
        /// What was given, shortened to a printable length.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// An id is not 16 lower-case hexadecimal digits.
    #[error("{value:?} is not an id: ids are 16 lower-case hexadecimal digits")]
    Id {
        /// What was given, shortened.
        value: String,
    },
    /// A word is none of those that are known.
    #[error("{value:?} is no {what}")]
    Word {
        /// Which kind of word.
        what: &'static str,
        /// What was given, shortened.
        value: String,
    },
    /// A quantity could not be read.
    #[error("{value:?} is not a size: write bytes, or a number with K, M, G or T (powers of 1024)")]
    Size {
        /// What was given, shortened.
        value: String,
    },
    /// A number is outside its range.
    #[error("{what} is {value}, outside {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What was given.
        value: String,
        /// The smallest accepted value.
        least: String,
        /// The largest accepted value.
        most: String,
    },
    /// A network cannot be banger's.
    #[error("{value:?} is not a network for VMs: {why}")]
    Network {
        /// What was given, shortened.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A port cannot be published so.
    #[error("{value:?} is not a port to publish: {why}")]
    Port {
        /// What was given, shortened.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A VM cannot do that in the state it is in.
    #[error("the VM is {state}: it cannot {event} now")]
    Transition {
        /// The state it is in.
        state: crate::VmState,
        /// What was asked.
        event: crate::VmEvent,
    },
}

/// The first 64 characters of `value`, so that an error never repeats a megabyte.
pub(crate) fn shorten(value: &str) -> String {
    value.chars().take(64).collect()
}
