//! The verbs as they travel: one JSON object per packet, descriptors beside it.

use crate::Refusal;
use banger_model::{
    Accel, Bytes, DiskNumber, Firewall, ImageId, KernelName, MachineSize, NetworkRules, Slot, Subnet, Used,
    VmId,
};
use banger_vmm::{Manner, VmmKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of this protocol. It changes whenever a message does: daemon and helper are installed
/// together, so an old one beside a new one only means that it has to be restarted.
pub const PROTOCOL: u32 = 8;

/// What the helper can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Compares versions.
    Hello {
        /// The caller's [`PROTOCOL`].
        version: u32,
    },
    /// Opens a kernel of the host for reading, which some distributions keep to root.
    /// Replies with one descriptor.
    OpenHostKernel {
        /// The release, as in `/boot/vmlinuz-<release>`.
        release: KernelName,
    },
    /// Tells what disks can be made of.
    ProbeDisks {},
    /// Attaches a loop device over the file that comes as a descriptor, for [`Request::StartVm`].
    AttachLoop {
        /// Whose disk.
        vm: VmId,
        /// The VM's slot.
        slot: Slot,
        /// Which of the VM's disks.
        disk: DiskNumber,
        /// Whether the guest writes to it.
        writable: bool,
    },
    /// Makes the root disk a snapshot of an image, for [`Request::StartVm`]. Two descriptors: the image's filesystem,
    /// and the VM's own file for what the guest writes.
    AttachSnapshot {
        /// Whose disk.
        vm: VmId,
        /// The VM's slot.
        slot: Slot,
        /// The image: VMs that say the same share its loop device.
        image: ImageId,
        /// The size of the disk, whole sectors, not less than the image's.
        size: Bytes,
    },
    /// Detaches a disk again, if the VM has not been started.
    DetachDisk {
        /// Whose disk.
        vm: VmId,
        /// Which of the VM's disks.
        disk: DiskNumber,
    },
    /// Lists which addresses the host uses without banger, and which firewalls it has.
    ListNetworks {},
    /// Makes a TAP in the VMs' bridge, which is made too if it is not there, for [`Request::StartVm`].
    MakeTap {
        /// Whose network.
        vm: VmId,
        /// The VM's slot.
        slot: Slot,
        /// The VMs' network.
        subnet: Subnet,
    },
    /// Lets the packets of a VM that has a TAP do this, and nothing else. Also while it runs.
    OpenNetwork {
        /// Whose network.
        vm: VmId,
        /// What it may.
        rules: NetworkRules,
    },
    /// Takes that back.
    CloseNetwork {
        /// Whose network.
        vm: VmId,
    },
    /// Removes it again, if the VM has not been started.
    RemoveTap {
        /// Whose network.
        vm: VmId,
    },
    /// Starts a VM. Two descriptors: the kernel and the initramfs, as sealed memfds. A VMM that opens all by name gets a
    /// third, the folder for a snapshot's files.
    StartVm {
        /// Which VM.
        vm: VmId,
        /// Its slot.
        slot: Slot,
        /// Its size.
        size: MachineSize,
        /// What runs the guest's instructions.
        accel: Accel,
        /// What runs the VM.
        vmm: VmmKind,
        /// How it is run.
        manner: Manner,
    },
    /// Ends a VM, and takes away all that was made for it.
    StopVm {
        /// Which VM.
        vm: VmId,
    },
    /// Binds the sockets that VMs' names are served on. Replies with two descriptors for each of the host's own
    /// addresses in the VMs' networks: for datagrams, and for connections.
    BindDns {
        /// The VMs' network, of which the host's own addresses follow.
        subnet: Subnet,
        /// The port.
        port: u16,
    },
    /// Tells the host's resolver where VMs' names are served, now and whenever it has to be told again. One descriptor: the
    /// reading end of a pipe, whose closed other end takes it back.
    RouteDns {
        /// The VMs' network.
        subnet: Subnet,
        /// The port.
        port: u16,
    },
    /// How the host's resolver has taken it.
    ShowDns {},
    /// Tells what a VM takes of the host.
    VmUsage {
        /// Which VM.
        vm: VmId,
    },
    /// Connects to the agent in a VM's guest by vsock. The connection comes with the reply.
    ConnectGuest {
        /// Which VM.
        vm: VmId,
        /// The guest's port.
        port: u32,
    },
    /// Lists VMs in the order of their ids.
    ListVms {
        /// The last one of the previous page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<VmId>,
    },
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// Done. To OpenHostKernel, the kernel's descriptor comes with it.
    Done,
    /// To Hello.
    Hello {
        /// The helper's [`PROTOCOL`].
        version: u32,
    },
    /// To ProbeDisks.
    Disks {
        /// Why device-mapper cannot be used; none if it can.
        no_device_mapper: Option<String>,
    },
    /// To ListNetworks.
    Networks {
        /// The addresses in use: those that could be in a private network's way.
        used: Vec<Used>,
        /// The firewalls that can stop VMs' packets.
        firewalls: Vec<Firewall>,
    },
    /// To StartVm: it runs.
    Started {
        /// The VMM's process.
        pid: u32,
    },
    /// To ListVms.
    Vms {
        /// In the order of their ids.
        vms: Vec<VmStatus>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To ShowDns.
    Dns {
        /// How it is, for programs.
        routing: NameRouting,
        /// The same in words; empty when there is nothing to say.
        message: String,
    },
    /// To VmUsage.
    Usage {
        /// What it takes.
        usage: VmUsage,
    },
    /// It was refused, or failed.
    Failed {
        /// Why, for programs.
        kind: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// What the helper knows about a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmStatus {
    /// Which VM.
    pub vm: VmId,
    /// Its slot.
    pub slot: Slot,
    /// Its VMM's process; none while the VM has been given a disk or a TAP but not been started.
    pub pid: Option<u32>,
    /// Whether that process lives.
    pub running: bool,
    /// How it ended: `exit code 1`, `signal 9`, or `unknown` when the helper was restarted meanwhile.
    pub exit: Option<String>,
    /// The last that the VMM wrote to its standard error, at most 2 KiB.
    pub stderr_tail: String,
}

/// What has become of VMs' names in the host's resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameRouting {
    /// Nobody has asked for it.
    Off,
    /// There is no message bus to tell it over.
    NoBus,
    /// There is no resolver that can be told.
    NoResolver,
    /// There is no bridge yet that it could be told of.
    NoBridge,
    /// It has been told.
    Routed,
    /// It did not take it; that is tried again.
    Failed,
}

/// What a VM takes of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmUsage {
    /// Microseconds of processors' time since it was started.
    pub cpu_us: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that the guest received over its network.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
}

