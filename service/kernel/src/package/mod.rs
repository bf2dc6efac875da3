//! A distribution's kernel package: Debian's (`.deb`), Fedora's and SUSE's (`.rpm`), Arch's and our own bundles
//! (`.tar`, packed or not). Some distributions split a kernel over several packages.
//!
//! A package is read once, in order, and nothing of it is run or extracted by name: the kernel, its initrd and its
//! modules go to a scratch file.

mod ar;
mod cpio;
mod payload;
mod rpm;

use crate::{
    KernelError, ModuleSource,
    depend::derive,
    scratch::{Scratch, refused, stream_error},
    select::MOST_MODULE,
    stream::{Bounded, MOST_STREAM, wanted},
    tarball,
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Cursor, Read, Write},
};

/// The biggest kernel or initrd, in bytes.
const MOST_FILE: u64 = 256 << 20;
/// The names that a bundle's files have, and that files get here.
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd";
/// Where a kernel's modules are, in a folder per release.
const MODULES: &str = "lib/modules/";

/// A kernel of which packages are being read.
#[derive(Debug)]
pub struct KernelPackage {
    files: Scratch,
    /// The releases of the kernels that were met; of a bundle's own, nothing.
    kernels: BTreeSet<String>,
}

/// A kernel out of its packages.
#[derive(Debug)]
pub struct PackagedKernel {
    files: Scratch,
    /// The folder of its modules, with a final `/`.
    folder: Option<String>,
    /// `modules.dep`, when the package leaves it to depmod(8).
    dep: Option<Vec<u8>>,
}

/// What a file of a package is to us.
#[derive(Debug, PartialEq)]
enum Part {
    /// The kernel of this release.
    Kernel(String),
    Initrd,
    /// A module or an index of modules, at this path.
    Module(String),
}

impl KernelPackage {
    /// Keeps what is read in `scratch`, an empty file that nobody else has.
    pub fn new(scratch: File) -> Self {
        Self { files: Scratch::new(scratch), kernels: BTreeSet::new() }
    }

    /// Reads one package: a Debian or RPM package, or a tar archive with `vmlinuz`, `initrd` and
    /// `lib/modules/<release>`, each of them packed in any usual way. The stream may be left before its end.
    ///
    /// # Errors
    /// [`KernelError::Package`] when it is no package, or is damaged or beyond a bound; [`KernelError::Io`] when the
    /// scratch file cannot be written.
    pub fn add(&mut self, package: impl Read) -> Result<(), KernelError> {
        self.read(package).map_err(|error| match error {
            KernelError::Stream { why } => KernelError::Package { why },
            other => other,
        })
    }

    fn read(&mut self, package: impl Read) -> Result<(), KernelError> {
        let mut package = Bounded { inner: package, left: MOST_STREAM };
        let mut head = Vec::new();
        package.by_ref().take(8).read_to_end(&mut head).map_err(refused)?;
        let mut stream = Cursor::new(&head[..]).chain(package);
        let keep = &mut |path: &[u8], size: u64, from: &mut dyn Read| self.keep(path, size, from);
        if head.starts_with(ar::MAGIC) {
            let left = ar::find(&mut stream, "data.tar")?;
            return tarball::each_file(payload::unpacked(Exactly { inner: stream, left })?, keep);
        }
        if head.starts_with(rpm::MAGIC) {
            rpm::payload(&mut stream)?;
            return cpio::each_file(payload::unpacked(stream)?, keep);
        }
        tarball::each_file(payload::unpacked(stream)?, keep).map_err(|error| match error {
            KernelError::Stream { why } => {
                stream_error(format!("it is no .deb, .rpm or tar archive of a kernel ({why})"))
            }
            other => other,
        })
    }

    fn keep(&mut self, path: &[u8], size: u64, from: &mut dyn Read) -> Result<(), KernelError> {
        let (path, most) = match part(path) {
            None => return Ok(()),
            Some(Part::Module(path)) => (path, MOST_MODULE),
            Some(Part::Initrd) => (INITRD.to_owned(), MOST_FILE),
            Some(Part::Kernel(release)) => {
                self.kernels.insert(release);
                (KERNEL.to_owned(), MOST_FILE)
            }
        };
        if size > most {
            return Err(stream_error(format!("its {path} has {size} bytes, more than {most}")));
        }
        self.files.add(path, from, size)
    }

    /// What the packages hold together.
    ///
    /// # Errors
    /// [`KernelError::Package`] when that is not one kernel with its modules.
    pub fn finish(self) -> Result<PackagedKernel, KernelError> {
        let folder = self.folder().map_err(|why| KernelError::Package { why })?;
        PackagedKernel { files: self.files, folder, dep: None }.with_index()
    }

