//! The kernels that a VM can have: the host's own and imported ones, each made ready to boot once.

use crate::{
    catalogue,
    error::Error,
    gate::Caller,
    lookup,
    service::Service,
    store::{KernelRow, StoreError},
};
use banger_dbus::Error as Bus;
use banger_host::{VmmKind, seal};
use banger_kernel::{
    HostKernel, KernelError, ModuleFolder, ModuleTar, Modules, build_initramfs, extract_vmlinux,
    host_kernels, join_archives, running_release, settings_archive,
};
use banger_model::{Bytes, KernelId, KernelName};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::OnceCell;
pub use users::Users;

mod users;

/// The name under which the host's preferred kernel is known.
pub const HOST: &str = "host";

/// The module by which a guest is reached by vsock.
const VSOCK: &str = "vmw_vsock_virtio_transport";

/// The files of an imported kernel, in its folder.
pub const VMLINUZ: &str = "vmlinuz";
/// See [`VMLINUZ`].
pub const INITRD: &str = "initrd";
/// See [`VMLINUZ`]: only the modules that a VM needs.
pub const MODULES: &str = "modules.tar";

/// A kernel that a VM can have.
#[derive(Debug, Clone)]
pub enum Kernel {
    /// One of the host's own.
    Host {
        /// Its id, made of its release.
        id: KernelId,
        /// `host` for the preferred one, its release for the others.
        name: String,
        /// What there is of it.
        kernel: HostKernel,
    },
    /// One that somebody imported.
    Imported(KernelRow),
}

impl Kernel {
    /// Its id.
    pub fn id(&self) -> KernelId {
        match self {
            Kernel::Host { id, .. } => *id,
            Kernel::Imported(row) => row.id,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Kernel::Host { name, .. } => name,
            Kernel::Imported(row) => row.name.as_str(),
        }
    }

    /// Its release, as far as it is known.
    pub fn release(&self) -> &str {
        match self {
            Kernel::Host { kernel, .. } => kernel.release.as_str(),
            Kernel::Imported(row) => &row.release,
        }
    }

    /// What is shown of it, to this caller.
    ///
    /// # Errors
    /// When the database fails.
    pub fn info(&self, service: &Service, caller: &Caller) -> Result<banger_dbus::KernelInfo, Error> {
        let users = Users::of(service, self.name())?;
        let (source, size, has_modules, has_initrd) = match self {
            Kernel::Host { kernel, .. } => {
                let size = std::fs::metadata(&kernel.image).map(|m| m.len()).unwrap_or(0);
                (HOST, Bytes(size), true, false)
            }
            Kernel::Imported(row) => ("imported", row.size, row.has_modules, row.has_initrd),
        };
        Ok(banger_dbus::KernelInfo {
            id: self.id(),
            name: self.name().to_owned(),
            release: self.release().to_owned(),
            source: source.to_owned(),
            size,
            has_modules,
            has_initrd,
            default: users.default,
            used_by: users.vms_of(caller.uid),
        })
    }
}

/// Kernels made ready, for as long as what they were made of stays the same.
#[derive(Default)]
pub struct Kernels {
    ready: tokio::sync::Mutex<HashMap<KernelId, (Stamp, Arc<Boot>)>>,
}

/// Tells one version of a set of files from another: size, inode and time of change of each.
#[derive(PartialEq)]
struct Stamp(Vec<(u64, u64, i64, i64)>);

impl Stamp {
    fn of(paths: &[&Path]) -> Self {
        let stamp = |path: &&Path| match std::fs::metadata(path) {
            Ok(m) => (m.len(), m.ino(), m.ctime(), m.ctime_nsec()),
            Err(_) => (0, 0, 0, 0),
        };
        Self(paths.iter().map(stamp).collect())
    }
}

/// A kernel that is ready to boot.
pub struct Boot {
    kernel: OwnedFd,
    /// The same as an uncompressed ELF, once somebody wanted that.
    elf: OnceCell<OwnedFd>,
    initramfs: Vec<u8>,
    /// Whether the guest has what it takes to be reached by vsock.
    pub has_vsock: bool,
}