/// The name of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Request::Hello`]
    Hello,
    /// [`Request::OpenHostKernel`]
    OpenHostKernel,
    /// [`Request::ProbeDisks`]
    ProbeDisks,
    /// [`Request::AttachLoop`]
    AttachLoop,
    /// [`Request::AttachSnapshot`]
    AttachSnapshot,
    /// [`Request::DetachDisk`]
    DetachDisk,
    /// [`Request::ListNetworks`]
    ListNetworks,
    /// [`Request::MakeTap`]
    MakeTap,
    /// [`Request::OpenNetwork`]
    OpenNetwork,
    /// [`Request::CloseNetwork`]
    CloseNetwork,
    /// [`Request::RemoveTap`]
    RemoveTap,
    /// [`Request::StartVm`]
    StartVm,
    /// [`Request::StopVm`]
    StopVm,
    /// [`Request::BindDns`]
    BindDns,
    /// [`Request::RouteDns`]
    RouteDns,
    /// [`Request::ShowDns`]
    ShowDns,
    /// [`Request::VmUsage`]
    VmUsage,
    /// [`Request::ConnectGuest`]
    ConnectGuest,
    /// [`Request::ListVms`]
    ListVms,
}

impl Request {
    /// Which verb it is.
    pub fn verb(&self) -> Verb {
        match self {
            Request::Hello { .. } => Verb::Hello,
            Request::OpenHostKernel { .. } => Verb::OpenHostKernel,
            Request::ProbeDisks {} => Verb::ProbeDisks,
            Request::AttachLoop { .. } => Verb::AttachLoop,
            Request::AttachSnapshot { .. } => Verb::AttachSnapshot,
            Request::DetachDisk { .. } => Verb::DetachDisk,
            Request::ListNetworks {} => Verb::ListNetworks,
            Request::MakeTap { .. } => Verb::MakeTap,
            Request::OpenNetwork { .. } => Verb::OpenNetwork,
            Request::CloseNetwork { .. } => Verb::CloseNetwork,
            Request::RemoveTap { .. } => Verb::RemoveTap,
            Request::StartVm { .. } => Verb::StartVm,
            Request::StopVm { .. } => Verb::StopVm,
            Request::BindDns { .. } => Verb::BindDns,
            Request::RouteDns { .. } => Verb::RouteDns,
            Request::ShowDns {} => Verb::ShowDns,
            Request::VmUsage { .. } => Verb::VmUsage,
            Request::ConnectGuest { .. } => Verb::ConnectGuest,
            Request::ListVms { .. } => Verb::ListVms,
        }
    }

