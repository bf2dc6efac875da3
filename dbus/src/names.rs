//! Every name on the bus: the service, its object paths and its interfaces.

use banger_model::{ExecId, ImageId, JobId, KernelId, VmId, VolumeId};
use std::{fmt, str::FromStr};
use zbus::OwnedObjectPath;

/// The well-known name of the service on the system bus.
pub const SERVICE: &str = "org.banger.Manager";
/// Where `org.freedesktop.DBus.ObjectManager` is; every object is below it.
pub const ROOT_PATH: &str = "/org/banger";
/// Where the [`MANAGER_INTERFACE`] is.
pub const MANAGER_PATH: &str = "/org/banger/Manager";

/// The main interface.
pub const MANAGER_INTERFACE: &str = "org.banger.Manager";
/// An image.
pub const IMAGE_INTERFACE: &str = "org.banger.Image";
/// A kernel.
pub const KERNEL_INTERFACE: &str = "org.banger.Kernel";
/// A virtual machine.
pub const VM_INTERFACE: &str = "org.banger.VM";
/// A volume.
pub const VOLUME_INTERFACE: &str = "org.banger.Volume";
/// A job.
pub const JOB_INTERFACE: &str = "org.banger.Job";
/// A command that runs in a guest.
pub const EXEC_INTERFACE: &str = "org.banger.Exec";

/// Every interface of ours.
pub const INTERFACES: [&str; 7] = [
    MANAGER_INTERFACE,
    IMAGE_INTERFACE,
    KERNEL_INTERFACE,
    VM_INTERFACE,
    VOLUME_INTERFACE,
    JOB_INTERFACE,
    EXEC_INTERFACE,
];

/// An id whose thing is an object on the bus.
pub trait Object: Copy + fmt::Display + FromStr {
    /// The path below which these objects are, with a slash at the end.
    const PREFIX: &'static str;
    /// The interface that they have.
    const INTERFACE: &'static str;

    /// The path of the object.
    fn path(&self) -> OwnedObjectPath {
        // An id is hexadecimal digits, so the path is always well-formed.
        zbus::ObjectPath::from_string_unchecked(format!("{}{self}", Self::PREFIX)).into()
    }

    /// The id that a path names; `None` if it is not the path of such an object.
    fn from_path(path: &str) -> Option<Self> {
        path.strip_prefix(Self::PREFIX)?.parse().ok()
    }
}

macro_rules! object {
    ($id:ty, $prefix:literal, $interface:expr) => {
        impl Object for $id {
            const PREFIX: &'static str = $prefix;
            const INTERFACE: &'static str = $interface;
        }
    };
}

object!(ImageId, "/org/banger/Image/", IMAGE_INTERFACE);
object!(KernelId, "/org/banger/Kernel/", KERNEL_INTERFACE);
object!(VmId, "/org/banger/VM/", VM_INTERFACE);
object!(VolumeId, "/org/banger/Volume/", VOLUME_INTERFACE);
object!(JobId, "/org/banger/Job/", JOB_INTERFACE);
object!(ExecId, "/org/banger/Exec/", EXEC_INTERFACE);

/// The path of the object that has this id.
pub fn path_of<T: Object>(id: T) -> OwnedObjectPath {
    id.path()
}

/// The id that a path names; `None` if it is not the path of such an object.
pub fn id_of<T: Object>(path: &str) -> Option<T> {
    T::from_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trips<T: Object + PartialEq + fmt::Debug>(id: T) {
        let path = path_of(id);
        assert!(zbus::ObjectPath::try_from(path.as_str()).is_ok());
        assert!(path.as_str().starts_with(ROOT_PATH));
        assert_eq!(id_of(path.as_str()), Some(id));
    }

    proptest! {
        #[test]
        fn a_path_gives_back_its_id(bits: u64) {
            round_trips(ImageId::from_bits(bits));
            round_trips(KernelId::from_bits(bits));
            round_trips(VmId::from_bits(bits));
            round_trips(VolumeId::from_bits(bits));
            round_trips(JobId::from_bits(bits));
            round_trips(ExecId::from_bits(bits));
        }

        #[test]
        fn only_a_path_of_that_kind_has_an_id(text in "(/org/banger/(VM|Job)/)?[0-9a-fG/]{0,17}") {
            let id: Option<VmId> = id_of(&text);
            let digits = text.strip_prefix("/org/banger/VM/").unwrap_or("");
            prop_assert_eq!(id.is_some(), digits.len() == 16 && digits.bytes().all(|b| b != b'G' && b != b'/'));
        }
    }

    #[test]
    fn names_are_well_formed() {
        assert!(zbus::names::WellKnownName::try_from(SERVICE).is_ok());
        assert!(zbus::ObjectPath::try_from(MANAGER_PATH).is_ok());
        for name in INTERFACES {
            assert!(zbus::names::InterfaceName::try_from(name).is_ok(), "{name}");
        }
    }
}