impl Boot {
    /// The descriptors of a boot: the kernel, and the initramfs with these settings at its end.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub async fn sealed(
        self: &Arc<Self>,
        vmm: VmmKind,
        settings: Vec<u8>,
    ) -> Result<(OwnedFd, OwnedFd), Error> {
        let memory = |error: io::Error| Error::Internal(format!("no memory for the initramfs: {error}"));
        let boot = self.clone();
        let initramfs = tokio::task::spawn_blocking(move || {
            seal("initramfs", |file| {
                file.write_all(&boot.initramfs)?;
                file.write_all(&settings_archive(&settings))
            })
        });
        let kernel = match vmm {
            VmmKind::Qemu => &self.kernel,
            VmmKind::Firecracker => self.elf.get_or_try_init(|| self.unpack()).await?,
        };
        let kernel = kernel.try_clone().map_err(memory)?;
        Ok((kernel, initramfs.await?.map_err(memory)?))
    }

    async fn unpack(&self) -> Result<OwnedFd, Error> {
        let memory = |error: io::Error| Error::Internal(format!("no memory for the kernel: {error}"));
        let kernel = self.kernel.try_clone().map_err(memory)?;
        tokio::task::spawn_blocking(move || {
            let mut refused = None;
            let elf = seal("kernel", |file| {
                let mut file = io::BufWriter::new(file);
                match extract_vmlinux(&mut File::from(kernel), &mut file) {
                    Ok(_) => file.flush(),
                    Err(error) => {
                        refused = Some(error);
                        Err(io::ErrorKind::InvalidData.into())
                    }
                }
            });
            elf.map_err(|error| refused.map_or_else(|| memory(error), Error::from))
        })
        .await?
    }
}

/// The folder of an imported kernel.
pub fn folder(service: &Service, id: KernelId) -> PathBuf {
    service.config.state.join("kernels").join(id.to_string())
}

/// Every kernel: the host's, preferred one first, then imported ones by name.
///
/// # Errors
/// When the database fails.
pub fn all(service: &Service) -> Result<Vec<Kernel>, Error> {
    let found = host_kernels(&service.config.boot, &service.config.modules, &running_release());
    let host = found.into_iter().enumerate().map(|(at, kernel)| Kernel::Host {
        id: host_id(&kernel),
        name: if at == 0 { HOST.to_owned() } else { kernel.release.to_string() },
        kernel,
    });
    Ok(host.chain(service.store.kernels()?.into_iter().map(Kernel::Imported)).collect())
}

/// The kernel that `wanted` means by name, id or prefix of an id.
///
/// # Errors
/// [`KernelError::NoKernel`] when the host's is wanted and there is none; else as [`lookup::find`].
pub fn find(service: &Service, wanted: &str) -> Result<Kernel, Error> {
    let all = all(service)?;
    match lookup::find("kernel", wanted, &all, |k| (k.name().to_owned(), k.id().to_string())) {
        Err(Error::NotFound { .. }) if wanted == HOST => Err(KernelError::NoKernel.into()),
        found => found.cloned(),
    }
}

/// The kernel of a VM: the one that was asked for, else the one that the image's catalogue entry names, else the one
/// that came with the image, else the default. Empty is none.
pub fn choose<'a>(asked: Option<&'a str>, entry: &'a str, own: &'a str, default: &'a str) -> &'a str {
    asked.unwrap_or_else(|| [entry, own].into_iter().find(|name| !name.is_empty()).unwrap_or(default))
}

/// The name of the kernel that a VM gets when nobody says otherwise: what was set last, else what is configured.
///
/// # Errors
/// When the database fails.
pub fn default_name(service: &Service) -> Result<String, Error> {
    Ok(service.store.default_kernel()?.unwrap_or_else(|| service.config.kernel.clone()))
}

