//! What can go wrong with kernels and their modules.

use std::io;

/// A kernel or its modules cannot be used. The text says which, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The host has no kernel with its modules beside it.
    #[error(
        "no kernel: neither /boot nor /lib/modules has one with its modules beside it; install the \
         distribution's kernel package (Debian: linux-image-cloud-amd64, Ubuntu: linux-image-virtual, Fedora: \
         kernel-core, Arch: linux) or import one: banger kernel import --kernel FILE --modules DIR NAME"
    )]
    NoKernel,
    /// A file is not a kernel that a VM can boot.
    #[error(
        "not a bootable kernel: {why}; a kernel is the vmlinuz (bzImage) or vmlinux (ELF) of a 64-bit x86 Linux"
    )]
    NotAKernel {
        /// What it is instead, or what is wrong with it.
        why: String,
    },
    /// A kernel lacks what every VM needs.
    #[error(
        "kernel {kernel} has no {module}: it is neither among its modules nor built in; use a kernel whose \
         modules are complete (Debian: linux-image-cloud-amd64 has them)"
    )]
    MissingModule {
        /// Which kernel: its release or the folder of its modules.
        kernel: String,
        /// The module, as modprobe(8) names it.
        module: String,
    },
    /// The modules' index is missing or too big.
    #[error(
        "the modules of kernel {kernel} have no usable {file}: {why}; hand over the folder \
         /lib/modules/<release> as depmod(8) left it"
    )]
    Index {
        /// Which kernel.
        kernel: String,
        /// `modules.dep` or `modules.builtin`.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
    /// One module cannot be read.
    #[error("module {path} of kernel {kernel} is not usable: {why}")]
    Module {
        /// Which kernel.
        kernel: String,
        /// The module's path in the folder of modules.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The modules were made for another kernel.
    #[error(
        "the modules are for kernel {modules}, but the kernel is {kernel}: import the two that belong together"
    )]
    Mismatch {
        /// The release that the kernel image names.
        kernel: String,
        /// The release that the modules name.
        modules: String,
    },
    /// A stream of modules is not one, or is too big.
    #[error("the stream of modules cannot be used: {why}")]
    Stream {
        /// What is wrong.
        why: String,
    },
    /// A package is not one of a kernel, or is damaged.
    #[error("the kernel package cannot be used: {why}")]
    Package {
        /// What is wrong, and what to do.
        why: String,
    },
    /// The guest's program is not one.
    #[error("the guest program cannot be used as /init: {why}; reinstall banger")]
    Guest {
        /// What is wrong.
        why: String,
    },
    /// A file is not an initrd.
    #[error("not an initrd: {why}; an initrd is a newc cpio archive, packed or not")]
    NotAnInitrd {
        /// What is wrong.
        why: String,
    },
    /// The archive would be too big for its format or for a VM.
    #[error(
        "the initramfs would be {size} bytes, more than {most}; import a kernel with smaller modules or initrd"
    )]
    TooBig {
        /// How big it would be, in bytes.
        size: u64,
        /// The most that is accepted, in bytes.
        most: u64,
    },
    /// A file could not be read or written.
    #[error("cannot {what}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}
