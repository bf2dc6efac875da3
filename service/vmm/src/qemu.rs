//! QEMU's `microvm` machine.
//!
//! <https://www.qemu.org/docs/master/system/i386/microvm.html>

use crate::{AGENT_PORT, Command, Machine, Vmm, kernel_command_line};
use banger_model::{Accel, Bytes};
use std::{iter, path::PathBuf};

/// QEMU, 7.2 or newer.
#[derive(Debug, Clone, Copy)]
pub struct Qemu;

/// Where every distribution has it.
const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// The name of the balloon, for QMP.
pub(crate) const BALLOON: &str = "balloon";
/// The name of the network card, for QMP.
pub(crate) const CARD: &str = "net0";

impl Vmm for Qemu {
    fn programs(&self) -> &'static [&'static str] {
        &[PROGRAM]
    }

    fn runs_on(&self, _accel: Accel) -> bool {
        true
    }

    fn opens_by_name(&self) -> bool {
        false
    }

    fn command(&self, machine: &Machine) -> Command {
        let mut arguments = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);

        let (accel, cpu) = match machine.accel {
            Accel::Kvm => ("kvm", "host"),
            Accel::Tcg => ("tcg,thread=multi", "max"),
        };
        // PIC and PIT stay as QEMU chooses: an emulated guest hangs without them. Memory is not merged with other
        // VMs', whose users could tell from the timing what is in it.
        add("-machine", "microvm,acpi=on,rtc=on,usb=off,graphics=off,mem-merge=off".into());
        add("-accel", accel.into());
        add("-cpu", cpu.into());
        add("-smp", machine.size.cpus.0.to_string());
        add("-m", format!("size={}M", machine.size.memory.0 / Bytes::mib(1).0));

        add("-kernel", format!("/proc/self/fd/{}", machine.kernel));
        add("-initrd", format!("/proc/self/fd/{}", machine.initrd));
        add("-append", kernel_command_line(machine.accel, machine.tsc_khz));

        if let Some(limit) = machine.manner.limits.disk {
            add("-object", format!("throttle-group,id=limit,x-bps-total={}", limit.0));
        }
        for (number, disk) in iter::once(&machine.disk).chain(&machine.volumes).enumerate() {
            let (set, mut name) = (number + 1, node_name(number));
            // One cache is enough, the host's own of the file below the loop device.
            let access = if disk.writable { "read-only=off,discard=unmap" } else { "read-only=on" };
            add("-add-fd", format!("fd={},set={set}", disk.fd));
            let file = format!("filename=/dev/fdset/{set},cache.direct=on");
            add("-blockdev", format!("driver=host_device,node-name={name},{file},{access}"));
            if machine.manner.limits.disk.is_some() {
                // One limit for all of them together.
                let above = format!("limited-{name}");
                add(
                    "-blockdev",
                    format!("driver=throttle,node-name={above},throttle-group=limit,file={name}"),
                );
                name = above;
            }
            // A host that is full, or whose disk fails, stops the guest, which then never sees a write fail: what could
            // not be done is done again when it goes on.
            add("-device", format!("virtio-blk-device,drive={name},werror=stop,rerror=stop"));
        }

        let mac = machine.network.mac.map(|byte| format!("{byte:02x}")).join(":");
        add("-netdev", format!("tap,id=net,fd={},vhost=off", machine.network.tap));
        add("-device", format!("virtio-net-device,netdev=net,id={CARD},mac={mac}"));

        // One way to the guest's agent, not two.
        match machine.vsock {
            Some(vsock) => {
                add("-device", format!("vhost-vsock-device,guest-cid={},vhostfd={}", vsock.cid, vsock.fd));
            }
            None => {
                add("-chardev", format!("socket,id=agent,fd={},server=on,wait=off", machine.agent));
                add("-device", "virtio-serial-device,max_ports=2".into());
                add("-device", format!("virtserialport,chardev=agent,name={AGENT_PORT}"));
            }
        }
        add("-chardev", format!("socket,id=console,fd={},server=on,wait=off", machine.console));
        add("-serial", "chardev:console".into());
        add("-chardev", format!("socket,id=control,fd={},server=on,wait=off", machine.control));
        add("-mon", "chardev=control,mode=control".into());
        add("-device", "virtio-rng-device".into());
        // What the guest frees goes back to the host by itself.
        add(
            "-device",
            format!("virtio-balloon-device,id={BALLOON},free-page-reporting=on,deflate-on-oom=on"),
        );
        if machine.manner.incoming {
            // The state comes over QMP, as a descriptor.
            arguments.extend(["-S", "-incoming", "defer"].map(String::from));
        }
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);

        add("-display", "none".into());
        add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
        arguments.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
        Command { programs: vec![PathBuf::from(PROGRAM)], arguments }
    }
}

