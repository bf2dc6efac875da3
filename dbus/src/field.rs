//! The types that a dictionary can hold, each read from its own D-Bus type and no other.

use banger_model::{Bytes, ExecId, ImageId, JobId, KernelId, Uid, VmId, VolumeId};
use std::os::fd::OwnedFd;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

/// Why a value is not the field that was asked for.
#[derive(Debug)]
pub enum Mismatch {
    /// It has another D-Bus type.
    Type(Box<OwnedVariant>),
    /// It has the type, and not the form.
    Form(String),
}

/// A type that a dictionary can hold.
pub trait Field: Sized {
    /// The D-Bus signature of the value.
    const SIGNATURE: &'static str;

    /// Reads the value.
    ///
    /// # Errors
    /// [`Mismatch`] if the value is something else.
    fn read(value: OwnedVariant) -> Result<Self, Mismatch>;

    /// The value as it travels.
    fn write(self) -> OwnedVariant;
}

macro_rules! plain {
    ($($type:ty: $signature:literal $variant:ident,)*) => {$(
        impl Field for $type {
            const SIGNATURE: &'static str = $signature;

            fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
                match *value {
                    Variant::$variant(value) => Ok(value),
                    _ => Err(Mismatch::Type(Box::new(value))),
                }
            }

            fn write(self) -> OwnedVariant {
                self.into()
            }
        }
    )*};
}

plain! {
    bool: "b" Bool,
    i32: "i" I32,
    u16: "q" U16,
    u32: "u" U32,
    u64: "t" U64,
}

/// A type that travels as another, simpler one.
macro_rules! wrapped {
    ($($type:ident as $inner:ty,)*) => {$(
        impl Field for $type {
            const SIGNATURE: &'static str = <$inner as Field>::SIGNATURE;

            fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
                <$inner>::read(value).map($type)
            }

            fn write(self) -> OwnedVariant {
                self.0.write()
            }
        }
    )*};
}

wrapped! {
    Bytes as u64,
    Uid as u32,
}

/// A type that travels as text.
macro_rules! textual {
    ($($type:ty,)*) => {$(
        impl Field for $type {
            const SIGNATURE: &'static str = "s";

            fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
                String::read(value)?.parse().map_err(|e: banger_model::ModelError| Mismatch::Form(e.to_string()))
            }

            fn write(self) -> OwnedVariant {
                self.to_string().write()
            }
        }
    )*};
}

textual! { ImageId, KernelId, VmId, VolumeId, JobId, ExecId, }

impl Field for String {
    const SIGNATURE: &'static str = "s";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        match &*value {
            Variant::Str(text) => Ok(text.to_string()),
            _ => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        zbus::Str::from(self).into()
    }
}

impl Field for OwnedObjectPath {
    const SIGNATURE: &'static str = "o";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        match &*value {
            Variant::ObjectPath(path) => Ok(path.clone().into()),
            _ => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        self.into_inner().into()
    }
}

impl Field for Vec<String> {
    const SIGNATURE: &'static str = "as";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        let Variant::Array(array) = &*value else { return Err(Mismatch::Type(Box::new(value))) };
        let texts = array.iter().map(|item| match item {
            Variant::Str(text) => Some(text.to_string()),
            _ => None,
        });
        // An empty array of something else is refused too: its type is what the caller wrote.
        match texts.collect() {
            Some(texts) if *array.signature() == Self::SIGNATURE => Ok(texts),
            _ => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        let mut array = zbus::Array::new(&zbus::Signature::Str);
        for text in self {
            // The array is one of texts, so a text always fits.
            let _ = array.append(Variant::from(text));
        }
        owned(Variant::Array(array))
    }
}

impl Field for Vec<(String, u32)> {
    const SIGNATURE: &'static str = "a(su)";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        let Variant::Array(array) = &*value else { return Err(Mismatch::Type(Box::new(value))) };
        let pairs = array.iter().map(|item| match item {
            Variant::Structure(pair) => match pair.fields() {
                [Variant::Str(text), Variant::U32(number)] => Some((text.to_string(), *number)),
                _ => None,
            },
            _ => None,
        });
        match pairs.collect() {
            Some(pairs) if *array.signature() == Self::SIGNATURE => Ok(pairs),
            _ => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        owned(Variant::Array(zbus::Array::from(self)))
    }
}

/// A published port as it travels: the host's address and port, the guest's port, and `tcp` or `udp`.
pub type Port = (String, u16, u16, String);

impl Field for Vec<Port> {
    const SIGNATURE: &'static str = "a(sqqs)";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        match value.value_signature().to_string() == Self::SIGNATURE {
            true => Variant::from(value).try_into().map_err(|e: zbus::Error| Mismatch::Form(e.to_string())),
            false => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        owned(Variant::new(self))
    }
}

impl Field for Vec<(String, String, bool)> {
    const SIGNATURE: &'static str = "a(ssb)";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        let Variant::Array(array) = &*value else { return Err(Mismatch::Type(Box::new(value))) };
        let entries = array.iter().map(|item| match item {
            Variant::Structure(entry) => match entry.fields() {
                [Variant::Str(first), Variant::Str(second), Variant::Bool(third)] => {
                    Some((first.to_string(), second.to_string(), *third))
                }
                _ => None,
            },
            _ => None,
        });
        match entries.collect() {
            Some(entries) if *array.signature() == Self::SIGNATURE => Ok(entries),
            _ => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        owned(Variant::Array(self.into()))
    }
}

impl Field for OwnedFd {
    const SIGNATURE: &'static str = "h";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        match Variant::from(value) {
            Variant::Fd(fd) => OwnedFd::try_from(fd).map_err(|e| Mismatch::Form(e.to_string())),
            other => Err(Mismatch::Type(Box::new(owned(other)))),
        }
    }

    fn write(self) -> OwnedVariant {
        owned(Variant::Fd(self.into()))
    }
}

impl Field for Vec<OwnedFd> {
    const SIGNATURE: &'static str = "ah";

    fn read(value: OwnedVariant) -> Result<Self, Mismatch> {
        let Variant::Array(array) = &*value else { return Err(Mismatch::Type(Box::new(value))) };
        let mut descriptors = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.try_clone() {
                Ok(Variant::Fd(fd)) => {
                    descriptors.push(OwnedFd::try_from(fd).map_err(|e| Mismatch::Form(e.to_string()))?);
                }
                Ok(_) => return Err(Mismatch::Type(Box::new(value))),
                Err(error) => return Err(Mismatch::Form(error.to_string())),
            }
        }
        match *array.signature() == Self::SIGNATURE {
            true => Ok(descriptors),
            false => Err(Mismatch::Type(Box::new(value))),
        }
    }

    fn write(self) -> OwnedVariant {
        let mut array = zbus::Array::new(&zbus::Signature::Fd);
        for descriptor in self {
            // The array is one of descriptors, so a descriptor always fits.
            let _ = array.append(Variant::Fd(descriptor.into()));
        }
        owned(Variant::Array(array))
    }
}

/// Only a borrowed descriptor can fail here, by having to be duplicated; nothing above makes one.
fn owned(value: Variant<'_>) -> OwnedVariant {
    value.try_into_owned().unwrap_or_else(|_| false.into())
}