/// Makes a kernel the default of every VM that names none; `None` returns to what is configured.
///
/// # Errors
/// As [`find`].
pub fn set_default(service: &Service, wanted: Option<&str>) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(service.store.set_default_kernel(None, None)?) };
    let kernel = find(service, wanted)?;
    let row = match &kernel {
        Kernel::Host { .. } => None,
        Kernel::Imported(row) => Some(row.id),
    };
    // One that is being deleted meanwhile is not there.
    service.store.set_default_kernel(Some(kernel.name()), row).map_err(|error| match error {
        StoreError::Gone => Error::NotFound { what: "kernel", wanted: wanted.to_owned() },
        other => other.into(),
    })
}

/// The kernel that an image wants, or the default where it wants none.
///
/// # Errors
/// [`Bus::KernelRequired`] says how to get it; else as [`find`].
pub fn find_for_image(service: &Service, wanted: &str) -> Result<Kernel, Error> {
    if wanted.is_empty() {
        return find(service, &default_name(service)?);
    }
    find(service, wanted).map_err(|error| match error {
        Error::NotFound { .. } => {
            let text = format!(
                "the image wants the kernel {wanted:?}, which is not here: {}",
                remedy(service, wanted)
            );
            Bus::KernelRequired(text).into()
        }
        other => other,
    })
}

fn remedy(service: &Service, wanted: &str) -> String {
    match catalogue::kernel(service, wanted) {
        Ok(_) => format!("`banger kernel pull {wanted}` brings it"),
        Err(_) => "import it with `banger kernel import`".to_owned(),
    }
}

/// Refuses a name that a kernel has.
///
/// # Errors
/// [`StoreError::Taken`].
pub fn check_name(service: &Service, name: &KernelName) -> Result<(), Error> {
    match all(service)?.iter().any(|kernel| kernel.name() == name.as_str()) || name.as_str() == HOST {
        true => Err(StoreError::Taken { what: "a kernel", name: name.to_string() }.into()),
        false => Ok(()),
    }
}

/// A host kernel's id: the same as long as its release is.
fn host_id(kernel: &HostKernel) -> KernelId {
    let hash = Sha256::digest(format!("host kernel {}", kernel.release));
    let bits = hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    KernelId::from_bits(bits)
}

impl Kernels {
    /// The kernel that a VM names, ready to boot.
    ///
    /// # Errors
    /// When it is not there, or lacks what a VM needs.
    pub async fn boot(&self, service: &Service, wanted: &str) -> Result<Arc<Boot>, Error> {
        let kernel = find(service, wanted)?;
        let files = Files::of(service, &kernel);
        let stamp = files.stamp();
        // Held while one is made, so that ten VMs that start at once make one initramfs.
        let mut ready = self.ready.lock().await;
        if let Some((known, boot)) = ready.get(&kernel.id())
            && *known == stamp
        {
            return Ok(boot.clone());
        }
        let image = match File::open(&files.image) {
            Ok(image) => image,
            Err(error) => match &kernel {
                // Some distributions keep their kernels to root.
                Kernel::Host { kernel, .. } => service.host.open_host_kernel(kernel.release.clone()).await?,
                Kernel::Imported(_) => return Err(Error::disk(&files.image, error)),
            },
        };
        let boot = tokio::task::spawn_blocking(move || files.make(image)).await??;
        let boot = Arc::new(boot);
        ready.insert(kernel.id(), (stamp, boot.clone()));
        Ok(boot)
    }
}

/// Where the parts of a kernel are.
struct Files {
    image: PathBuf,
    modules: Option<PathBuf>,
    initrd: Option<PathBuf>,
    guest: PathBuf,
}

