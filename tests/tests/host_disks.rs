//! Disks by device-mapper, which not every machine has: in a VM that has it, the real `banger-hostd` is asked for what it
//! is for, and its devices are read and written.
//!
//! The VM runs this very program, from an initramfs, with the helper and what both need. Needs qemu-system-x86,
//! busybox-static, binutils and a Debian kernel with its modules.

#![allow(clippy::unwrap_used, reason = "the whole file is a test: what fails, fails it")]

use banger_host::{Host, HostClient, HostError, Refusal, SnapshotDisk, cow};
use banger_model::{Bytes, DiskNumber, ImageId, Slot, VmId};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MODULES: [&str; 5] = [
    "drivers/block/loop.ko",
    "drivers/md/dm-mod.ko",
    "drivers/md/dm-bufio.ko",
    "drivers/md/dm-snapshot.ko",
    "drivers/md/dm-zero.ko",
];

/// What says on the console that all went well.
const WELL: &str = "all is well inside";

#[test]
fn device_mapper_in_a_vm() {
    let folder = tempfile::tempdir().unwrap();
    let initramfs = folder.path().join("initramfs");
    let (kernel, modules) = kernel();
    fs::write(&initramfs, archive(&modules, folder.path())).unwrap();
    // A guest that hangs must end; nothing is measured by it.
    let output = Command::new("/usr/bin/timeout")
        .args(["600", "/usr/bin/qemu-system-x86_64"])
        .args(["-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "1G", "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 reboot=t"])
        .stdin(Stdio::null())
        .output()
        .expect("qemu-system-x86_64");
    let console = String::from_utf8_lossy(&output.stdout);
    eprintln!("{console}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(console.contains(WELL), "it did not go well inside");
}

/// The newest kernel that has its modules beside it.
fn kernel() -> (PathBuf, PathBuf) {
    let mut kernels: Vec<_> = fs::read_dir("/boot")
        .unwrap()
        .filter_map(|entry| {
            let kernel = entry.ok()?.path();
            let release = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            let modules = Path::new("/lib/modules").join(release).join("kernel");
            modules.join(MODULES[0]).exists().then_some((kernel, modules))
        })
        .collect();
    kernels.sort();
    kernels.pop().expect("a kernel in /boot with its modules (package linux-image-cloud-amd64)")
}

/// The initramfs: busybox's shell as init, the modules, this program, the helper, and their libraries.
fn archive(modules: &Path, scratch: &Path) -> Vec<u8> {
    let root = scratch.join("root");
    for name in ["bin", "dev", "proc", "sys", "state", "run", "boot", "etc"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let mut init = String::from(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc none /proc\nmount -t sysfs none /sys\nmount -t devtmpfs none /dev\n\
         exec >/dev/console 2>&1\nmount -t tmpfs -o size=64m none /state\nmount -t tmpfs none /run\n",
    );
    for module in MODULES {
        let name = Path::new(module).file_name().unwrap().to_str().unwrap();
        fs::copy(modules.join(module), root.join(name)).unwrap();
        init += &format!("insmod /{name}\n");
    }
    init += &format!("/bin/inside inside_the_vm --exact --ignored --nocapture && echo {WELL}\npoweroff -f\n");
    fs::write(root.join("init"), init).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let this = std::env::current_exe().unwrap();
    let helper = this.parent().unwrap().join("../banger-hostd");
    for (program, name) in [(&this, "inside"), (&helper, "banger-hostd")] {
        let to = root.join("bin").join(name);
        let stripped = Command::new("/usr/bin/strip").arg("-o").arg(&to).arg(program).status().unwrap();
        assert!(stripped.success(), "{}", program.display());
        let libraries = Command::new("/usr/bin/ldd").arg(program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
    }
    let pack = "chmod 755 init bin/* && /bin/busybox find . | /bin/busybox cpio -o -H newc";
    let packed = Command::new("/bin/busybox").args(["sh", "-c", pack]).current_dir(&root).output().unwrap();
    assert!(packed.status.success());
    packed.stdout
}

/// The helper, as it runs inside.
struct Hostd(Child);

impl Hostd {
    fn start() -> Self {
        let mut child = Command::new("/bin/banger-hostd")
            .args(["--peer", "0", "--boot", "/boot", "--run", "/run/banger"])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map(Result::unwrap).inspect(|line| eprintln!("hostd: {line}"));
        assert!(ready.into_iter().any(|line| line.contains("listening")), "hostd did not come up");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("hostd: {line}")));
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn ask<T>(verb: impl AsyncFnOnce(&HostClient) -> Result<T, HostError>) -> Result<T, HostError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(verb(&HostClient::new("/run/banger/hostd.sock")))
}

const MIB: u64 = 1 << 20;
const IMAGE: ImageId = ImageId::from_bits(0xabc);
/// Its path names it, as in the service's folder.
const ROOTFS: &str = "/state/0000000000000abc";
const SIZE: Bytes = Bytes::gib(20);
const A: VmId = VmId::from_bits(1);
const B: VmId = VmId::from_bits(2);

fn both(path: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Asks for a VM's disk. Its slot is its id.
fn attach(vm: VmId, cow: &str, size: Bytes) -> Result<(), HostError> {
    let slot: u16 = vm.to_string().trim_start_matches('0').parse().unwrap();
    let slot = Slot::try_from(slot).unwrap();
    let rootfs = OwnedFd::from(File::open(ROOTFS).unwrap());
    let cow = both(cow).into();
    ask(async |host| host.attach_snapshot(vm, slot, SnapshotDisk { image: IMAGE, rootfs, cow, size }).await)
}

fn detach(vm: VmId) {
    ask(async |host| host.detach_disk(vm, DiskNumber::ROOT).await).unwrap();
}

/// The devices of device-mapper, by name.
fn devices() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("dm/name")).ok()?;
            Some((name.trim().to_owned(), Path::new("/dev").join(entry.file_name())))
        })
        .collect();
    found.sort();
    found
}

fn names() -> Vec<String> {
    devices().into_iter().map(|(name, _)| name).collect()
}

fn named(vms: &[VmId]) -> Vec<String> {
    vms.iter().flat_map(|vm| [format!("banger-{vm}"), format!("banger-{vm}-origin")]).collect()
}

/// A VM's disk, open as a VMM has it.
fn disk(vm: VmId) -> File {
    let (_, path) = devices().into_iter().find(|(name, _)| *name == format!("banger-{vm}")).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// How many loop devices are over a file of that name.
fn loops(file: &str) -> usize {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let files = entries.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    files.filter(|path| path.trim() == file).count()
}

/// Waits for what the kernel does on its own time, as long as it takes: the whole VM has a bound.
fn until(what: &str, done: impl Fn() -> bool) {
    eprintln!("until {what}");
    while !done() {
        std::thread::yield_now();
    }
}

fn byte_of_image(offset: u64) -> u8 {
    (offset / 4096 % 251) as u8 + 1
}

/// A chunk of a disk.
fn chunk(disk: &File, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    disk.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
#[ignore = "runs in the VM of device_mapper_in_a_vm"]
fn inside_the_vm() {
    let mut image = both(ROOTFS);
    for offset in (0..8 * MIB).step_by(4096) {
        image.write_all(&[byte_of_image(offset); 4096]).unwrap();
    }
    for name in ["/state/a", "/state/b"] {
        both(name).set_len(cow::file_size(SIZE).0).unwrap();
    }
    let hostd = Hostd::start();
    assert_eq!(ask(async |host| host.probe_disks().await).unwrap(), None);

    eprintln!("== one loop device for two VMs");
    attach(A, "/state/a", SIZE).unwrap();
    attach(B, "/state/b", SIZE).unwrap();
    attach(B, "/state/b", SIZE).unwrap();
    assert_eq!(names(), named(&[A, B]));
    assert_eq!((loops(ROOTFS), loops("/state/a"), loops("/state/b")), (1, 1, 1));

    eprintln!("== both are as large as they were asked to be, and see the image");
    let (mut a, mut b) = (disk(A), disk(B));
    for disk in [&mut a, &mut b] {
        assert_eq!(disk.seek(SeekFrom::End(0)).unwrap(), SIZE.0);
        for offset in [0, 4096, 8 * MIB - 4096] {
            assert_eq!(chunk(disk, offset), [byte_of_image(offset); 4096]);
        }
        for offset in [8 * MIB, 10 << 30, SIZE.0 - 4096] {
            assert_eq!(chunk(disk, offset), [0; 4096], "{offset}");
        }
    }

    eprintln!("== what one writes is its own");
    let before = fs::metadata("/state/b").unwrap().blocks();
    for offset in [0, 3 * 4096, 9 * MIB, 15 << 30, SIZE.0 - 4096] {
        a.write_all_at(&[0xee; 4096], offset).unwrap();
    }
    // Half a chunk: the kernel fills up the rest from below.
    a.write_all_at(&[0xdd; 512], 5 * 4096).unwrap();
    a.sync_all().unwrap();
    b.write_all_at(&[0xbb; 4096], 7 * 4096).unwrap();
    b.sync_all().unwrap();
    drop((a, b));
    let (a, b) = (disk(A), disk(B));
    assert_eq!(chunk(&a, 15 << 30), [0xee; 4096]);
    assert_eq!(chunk(&b, 15 << 30), [0; 4096]);
    assert_eq!(chunk(&b, 3 * 4096), [byte_of_image(3 * 4096); 4096]);
    let mut untouched = Vec::new();
    File::open(ROOTFS).unwrap().read_to_end(&mut untouched).unwrap();
    assert!((0..).zip(&untouched).all(|(at, byte)| *byte == byte_of_image(at)), "the image was written to");
    assert!(fs::metadata("/state/a").unwrap().blocks() * 512 < 64 * 4096, "the file is sparse");
    assert!(fs::metadata("/state/b").unwrap().blocks() >= before);

    eprintln!("== the helper dies: what a VMM holds stays, the rest goes");
    drop(b);
    hostd.kill();
    until("B's disk is gone", || names() == named(&[A]) && loops("/state/b") == 0);
    assert_eq!(loops(ROOTFS), 1);
    let hostd = Hostd::start();
    assert_eq!(names(), named(&[A]), "what is in use was left alone");
    assert_eq!(chunk(&a, 15 << 30), [0xee; 4096]);
    attach(B, "/state/b", SIZE).unwrap();
    assert_eq!(loops(ROOTFS), 1, "the image's loop device was found again");
    assert_eq!(chunk(&disk(B), 7 * 4096), [0xbb; 4096], "what was written is still there");

    eprintln!("== everything goes with the last descriptor");
    drop(a);
    until("A's disk is gone", || names() == named(&[B]) && loops("/state/a") == 0);
    detach(B);
    until("all loop devices are gone", || loops(ROOTFS) + loops("/state/b") == 0);
    assert_eq!(names(), Vec::<String>::new());

    eprintln!("== a disk is read without its device");
    let (file, mut merged) = (File::open("/state/a").unwrap(), Vec::new());
    for written in cow::written(&file, SIZE).unwrap() {
        let written = written.unwrap();
        merged.push((written.disk, chunk(&file, written.file)));
    }
    merged.sort();
    let mut half = vec![byte_of_image(5 * 4096); 4096];
    half[..512].fill(0xdd);
    let full = |offset| (offset, vec![0xee; 4096]);
    let expected =
        [full(0), full(3 * 4096), (5 * 4096, half), full(9 * MIB), full(15 << 30), full(SIZE.0 - 4096)];
    assert_eq!(merged, expected);

    eprintln!("== the host is full");
    attach(A, "/state/a", SIZE).unwrap();
    let mut ballast = both("/state/ballast");
    while ballast.write_all(&[1; 4096]).is_ok() {}
    drop(ballast);
    let a = disk(A);
    let mut failed = false;
    for offset in (MIB..40 * MIB).step_by(4096) {
        failed |= a.write_all_at(&[0xcc; 4096], offset).and_then(|()| a.sync_all()).is_err();
        if failed {
            break;
        }
    }
    assert!(failed, "there was room");
    drop(a);
    detach(A);
    let error = attach(A, "/state/a", SIZE).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::System), "{error}");
    assert!(error.to_string().contains("Invalid"), "{error}");
    until("nothing is left of that", || names().is_empty() && loops(ROOTFS) + loops("/state/a") == 0);
    fs::remove_file("/state/ballast").unwrap();
    assert!(cow::revive(&both("/state/a")).unwrap());
    attach(A, "/state/a", SIZE).unwrap();
    for offset in [3 * 4096, 9 * MIB, 15 << 30] {
        assert_eq!(chunk(&disk(A), offset), [0xee; 4096], "what was written before is there");
    }
    detach(A);

    eprintln!("== a disk as large as its image, and one that is too small");
    fs::remove_file("/state/a").unwrap();
    both("/state/a").set_len(cow::file_size(Bytes(8 * MIB)).0).unwrap();
    assert_eq!(attach(A, "/state/a", Bytes(8 * MIB - 512)).unwrap_err().refusal(), Some(Refusal::Range));
    attach(A, "/state/a", Bytes(8 * MIB)).unwrap();
    let a = disk(A);
    for offset in (0..8 * MIB).step_by(4096) {
        a.write_all_at(&[0x77; 4096], offset).unwrap();
    }
    a.sync_all().unwrap();
    drop(a);
    assert_eq!(chunk(&disk(A), 8 * MIB - 4096), [0x77; 4096], "every byte can be written");
    detach(A);
    until("all is gone", || names().is_empty() && loops(ROOTFS) + loops("/state/a") == 0);
    hostd.kill();
}
