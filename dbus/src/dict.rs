//! Typed access to `a{sv}`: options of a call, and the descriptions that come back.

use crate::{
    Error,
    field::{Field, Mismatch},
};
use std::collections::BTreeMap;
use zbus::OwnedVariant;

/// A dictionary from a key to a value of any type, `a{sv}`.
pub type Dict = BTreeMap<String, OwnedVariant>;

/// A dictionary does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DictError {
    /// A key is missing.
    #[error("the key {key:?} is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value has the wrong type.
    #[error("{key:?} has type {found:?}, and must have type {expected:?}")]
    Type {
        /// The key.
        key: &'static str,
        /// The D-Bus signature that it should have.
        expected: &'static str,
        /// The D-Bus signature that it has.
        found: String,
    },
    /// A text is not of the form that the key asks for.
    #[error("{key:?} is not valid: {why}")]
    Form {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl From<DictError> for Error {
    fn from(error: DictError) -> Self {
        Error::InvalidArgs(error.to_string())
    }
}

/// Takes `key` out of `dict`; `None` if it is not there.
///
/// # Errors
/// [`DictError::Type`] or [`DictError::Form`] if it holds something else.
pub fn take<T: Field>(dict: &mut Dict, key: &'static str) -> Result<Option<T>, DictError> {
    let Some(value) = dict.remove(key) else { return Ok(None) };
    T::read(value).map(Some).map_err(|mismatch| match mismatch {
        Mismatch::Type(value) => {
            DictError::Type { key, expected: T::SIGNATURE, found: value.value_signature().to_string() }
        }
        Mismatch::Form(why) => DictError::Form { key, why },
    })
}

/// Takes `key`, which must be there, out of `dict`.
///
/// # Errors
/// [`DictError::Missing`], and those of [`take`].
pub fn require<T: Field>(dict: &mut Dict, key: &'static str) -> Result<T, DictError> {
    take(dict, key)?.ok_or(DictError::Missing { key })
}

/// The options of a call, which its handler takes one by one and then [finishes](Options::finish), so that
/// an option that nobody reads is an error and never ignored.
#[derive(Debug)]
#[must_use = "call finish(): an option that was not taken must be refused"]
pub struct Options {
    rest: Dict,
    known: Vec<&'static str>,
}

impl Options {
    /// The options that a caller sent.
    pub fn new(dict: Dict) -> Self {
        Self { rest: dict, known: Vec::new() }
    }

    /// The option `key`; `None` if the caller did not give it.
    ///
    /// # Errors
    /// [`Error::InvalidArgs`] names the key and the type that it must have.
    pub fn take<T: Field>(&mut self, key: &'static str) -> Result<Option<T>, Error> {
        self.known.push(key);
        take(&mut self.rest, key).map_err(|e| Error::InvalidArgs(format!("option {e}")))
    }

    /// The option `key`, or the type's default (false, 0, empty) if the caller did not give it.
    ///
    /// # Errors
    /// As [`Options::take`].
    pub fn take_or_default<T: Field + Default>(&mut self, key: &'static str) -> Result<T, Error> {
        Ok(self.take(key)?.unwrap_or_default())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Error::UnknownOption`] names the first option that was not taken, and those that there are.
    pub fn finish(self) -> Result<(), Error> {
        let Some(key) = self.rest.keys().next() else { return Ok(()) };
        let key: String = key.chars().take(64).collect();
        let there_is = match self.known.as_slice() {
            [] => "this call takes none".to_owned(),
            known => format!("this call takes {}", known.join(", ")),
        };
        Err(Error::UnknownOption(format!("there is no option {key:?}: {there_is}")))
    }
}

/// Builds a dictionary.
///
/// ```
/// let options = banger_dbus::DictWriter::new().with("cpus", 2u32).with_some("name", None::<String>).done();
/// assert_eq!(options.len(), 1);
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct DictWriter(Dict);

impl DictWriter {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key`.
    pub fn with(mut self, key: &str, value: impl Field) -> Self {
        self.0.insert(key.to_owned(), value.write());
        self
    }

    /// Adds `key` if there is a value for it.
    pub fn with_some(self, key: &str, value: Option<impl Field>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The dictionary.
    pub fn done(self) -> Dict {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{Bytes, VmId};
    use proptest::prelude::*;
    use std::os::fd::{AsFd, OwnedFd};
    use zbus::{OwnedObjectPath, Variant};

    fn variant() -> impl Strategy<Value = OwnedVariant> {
        prop_oneof![
            any::<bool>().prop_map(Field::write),
            any::<i32>().prop_map(Field::write),
            any::<u16>().prop_map(Field::write),
            any::<u32>().prop_map(Field::write),
            any::<u64>().prop_map(Field::write),
            "[^\0]{0,20}".prop_map(Field::write),
            prop::collection::vec("[^\0]{0,8}", 0..4).prop_map(Field::write),
            any::<f64>().prop_map(Into::into),
        ]
    }

    /// Over the wire and back, as the other side would get it.
    fn travel(dict: &Dict) -> Dict {
        let message = zbus::Message::method_call("/a", "B").destination(":1.1").build(dict).unwrap();
        message.body().deserialize().unwrap()
    }

    fn reads<T: Field>(value: &OwnedVariant) -> bool {
        T::read(value.try_clone().unwrap()).is_ok()
    }

    proptest! {
        #[test]
        fn values_survive_the_wire(flag: bool, small: u16, number: u64, signed: i32, text in "[^\0]{0,40}", list in prop::collection::vec("[^\0]{0,9}", 0..5)) {
            let dict = DictWriter::new()
                .with("flag", flag).with("small", small).with("number", number).with("signed", signed)
                .with("text", text.clone()).with("list", list.clone())
                .done();
            let mut options = Options::new(travel(&dict));
            prop_assert_eq!(options.take("flag"), Ok(Some(flag)));
            prop_assert_eq!(options.take("small"), Ok(Some(small)));
            prop_assert_eq!(options.take("number"), Ok(Some(Bytes(number))));
            prop_assert_eq!(options.take("signed"), Ok(Some(signed)));
            prop_assert_eq!(options.take("text"), Ok(Some(text)));
            prop_assert_eq!(options.take("list"), Ok(Some(list)));
            prop_assert_eq!(options.finish(), Ok(()));
        }

        #[test]
        fn a_value_reads_as_its_own_type_alone(value in variant()) {
            let own = value.value_signature().to_string();
            for (signature, reads) in [
                (bool::SIGNATURE, reads::<bool>(&value)),
                (i32::SIGNATURE, reads::<i32>(&value)),
                (u16::SIGNATURE, reads::<u16>(&value)),
                (u32::SIGNATURE, reads::<u32>(&value)),
                (u64::SIGNATURE, reads::<u64>(&value)),
                (String::SIGNATURE, reads::<String>(&value)),
                (Vec::<String>::SIGNATURE, reads::<Vec<String>>(&value)),
                (OwnedObjectPath::SIGNATURE, reads::<OwnedObjectPath>(&value)),
            ] {
                prop_assert_eq!(reads, own == signature, "{} as {}", own, signature);
            }
        }

        #[test]
        fn what_nobody_takes_is_refused(key in "[a-z-]{1,80}", value in variant()) {
            prop_assume!(key != "name");
            let mut options = Options::new(Dict::from([(key.clone(), value)]));
            prop_assert_eq!(options.take::<String>("name"), Ok(None));
            let Err(Error::UnknownOption(text)) = options.finish() else { panic!("accepted") };
            prop_assert!(text.contains(&key[..key.len().min(64)]) && text.ends_with("this call takes name"), "{}", text);
            prop_assert!(text.len() < 140);
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_the_right_one() {
        let mut options = Options::new(DictWriter::new().with("cpus", "2".to_owned()).done());
        let error = options.take::<u32>("cpus").unwrap_err();
        assert_eq!(
            error,
            Error::InvalidArgs("option \"cpus\" has type \"s\", and must have type \"u\"".into())
        );
        assert_eq!(options.finish(), Ok(()));
    }

    #[test]
    fn an_empty_list_of_something_else_is_no_list_of_text() {
        let numbers = Variant::Array(zbus::Array::new(&zbus::Signature::U32)).try_into_owned().unwrap();
        assert!(!reads::<Vec<String>>(&numbers));
    }

    #[test]
    fn a_call_without_options_says_so() {
        let options = Options::new(DictWriter::new().with("x", true).done());
        let text = options.finish().unwrap_err().to_string();
        assert_eq!(text, "there is no option \"x\": this call takes none");
    }

    #[test]
    fn a_descriptor_arrives_as_the_same_file() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let before = inode(file.as_fd());
        let mut dict = travel(&DictWriter::new().with("kernel", OwnedFd::from(file)).done());
        let arrived: OwnedFd = require(&mut dict, "kernel").unwrap();
        assert_eq!(inode(arrived.as_fd()), before);
        let both =
            || vec![OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), arrived.try_clone().unwrap()];
        let mut dict = travel(&DictWriter::new().with("packages", both()).done());
        let two: Vec<OwnedFd> = require(&mut dict, "packages").unwrap();
        assert_eq!((two.len(), inode(two[1].as_fd())), (2, before));
        let none: Vec<String> = Vec::new();
        let other = take::<Vec<OwnedFd>>(&mut DictWriter::new().with("packages", none).done(), "packages");
        assert!(matches!(other, Err(DictError::Type { expected: "ah", .. })), "{other:?}");
        let not_one = take::<OwnedFd>(&mut DictWriter::new().with("kernel", 3i32).done(), "kernel");
        assert!(matches!(not_one, Err(DictError::Type { expected: "h", .. })), "{not_one:?}");
    }

    fn inode(fd: std::os::fd::BorrowedFd<'_>) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::File::from(fd.try_clone_to_owned().unwrap()).metadata().unwrap().ino()
    }

    #[test]
    fn an_id_of_the_wrong_form_is_told() {
        let mut dict = DictWriter::new().with("id", "xyz".to_owned()).done();
        let error = require::<VmId>(&mut dict, "id").unwrap_err();
        assert!(matches!(error, DictError::Form { key: "id", .. }), "{error}");
        assert_eq!(require::<VmId>(&mut dict, "id"), Err(DictError::Missing { key: "id" }));
    }
}