    /// The one folder of the one kernel's modules, if there is one, or what is wrong.
    fn folder(&self) -> Result<Option<String>, String> {
        let kernels: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
        let release = match kernels.as_slice() {
            [one] => one,
            [] => {
                return Err(
                    "it has no boot/vmlinuz-* and no lib/modules/*/vmlinuz: give the package that holds the \
                            kernel itself (Debian: linux-image-…, Fedora: kernel-core)"
                        .into(),
                );
            }
            many => return Err(format!("it holds {} kernels: {}", many.len(), many.join(", "))),
        };
        let mut folders: Vec<&str> = self.files.paths().filter_map(folder).collect();
        folders.dedup();
        match folders.as_slice() {
            [one] => Ok(Some((*one).to_owned())),
            // A bundle's kernel may have everything built in.
            [] if release.is_empty() => Ok(None),
            [] => Err(
                "it has no modules: give the package that has them too (Ubuntu: linux-modules-…, Fedora: \
                       kernel-modules-core)"
                    .into(),
            ),
            many => Err(format!("it holds the modules of {} kernels: {}", many.len(), many.join(", "))),
        }
    }
}

impl PackagedKernel {
    /// Works out `modules.dep` when it did not come.
    fn with_index(mut self) -> Result<Self, KernelError> {
        let Some(folder) = self.folder.clone() else { return Ok(self) };
        if !self.files.paths().any(|path| path.strip_prefix(&folder) == Some("modules.dep")) {
            let paths = self.files.paths().filter_map(|path| path.strip_prefix(&folder));
            self.dep = Some(derive(&self.kernel(), paths, |path, most| self.read(path, most))?.into_bytes());
        }
        Ok(self)
    }

    /// Whether modules came with it.
    pub fn has_modules(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether an initrd came with it.
    pub fn has_initrd(&self) -> bool {
        self.files.paths().any(|path| path == INITRD)
    }

    /// Writes the kernel; tells its size.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_kernel(&self, to: &mut impl Write) -> io::Result<u64> {
        self.files.copy(KERNEL, to)
    }

    /// Writes the initrd, if there is one; tells its size.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_initrd(&self, to: &mut impl Write) -> io::Result<u64> {
        self.files.copy(INITRD, to)
    }
}

impl ModuleSource for PackagedKernel {
    fn kernel(&self) -> String {
        let folder = self.folder.as_deref().unwrap_or_default();
        folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
    }

    fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        match (&self.folder, &self.dep) {
            (None, _) => Ok(None),
            (_, Some(dep)) if path == "modules.dep" => Ok(Some(dep.clone())),
            (Some(folder), _) => self.files.read(&format!("{folder}{path}"), most),
        }
    }
}

/// What the file at `path` of a package is. Distributions that have merged `/usr` say `usr/lib` for `lib`.
fn part(path: &[u8]) -> Option<Part> {
    let path = path.strip_prefix(b"./").or(path.strip_prefix(b"/")).unwrap_or(path);
    let path = path.strip_prefix(b"usr/").filter(|rest| rest.starts_with(b"lib/")).unwrap_or(path);
    let text = std::str::from_utf8(path).ok()?;
    let one = |name: &str| (!name.is_empty() && !name.contains('/')).then(|| Part::Kernel(name.to_owned()));
    if text == KERNEL {
        return Some(Part::Kernel(String::new()));
    }
    if text == INITRD {
        return Some(Part::Initrd);
    }
    if let Some(release) = text.strip_prefix("boot/vmlinuz-") {
        return one(release);
    }
    let below = text.strip_prefix(MODULES)?;
    if let Some(release) = below.strip_suffix("/vmlinuz") {
        return one(release);
    }
    let path = wanted(path)?;
    folder(&path)?;
    Some(Part::Module(path))
}

/// So many bytes of a reader, and not one less: tar has no opinion about an archive that stops between two files.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buffer.len() as u64) as usize;
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends early"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Reads past `count` bytes.
fn skip(stream: &mut impl Read, count: u64) -> Result<(), KernelError> {
    match io::copy(&mut stream.take(count), &mut io::sink()).map_err(refused)? {
        skipped if skipped == count => Ok(()),
        _ => Err(stream_error("it ends early")),
    }
}

/// The folder of a kernel's modules in which `path` is, with its final `/`.
fn folder(path: &str) -> Option<&str> {
    let below = path.strip_prefix(MODULES)?;
    let end = below.find('/')?;
    Some(&path[..MODULES.len() + end + 1])
}

#[cfg(test)]
mod tests;
