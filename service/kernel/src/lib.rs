//! Finds kernels and builds the initramfs that boots any image.
//!
//! A kernel is the host's own or an imported one. Of its modules, [`Modules::select`] takes the few that a
//! microVM needs, whether they lie in a folder ([`ModuleFolder`]), came as a tar stream ([`ModuleTar`]) or in a
//! distribution's package ([`KernelPackage`]); [`build_initramfs`] packs them with the guest's init, and [`settings_archive`] adds what one VM is told.

mod cpio;
mod depend;
mod elf;
mod error;
mod host;
mod image;
mod index;
mod initramfs;
mod needs;
mod package;
mod scratch;
mod select;
mod source;
mod stream;
mod tarball;
mod unpack;
mod version;
mod vmlinux;

pub use error::KernelError;
pub use host::{HostKernel, default_kernel, host_kernels, running_release, system_kernels};
pub use image::{ImageFormat, KernelImage};
pub use initramfs::{build_initramfs, join_archives, settings_archive};
pub use package::{KernelPackage, PackagedKernel};
pub use select::{Module, Modules};
pub use source::{ModuleFolder, ModuleSource};
pub use stream::ModuleTar;
pub use unpack::Compression;
pub use version::compare_releases;
pub use vmlinux::extract_vmlinux;
