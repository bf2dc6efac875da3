//! What `Describe` and the listings tell, as types: one home for every key, read and written here only.

use crate::dict::{self, Dict, DictError, DictWriter};
use crate::field::Port;
use banger_model::{Bytes, ImageId, JobId, KernelId, Uid, VmId, VolumeId};
use serde::Serialize;

/// Declares a description: `must` fields are an error when missing, `may` fields are `None`, the others
/// have their type's default. The key is the field's name in kebab-case.
macro_rules! info {
    ($(#[$doc:meta])* $name:ident {
        must { $($(#[$must_doc:meta])* $must:ident: $must_type:ty = $must_key:literal,)* }
        else { $($(#[$plain_doc:meta])* $plain:ident: $plain_type:ty = $plain_key:literal,)* }
        may { $($(#[$may_doc:meta])* $may:ident: $may_type:ty = $may_key:literal,)* }
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $name {
            $($(#[$must_doc])* pub $must: $must_type,)*
            $($(#[$plain_doc])* pub $plain: $plain_type,)*
            $($(#[$may_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $may: Option<$may_type>,)*
        }

        impl $name {
            /// Every key, whether always there or not.
            pub const KEYS: &[&str] = &[$($must_key,)* $($plain_key,)* $($may_key,)*];

            /// The dictionary that travels.
            pub fn into_dict(self) -> Dict {
                DictWriter::new()
                    $(.with($must_key, self.$must))*
                    $(.with($plain_key, self.$plain))*
                    $(.with_some($may_key, self.$may))*
                    .done()
            }

            /// Reads the dictionary. A key that this version does not know is passed over: the service may be newer.
            ///
            /// # Errors
            /// [`DictError`] if a key has the wrong type, or one that names the thing is missing.
            pub fn from_dict(mut dict: Dict) -> Result<Self, DictError> {
                Ok(Self {
                    $($must: dict::require(&mut dict, $must_key)?,)*
                    $($plain: dict::take(&mut dict, $plain_key)?.unwrap_or_default(),)*
                    $($may: dict::take(&mut dict, $may_key)?,)*
                })
            }
        }
    };
}

info! {
    /// An image.
    ImageInfo {
        must {
            /// Its id.
            id: ImageId = "id",
            /// Its first name; empty when it has none.
            name: String = "name",
            /// Whose it is.
            owner_uid: Uid = "owner-uid",
        }
        else {
            /// All its names, the oldest first.
            names: Vec<String> = "names",
            /// `registry`, `catalogue`, `import`, `register` or `commit`.
            source: String = "source",
            /// The reference that it was pulled by, in canonical form.
            reference: String = "reference",
            /// The digest of its manifest.
            digest: String = "digest",
            /// `os/architecture[/variant]`.
            platform: String = "platform",
            /// Size of the filesystem.
            size: Bytes = "size",
            /// Bytes of the files in it.
            content: Bytes = "content",
            /// Bytes of its layers as they were downloaded.
            compressed: Bytes = "compressed",
            /// When it was published, in seconds since 1970.
            created: u64 = "created",
            /// Bytes of the disk that it takes; holes take none.
            used: Bytes = "used",
            /// The digests of its layers, oldest first.
            layers: Vec<String> = "layers",
            /// Whether it is there for its owner and root alone.
            private: bool = "private",
            /// Whose signature was checked, in words; empty when none was wanted.
            signature: String = "signature",
            /// The kernel that it wants; empty when any will do.
            kernel: String = "kernel",
            /// The image author's entrypoint.
            entrypoint: Vec<String> = "entrypoint",
            /// The image author's command.
            command: Vec<String> = "command",
            /// The image author's environment, `K=V` each.
            environment: Vec<String> = "environment",
            /// The user that its command runs as; empty for root.
            user: String = "user",
            /// The folder that its command runs in; empty for `/`.
            working_directory: String = "working-directory",
            /// Why it cannot be used at the moment, with the remedy; empty when it can be.
            unavailable: String = "unavailable",
            /// The names of the caller's VMs that use it.
            used_by: Vec<String> = "used-by",
        }
        may {}
    }
}

info! {
    /// A snapshot of a VM.
    SnapshotInfo {
        must {
            /// Its name.
            name: String = "name",
        }
        else {
            /// When it was made, in seconds since 1970.
            created: u64 = "created",
            /// Bytes that its memory takes.
            memory: Bytes = "memory",
            /// Bytes that its disk takes, shared blocks counted.
            disk: Bytes = "disk",
            /// What ran it, `qemu` or `firecracker`: only that can go on with it.
            vmm: String = "vmm",
            /// On what it ran, `kvm` or `tcg`.
            accel: String = "accel",
        }
        may {}
    }
}

info! {
    /// A kernel.
    KernelInfo {
        must {
            /// Its id.
            id: KernelId = "id",
            /// Its name.
            name: String = "name",
        }
        else {
            /// Its release, as uname(1) tells it.
            release: String = "release",
            /// `host` or `imported`.
            source: String = "source",
            /// Bytes of everything kept for it.
            size: Bytes = "size",
            /// Whether it came with modules.
            has_modules: bool = "has-modules",
            /// Whether it came with an initrd of its own.
            has_initrd: bool = "has-initrd",
            /// Whether it is what a VM gets that names none.
            default: bool = "default",
            /// The names of the caller's VMs that use it.
            used_by: Vec<String> = "used-by",
        }
        may {}
    }
}

info! {
    /// Something that can be pulled by a plain name.
    CatalogueInfo {
        must {
            /// `image` or `kernel`; `problem` for a file that does not count.
            kind: String = "kind",
            /// Its name; of a problem, the file.
            name: String = "name",
        }
        else {
            /// What it is, in words; of a problem, what is wrong.
            description: String = "description",
            /// The processor that it is for, such as `amd64`.
            architecture: String = "architecture",
            /// Where it is.
            url: String = "url",
            /// The digest of what is downloaded.
            digest: String = "digest",
            /// Bytes to download.
            size: Bytes = "size",
            /// For an image, the kernel that it wants; empty when any will do.
            kernel: String = "kernel",
            /// For a kernel, its release.
            release: String = "release",
        }
        may {}
    }
}

info! {
    /// A virtual machine.
    VmInfo {
        must {
            /// Its id.
            id: VmId = "id",
            /// Its name.
            name: String = "name",
            /// Its state: created, starting, running, paused, stopping, stopped, failed or deleting.
            state: String = "state",
            /// Whose it is.
            owner_uid: Uid = "owner-uid",
        }
        else {
            /// The name of its image.
            image: String = "image",
            /// The id of its image.
            image_id: String = "image-id",
            /// The name of its kernel.
            kernel: String = "kernel",
            /// Virtual CPUs.
            cpus: u32 = "cpus",
            /// Memory.
            memory: Bytes = "memory",
            /// Size of its disk.
            disk: Bytes = "disk",
            /// Bytes of the host's disk that its disk takes.
            disk_used: Bytes = "disk-used",
            /// How its disk is made of its image: `device-mapper`, `reflink` or `copy`.
            disk_backend: String = "disk-backend",
            /// Its volumes, each as `name:path` or `name:path:ro`.
            volumes: Vec<String> = "volumes",
            /// Its addresses.
            addresses: Vec<String> = "addresses",
            /// Which other VMs it reaches: `private` (none) or `shared` (those that are shared too).
            network: String = "network",
            /// Whether it reaches beyond the host.
            nat: bool = "nat",
            /// Its published ports: the host's address and port, its own port, and the protocol.
            ports: Vec<Port> = "ports",
            /// When it was made, in seconds since 1970.
            created: u64 = "created",
            /// Whether it is deleted once it stops.
            remove: bool = "remove",
            /// Whether it starts with the host.
            autostart: bool = "autostart",
            /// Whether it starts again when it ended: no, on-failure or always.
            restart: String = "restart",
            /// Seconds without use after which it is stopped; 0 for never.
            idle_stop: u32 = "idle-stop",
            /// The phases of its last boot, each with the milliseconds since the guest's kernel started.
            boot: Vec<(String, u32)> = "boot",
        }
        may {
            /// What runs its instructions: `kvm` or `tcg`.
            accel: String = "accel",
            /// Its virtual machine monitor.
            vmm: String = "vmm",
            /// The process of its monitor, while there is one.
            pid: u32 = "pid",
            /// When it was last started, in seconds since 1970.
            started: u64 = "started",
            /// Seconds since its guest was ready, while it runs.
            uptime: u64 = "uptime",
            /// The code with which its main process ended last.
            exit_code: i32 = "exit-code",
            /// The signal that ended its main process last.
            exit_signal: i32 = "exit-signal",
            /// What listens in its guest on TCP, as `address:port`, sorted by port; only when one VM is described.
            listening: Vec<String> = "listening",
            /// What went wrong last.
            error: String = "error",
        }
    }
}

info! {
    /// What a list tells of a VM: what is known without asking about its disk or its guest.
    VmSummary {
        must {
            /// Its id.
            id: VmId = "id",
            /// Its name.
            name: String = "name",
            /// Its state, as in [`VmInfo`].
            state: String = "state",
            /// Whose it is.
            owner_uid: Uid = "owner-uid",
        }
        else {
            /// The name of its image.
            image: String = "image",
            /// Virtual CPUs.
            cpus: u32 = "cpus",
            /// Memory.
            memory: Bytes = "memory",
            /// Size of its disk.
            disk: Bytes = "disk",
            /// Its addresses.
            addresses: Vec<String> = "addresses",
            /// When it was made, in seconds since 1970.
            created: u64 = "created",
        }
        may {}
    }
}

info! {
    /// What a VM takes of its host, and how its guest is. What the guest says is its word.
    VmStats {
        must {
            /// Its id.
            id: VmId = "id",
            /// Its name.
            name: String = "name",
        }
        else {
            /// Microseconds of the host's processors since it was started.
            cpu_time: u64 = "cpu-time",
            /// Bytes of the host's memory.
            memory: Bytes = "memory",
            /// Bytes that the guest received over its network.
            received: Bytes = "received",
            /// Bytes that it sent.
            sent: Bytes = "sent",
        }
        may {
            /// Thousandths of one of the host's processors since the last look; not at the first.
            cpu_permille: u32 = "cpu-permille",
            /// Bytes read from its disks.
            read: Bytes = "read",
            /// Bytes written to them.
            written: Bytes = "written",
            /// Milliseconds since the guest's kernel started.
            guest_uptime: u64 = "guest-uptime",
            /// Milliseconds that the guest's processors worked, together.
            guest_busy: u64 = "guest-busy",
            /// Memory that the guest's kernel has to give.
            guest_memory: Bytes = "guest-memory",
            /// Memory that programs in it could still have.
            guest_memory_available: Bytes = "guest-memory-available",
            /// Size of its root filesystem.
            guest_disk: Bytes = "guest-disk",
            /// What is free of that.
            guest_disk_available: Bytes = "guest-disk-available",
            /// Tasks in it.
            guest_tasks: u32 = "guest-tasks",
            /// TCP connections between it and others.
            guest_connections: u32 = "guest-connections",
        }
    }
}

info! {
    /// A volume.
    VolumeInfo {
        must {
            /// Its id.
            id: VolumeId = "id",
            /// Its name.
            name: String = "name",
            /// Whose it is.
            owner_uid: Uid = "owner-uid",
        }
        else {
            /// Its size.
            size: Bytes = "size",
            /// Bytes of the host's disk that it takes.
            used: Bytes = "used",
            /// When it was made, in seconds since 1970.
            created: u64 = "created",
            /// The names of the VMs that have it.
            used_by: Vec<String> = "used-by",
        }
        may {}
    }
}

info! {
    /// A job.
    JobInfo {
        must {
            /// Its id.
            id: JobId = "id",
            /// What it does, such as `pull-image`.
            kind: String = "kind",
            /// Where it is: running, cancelling, done, failed or cancelled.
            state: String = "state",
            /// Who asked for it.
            owner_uid: Uid = "owner-uid",
        }
        else {
            /// On what.
            subject: String = "subject",
            /// What it is doing at the moment.
            phase: String = "phase",
            /// How much of the phase is done.
            done: u64 = "done",
            /// How much the phase has; 0 if it counts nothing.
            total: u64 = "total",
            /// Files, directories and links written into an image so far.
            entries: u64 = "entries",
        }
        may {
            /// What went wrong.
            error: String = "error",
        }
    }
}

/// How a command in a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecResult {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExecResult {
    /// The dictionary that travels.
    pub fn into_dict(self) -> Dict {
        match self {
            ExecResult::Code(code) => DictWriter::new().with("code", code).done(),
            ExecResult::Signal(signal) => DictWriter::new().with("signal", signal).done(),
        }
    }

    /// Reads the dictionary.
    ///
    /// # Errors
    /// [`DictError`] if neither key is there, or one has the wrong type.
    pub fn from_dict(mut dict: Dict) -> Result<Self, DictError> {
        match dict::take(&mut dict, "signal")? {
            Some(signal) => Ok(ExecResult::Signal(signal)),
            None => dict::require(&mut dict, "code").map(ExecResult::Code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;
    use proptest::prelude::*;

    fn vm(bits: u64, text: String, list: Vec<String>, some: bool) -> VmInfo {
        VmInfo {
            id: VmId::from_bits(bits),
            name: text.clone(),
            state: "running".into(),
            owner_uid: Uid(bits as u32),
            image: text.clone(),
            image_id: text.clone(),
            kernel: text.clone(),
            cpus: bits as u32,
            memory: Bytes(bits),
            disk: Bytes(bits / 2),
            disk_used: Bytes(bits / 3),
            disk_backend: text.clone(),
            volumes: list.clone(),
            addresses: list,
            network: "shared".into(),
            nat: some,
            ports: vec![(text.clone(), bits as u16, 80, "tcp".into())],
            created: bits,
            remove: some,
            accel: some.then(|| "kvm".into()),
            vmm: some.then(|| "qemu".into()),
            pid: some.then_some(7),
            started: some.then_some(bits),
            autostart: some,
            restart: "no".into(),
            idle_stop: bits as u32,
            boot: vec![("kernel".into(), bits as u32)],
            uptime: some.then_some(bits),
            exit_code: some.then_some(3),
            exit_signal: some.then_some(9),
            listening: some.then(|| vec!["0.0.0.0:80".to_owned()]),
            error: (!some).then_some(text),
        }
    }

    fn anything() -> impl Strategy<Value = zbus::OwnedVariant> {
        prop_oneof![
            any::<bool>().prop_map(Field::write),
            any::<u32>().prop_map(Field::write),
            any::<u64>().prop_map(Field::write),
            "[0-9a-f]{16}".prop_map(Field::write),
            prop::collection::vec("[^\0]{0,8}", 0..4).prop_map(Field::write),
        ]
    }

    proptest! {
        #[test]
        fn a_vm_survives_the_dictionary(bits: u64, text in "[^\0]{0,20}", list in prop::collection::vec("[^\0]{0,9}", 0..5), some: bool) {
            let info = vm(bits, text, list, some);
            let mut dict = info.clone().into_dict();
            prop_assert!(dict.keys().all(|key| VmInfo::KEYS.contains(&key.as_str())));
            // A newer service tells more.
            dict.insert("colour".into(), Field::write("red".to_owned()));
            prop_assert_eq!(VmInfo::from_dict(dict), Ok(info));
        }

        #[test]
        fn one_odd_value_is_refused_or_read_as_it_is(key in prop::sample::select(VmInfo::KEYS), value in anything()) {
            let mut dict = vm(1, "x".into(), vec![], true).into_dict();
            dict.insert(key.to_owned(), value);
            match VmInfo::from_dict(dict.clone()) {
                Ok(info) => prop_assert_eq!(info.into_dict(), dict),
                Err(error) => prop_assert!(error.to_string().contains(key), "{}", error),
            }
        }
    }

    #[test]
    fn what_names_a_thing_must_be_there() {
        let id = DictWriter::new().with("id", ImageId::from_bits(1));
        assert_eq!(ImageInfo::from_dict(id.done()), Err(DictError::Missing { key: "name" }));
        let least = DictWriter::new()
            .with("id", ImageId::from_bits(1))
            .with("name", "debian".to_owned())
            .with("owner-uid", 1000u32);
        let info = ImageInfo::from_dict(least.done()).unwrap();
        assert_eq!((info.name.as_str(), info.layers.len(), info.used_by.len()), ("debian", 0, 0));
    }

    #[test]
    fn keys_are_the_same_on_the_bus_and_in_json() {
        let mut info = vm(1, "x".into(), vec![], true);
        info.error = Some("no".into());
        let dict = info.clone().into_dict();
        let json = serde_json::to_value(&info).unwrap();
        let json: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(json, dict.keys().collect::<Vec<_>>());
        let mut keys = VmInfo::KEYS.to_vec();
        keys.sort_unstable();
        assert_eq!(json, keys);
        assert_eq!(serde_json::to_value(info.memory).unwrap(), serde_json::json!(1));
    }

    #[test]
    fn an_end_is_a_code_or_a_signal() {
        for end in [ExecResult::Code(0), ExecResult::Code(42), ExecResult::Signal(9)] {
            assert_eq!(ExecResult::from_dict(end.into_dict()), Ok(end));
        }
        assert_eq!(ExecResult::from_dict(Dict::new()), Err(DictError::Missing { key: "code" }));
    }
}