    /// The VM that it is about, if it is about one.
    pub fn vm(&self) -> Option<VmId> {
        match self {
            Request::Hello { .. }
            | Request::OpenHostKernel { .. }
            | Request::ProbeDisks {}
            | Request::BindDns { .. }
            | Request::RouteDns { .. }
            | Request::ShowDns {}
            | Request::ListNetworks {}
            | Request::ListVms { .. } => None,
            Request::AttachLoop { vm, .. }
            | Request::AttachSnapshot { vm, .. }
            | Request::DetachDisk { vm, .. }
            | Request::MakeTap { vm, .. }
            | Request::OpenNetwork { vm, .. }
            | Request::CloseNetwork { vm }
            | Request::RemoveTap { vm }
            | Request::StartVm { vm, .. }
            | Request::VmUsage { vm }
            | Request::ConnectGuest { vm, .. }
            | Request::StopVm { vm } => Some(*vm),
        }
    }

    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Request::AttachLoop { .. } | Request::RouteDns { .. } => 1,
            Request::StartVm { vmm, .. } if vmm.vmm().opens_by_name() => 3,
            Request::AttachSnapshot { .. } | Request::StartVm { .. } => 2,
            _ => 0,
        }
    }
}

impl Verb {
    /// Whether it is asked again when the helper ended in the middle: looking and undoing do no harm twice, nor
    /// does saying what a VM's packets may. What makes something does not help alone, because what was made before it
    /// went with the helper.
    pub fn repeats(self) -> bool {
        matches!(
            self,
            Verb::Hello
                | Verb::OpenHostKernel
                | Verb::ProbeDisks
                | Verb::DetachDisk
                | Verb::ListNetworks
                | Verb::OpenNetwork
                | Verb::CloseNetwork
                | Verb::RemoveTap
                | Verb::ShowDns
                | Verb::VmUsage
                | Verb::ConnectGuest
                | Verb::StopVm
                | Verb::ListVms
        )
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::{Cpus, Protocol, PublishedPort};
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        let vm = any::<u64>().prop_map(VmId::from_bits);
        let slot = (0..4096u16).prop_map(|number| Slot::try_from(number).unwrap());
        let size = (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(cpus, memory, disk)| MachineSize {
            cpus: Cpus(cpus),
            memory: Bytes(memory),
            disk: Bytes(disk),
        });
        let disk = (0..=DiskNumber::MOST).prop_map(|number| DiskNumber::try_from(number).unwrap());
        let accel = prop_oneof![Just(Accel::Kvm), Just(Accel::Tcg)];
        prop_oneof![
            any::<u32>().prop_map(|version| Request::Hello { version }),
            "[a-z0-9][a-z0-9.+~_-]{0,62}"
                .prop_map(|name| Request::OpenHostKernel { release: name.parse().unwrap() }),
            Just(Request::ProbeDisks {}),
            (vm.clone(), slot.clone(), disk.clone(), any::<bool>())
                .prop_map(|(vm, slot, disk, writable)| Request::AttachLoop { vm, slot, disk, writable }),
            (vm.clone(), slot.clone(), any::<u64>(), any::<u64>()).prop_map(|(vm, slot, image, size)| {
                Request::AttachSnapshot { vm, slot, image: ImageId::from_bits(image), size: Bytes(size) }
            }),
            (vm.clone(), disk).prop_map(|(vm, disk)| Request::DetachDisk { vm, disk }),
            Just(Request::ListNetworks {}),
            (vm.clone(), slot.clone(), any::<u64>()).prop_map(|(vm, slot, random)| Request::MakeTap {
                vm,
                slot,
                subnet: Subnet::choose(None, &[], random).unwrap()
            }),
            (vm.clone(), any::<bool>(), any::<std::net::IpAddr>(), any::<u16>()).prop_map(
                |(vm, nat, address, port)| Request::OpenNetwork {
                    vm,
                    rules: NetworkRules {
                        nat,
                        ports: PublishedPort::new(address, port, 80, Protocol::Udp).into_iter().collect(),
                        ..NetworkRules::default()
                    }
                }
            ),
            vm.clone().prop_map(|vm| Request::CloseNetwork { vm }),
            vm.clone().prop_map(|vm| Request::RemoveTap { vm }),
            (vm.clone(), slot, size, accel, any::<bool>()).prop_map(|(vm, slot, size, accel, incoming)| {
                Request::StartVm {
                    vm,
                    slot,
                    size,
                    accel,
                    vmm: VmmKind::Qemu,
                    manner: Manner { incoming, ..Manner::default() },
                }
            }),
            vm.clone().prop_map(|vm| Request::StopVm { vm }),
            any::<u16>().prop_map(|port| Request::BindDns { subnet: Subnet::default(), port }),
            any::<u16>().prop_map(|port| Request::RouteDns { subnet: Subnet::default(), port }),
            Just(Request::ShowDns {}),
            vm.clone().prop_map(|vm| Request::VmUsage { vm }),
            (vm.clone(), any::<u32>()).prop_map(|(vm, port)| Request::ConnectGuest { vm, port }),
            proptest::option::of(vm).prop_map(|after| Request::ListVms { after }),
        ]
    }

    proptest! {
        #[test]
        fn requests_round_trip(request in request()) {
            let text = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }

        #[test]
        fn nothing_more_than_the_fields_is_taken(request in request(), name in "[a-z]{1,8}") {
            let mut value = serde_json::to_value(&request).unwrap();
            let fields = value.as_object_mut().unwrap();
            if fields.insert(format!("x{name}"), true.into()).is_none() {
                prop_assert!(serde_json::from_value::<Request>(value).is_err());
            }
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Reply>(&bytes);
        }
    }

    #[test]
    fn the_words_are_fixed() {
        let vm = VmId::from_bits(0xff);
        for (request, text) in [
            (Request::Hello { version: 1 }, r#"{"verb":"hello","version":1}"#),
            (Request::RemoveTap { vm }, r#"{"verb":"remove-tap","vm":"00000000000000ff"}"#),
            (Request::StopVm { vm }, r#"{"verb":"stop-vm","vm":"00000000000000ff"}"#),
            (Request::ListVms { after: None }, r#"{"verb":"list-vms"}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
    }
}
