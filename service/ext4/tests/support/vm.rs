//! Runs a script as root of a small VM: QEMU's emulation and a distribution's kernel from /boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "/bin/busybox";
const RESIZE2FS: &str = "/usr/sbin/resize2fs";
/// In the order in which they load.
const MODULES: [&str; 6] = [
    "virtio/virtio_ring.ko",
    "virtio/virtio.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "block/virtio_blk.ko",
];

/// Runs `script` in busybox's shell, with resize2fs there and `disk` as /dev/vda. Returns what the console
/// showed.
pub fn run_with_disk(disk: &Path, script: &str) -> String {
    let (kernel, modules) = kernel();
    let folder = tempfile::tempdir().unwrap();
    let initramfs = folder.path().join("initramfs");
    fs::write(&initramfs, archive(&modules, script)).unwrap();
    // q35 has clocks that a kernel finds even on a busy machine. A guest that hangs all the same must end.
    let output = Command::new("/usr/bin/timeout")
        .args(["900", QEMU])
        .args(["-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "512M", "-smp", "1"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        // Its clock is up to a second off, and e2fsck remarks on what was written in the future.
        .args(["-rtc", "base=2024-01-01T00:00:00"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 reboot=t"])
        .arg("-blockdev")
        .arg(format!("driver=file,node-name=disk,cache.no-flush=on,filename={}", disk.display()))
        .args(["-device", "virtio-blk-pci,drive=disk"])
        .stdin(Stdio::null())
        .output()
        .expect("qemu-system-x86_64 (package qemu-system-x86)");
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}\n{console}", output.status);
    console
}

/// The newest kernel that has its modules beside it.
fn kernel() -> (PathBuf, PathBuf) {
    let mut kernels: Vec<_> = fs::read_dir("/boot")
        .expect("/boot")
        .filter_map(|entry| {
            let kernel = entry.ok()?.path();
            let release = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            let modules = Path::new("/lib/modules").join(release);
            modules.join("kernel/drivers/block/virtio_blk.ko").exists().then_some((kernel, modules))
        })
        .collect();
    kernels.sort();
    kernels.pop().expect("a kernel in /boot with its modules (package linux-image-cloud-amd64)")
}

fn archive(modules: &Path, script: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    for folder in ["bin", "dev", "mnt", "proc", "lib", "lib64"] {
        entry(&mut archive, folder, 0o040_755, &[]);
    }
    let mut init = String::from(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc none /proc\nmount -t devtmpfs none /dev\nexec >/dev/console 2>&1\n",
    );
    for module in MODULES {
        let name = Path::new(module).file_name().unwrap().to_str().unwrap();
        let file = modules.join("kernel/drivers").join(module);
        entry(&mut archive, name, 0o100_644, &fs::read(file).unwrap());
        init += &format!("insmod /{name}\n");
    }
    init += &format!("{script}\nsync\nreboot -f\n");
    entry(&mut archive, "init", 0o100_755, init.as_bytes());
    entry(&mut archive, "bin/busybox", 0o100_755, &fs::read(BUSYBOX).expect("package busybox-static"));
    entry(&mut archive, "bin/resize2fs", 0o100_755, &fs::read(RESIZE2FS).expect("package e2fsprogs"));
    let libraries = Command::new("/usr/bin/ldd").arg(RESIZE2FS).output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let folder = if library.contains("/ld-linux") { "lib64" } else { "lib" };
        let name = Path::new(library).file_name().unwrap().to_str().unwrap();
        entry(&mut archive, &format!("{folder}/{name}"), 0o100_755, &fs::read(library).unwrap());
    }
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

/// One file of a newc archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let fields = [
        archive.len() as u32 + 1, // inode
        mode,
        0,
        0,
        1, // links
        0,
        content.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