impl Files {
    fn of(service: &Service, kernel: &Kernel) -> Self {
        let guest = service.config.guest.clone();
        match kernel {
            Kernel::Host { kernel, .. } => Self {
                image: kernel.image.clone(),
                modules: Some(kernel.modules.clone()),
                initrd: None,
                guest,
            },
            Kernel::Imported(row) => {
                let folder = folder(service, row.id);
                Self {
                    image: folder.join(VMLINUZ),
                    modules: row.has_modules.then(|| folder.join(MODULES)),
                    initrd: row.has_initrd.then(|| folder.join(INITRD)),
                    guest,
                }
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let index = self.modules.as_ref().map(|modules| match modules.is_dir() {
            true => modules.join("modules.dep"),
            false => modules.clone(),
        });
        let some = [Some(&self.image), index.as_ref(), self.initrd.as_ref(), Some(&self.guest)];
        Stamp::of(&some.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())
    }

    fn make(&self, mut image: File) -> Result<Boot, Error> {
        let modules = match &self.modules {
            None => Modules::none(),
            Some(folder) if folder.is_dir() => Modules::select(&ModuleFolder::open(folder)?)?,
            Some(tar) => {
                let stream = File::open(tar).map_err(|e| Error::disk(tar, e))?;
                let scratch = tempfile(tar.parent())?;
                Modules::select(&ModuleTar::receive(stream, scratch)?)?
            }
        };
        let has_vsock = modules.as_slice().iter().any(|module| module.name == VSOCK);
        let guest = std::fs::read(&self.guest).map_err(|e| Error::disk(&self.guest, e))?;
        let mut initramfs = build_initramfs(&modules, &guest)?;
        if let Some(path) = &self.initrd {
            let initrd = std::fs::read(path).map_err(|e| Error::disk(path, e))?;
            initramfs = join_archives(initrd, &initramfs)?;
        }
        let copy = seal("kernel", |file| io::copy(&mut image, file).map(|_| ()));
        let kernel = copy.map_err(|e| Error::disk(&self.image, e))?;
        Ok(Boot { kernel, elf: OnceCell::new(), initramfs, has_vsock })
    }
}

/// A file without a name that goes when it is closed.
///
/// # Errors
/// When none can be made there.
pub fn tempfile(folder: Option<&Path>) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = folder.unwrap_or(Path::new("/tmp"));
    let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
    let opened = File::options().read(true).write(true).mode(0o600).custom_flags(flags).open(folder);
    opened.map_err(|e| Error::disk(folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;

    #[test]
    fn what_is_asked_for_wins_then_the_entry_then_the_image_then_the_default() {
        for (asked, entry, own, expected) in [
            (Some("a"), "e", "o", "a"),
            (Some("a"), "", "", "a"),
            (None, "e", "o", "e"),
            (None, "e", "", "e"),
            (None, "", "o", "o"),
            (None, "", "", "d"),
        ] {
            assert_eq!(choose(asked, entry, own, "d"), expected, "{asked:?} {entry:?} {own:?}");
        }
    }

    #[tokio::test]
    async fn what_is_set_wins_over_the_configuration_until_it_is_unset() {
        let bench = bench().await;
        let service = &bench.service;
        let configured = service.config.kernel.clone();
        assert_eq!(default_name(service).unwrap(), configured);
        set_default(service, Some("mine")).unwrap();
        assert_eq!(default_name(service).unwrap(), "mine");
        assert!(matches!(set_default(service, Some("none")), Err(Error::NotFound { .. })));
        assert_eq!(default_name(service).unwrap(), "mine");
        // The default is not to be deleted.
        let Kernel::Imported(row) = find(service, "mine").unwrap() else { panic!("it was imported") };
        assert!(matches!(service.store.remove_kernel(&row), Err(StoreError::InUse)));
        set_default(service, None).unwrap();
        assert_eq!(default_name(service).unwrap(), configured);
        service.store.remove_kernel(&row).unwrap();
        assert!(matches!(
            service.store.set_default_kernel(Some("mine"), Some(row.id)),
            Err(StoreError::Gone)
        ));
    }

    #[tokio::test]
    async fn an_image_that_wants_a_kernel_that_is_not_here_says_how_to_get_it() {
        let bench = bench().await;
        let error = find_for_image(&bench.service, "6.1-other").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Named(Bus::KernelRequired(_))), "{text}");
        assert!(text.contains("6.1-other") && text.contains("banger kernel import"), "{text}");
        assert_eq!(find_for_image(&bench.service, "mine").unwrap().name(), "mine");
    }
}