/// QEMU's name for a disk.
fn node_name(number: usize) -> String {
    match number {
        0 => "root".into(),
        _ => format!("volume{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, Fd, IoLimits, Manner, Network, Vsock};
    use banger_model::{Cpus, MachineSize};

    fn machine() -> Machine {
        Machine {
            size: MachineSize { cpus: Cpus(2), memory: Bytes::gib(1), disk: Bytes::gib(2) },
            accel: Accel::Tcg,
            tsc_khz: Some(2_600_000),
            kernel: Fd(4),
            initrd: Fd(5),
            disk: Disk { fd: Fd(6), writable: true },
            volumes: Vec::new(),
            network: Network { tap: Fd(7), mac: [0x02, 0xba, 0x6e, 0, 0x0f, 0xa1] },
            agent: Fd(8),
            console: Fd(9),
            control: Fd(10),
            vsock: None,
            manner: Manner::default(),
        }
    }

    fn arguments(machine: &Machine) -> Vec<String> {
        Qemu.command(machine).arguments
    }

    /// The values of every `option`.
    fn values(machine: &Machine, option: &str) -> Vec<String> {
        let arguments = arguments(machine);
        let pairs = arguments.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn the_whole_command() {
        let command = Qemu.command(&machine());
        assert_eq!(command.programs, [PathBuf::from("/usr/bin/qemu-system-x86_64")]);
        let expected = [
            "-machine microvm,acpi=on,rtc=on,usb=off,graphics=off,mem-merge=off",
            "-accel tcg,thread=multi",
            "-cpu max",
            "-smp 2",
            "-m size=1024M",
            "-kernel /proc/self/fd/4",
            "-initrd /proc/self/fd/5",
            "-append",
        ]
        .join(" ");
        let devices = [
            "-add-fd fd=6,set=1",
            "-blockdev driver=host_device,node-name=root,filename=/dev/fdset/1,cache.direct=on,\
             read-only=off,discard=unmap",
            "-device virtio-blk-device,drive=root,werror=stop,rerror=stop",
            "-netdev tap,id=net,fd=7,vhost=off",
            "-device virtio-net-device,netdev=net,id=net0,mac=02:ba:6e:00:0f:a1",
            "-chardev socket,id=agent,fd=8,server=on,wait=off",
            "-device virtio-serial-device,max_ports=2",
            "-device virtserialport,chardev=agent,name=org.banger.agent.0",
            "-chardev socket,id=console,fd=9,server=on,wait=off",
            "-serial chardev:console",
            "-chardev socket,id=control,fd=10,server=on,wait=off",
            "-mon chardev=control,mode=control",
            "-device virtio-rng-device",
            "-device virtio-balloon-device,id=balloon,free-page-reporting=on,deflate-on-oom=on",
            "-display none",
            "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-nodefaults -no-user-config -no-reboot",
        ]
        .join(" ");
        let line = kernel_command_line(Accel::Tcg, Some(2_600_000));
        assert_eq!(command.arguments.join(" "), format!("{expected} {line} {devices}"));
        assert!(command.arguments.contains(&line), "one argument, whatever is in it");
    }

    #[test]
    fn kvm_is_the_hosts_processor() {
        let machine = Machine { accel: Accel::Kvm, ..machine() };
        assert_eq!(values(&machine, "-accel"), ["kvm"]);
        assert_eq!(values(&machine, "-cpu"), ["host"]);
        assert!(!values(&machine, "-append")[0].contains("tsc"));
    }

    #[test]
    fn a_read_only_disk_is_not_opened_for_writing() {
        let machine = Machine { disk: Disk { fd: Fd(6), writable: false }, ..machine() };
        let [disk] = &values(&machine, "-blockdev")[..] else { panic!("not one disk") };
        assert!(disk.ends_with(",read-only=on"), "{disk}");
        assert!(!disk.contains("discard"));
    }

    #[test]
    fn a_limit_is_a_filter_above_each_disk() {
        let limits = IoLimits { disk: Some(Bytes::mib(10)), network: None };
        let volumes = vec![Disk { fd: Fd(11), writable: true }];
        let machine = Machine { manner: Manner { limits, ..Manner::default() }, volumes, ..machine() };
        assert_eq!(values(&machine, "-object"), ["throttle-group,id=limit,x-bps-total=10485760"]);
        let disks = values(&machine, "-blockdev");
        let filters: Vec<_> = disks.iter().filter(|disk| disk.starts_with("driver=throttle,")).collect();
        assert_eq!((disks.len(), filters.len()), (4, 2), "{disks:?}");
        let devices = values(&machine, "-device");
        let drives = devices.iter().filter(|device| device.contains("drive="));
        assert!(drives.clone().all(|drive| drive.contains("drive=limited-")), "{devices:?}");
    }

    #[test]
    fn a_snapshots_vm_waits_for_its_state() {
        let arguments =
            arguments(&Machine { manner: Manner { incoming: true, ..Manner::default() }, ..machine() });
        assert!(arguments.windows(3).any(|three| three == ["-S", "-incoming", "defer"]));
        assert!(!super::tests::arguments(&super::tests::machine()).contains(&"-S".to_owned()));
    }

    #[test]
    fn vsock_is_a_descriptor_too() {
        let vsock = Some(Vsock { fd: Fd(11), cid: 10 });
        let devices = values(&Machine { vsock, ..machine() }, "-device");
        assert!(devices.contains(&"vhost-vsock-device,guest-cid=10,vhostfd=11".to_owned()), "{devices:?}");
        assert!(!devices.iter().any(|device| device.contains("virtserialport")), "{devices:?}");
    }

    #[test]
    fn volumes_come_behind_the_root() {
        let volume = |fd, writable| Disk { fd: Fd(fd), writable };
        let machine = Machine { volumes: vec![volume(11, true), volume(12, false)], ..machine() };
        assert_eq!(values(&machine, "-add-fd"), ["fd=6,set=1", "fd=11,set=2", "fd=12,set=3"]);
        let [_, first, second] = &values(&machine, "-blockdev")[..] else { panic!("not three disks") };
        assert!(
            first.contains("node-name=volume1,filename=/dev/fdset/2,") && first.contains("read-only=off")
        );
        assert!(
            second.contains("node-name=volume2,filename=/dev/fdset/3,") && second.ends_with("read-only=on")
        );
        let devices = values(&machine, "-device");
        let drives: Vec<_> = devices.iter().filter_map(|device| device.split("drive=").nth(1)).collect();
        assert_eq!(drives.len(), 3);
        assert!(drives.iter().all(|drive| drive.ends_with(",werror=stop,rerror=stop")), "{drives:?}");
    }

    #[test]
    fn memory_is_whole_mebibytes() {
        for (bytes, text) in [
            (Bytes::mib(96), "size=96M"),
            (Bytes(Bytes::mib(97).0 - 1), "size=96M"),
            (Bytes::gib(4096), "size=4194304M"),
        ] {
            let mut machine = machine();
            machine.size.memory = bytes;
            assert_eq!(values(&machine, "-m"), [text]);
        }
    }

    #[test]
    fn it_opens_nothing_by_name_and_reboots_into_nothing() {
        let arguments = arguments(&machine());
        for wanted in ["-nodefaults", "-no-user-config", "-no-reboot", "-sandbox"] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
        let paths = arguments
            .iter()
            .flat_map(|argument| argument.split([',', '=']))
            .filter(|part| part.starts_with('/'));
        for path in paths {
            assert!(path.starts_with("/proc/self/fd/") || path.starts_with("/dev/fdset/"), "{path}");
        }
    }
}
