//! Takes from all of a kernel's modules the ones that a VM needs.

use crate::{
    KernelError, ModuleSource,
    index::{ModuleIndex, module_name},
    needs::NEEDS,
    unpack::{unpack_module, vermagic},
};
use std::io::{self, Write};

/// The biggest `modules.dep` or `modules.builtin`, in bytes; distributions' are below 1 MiB.
const MOST_INDEX: u64 = 16 << 20;
/// The biggest module, packed or not, in bytes; `ext4` with debug symbols has about 20 MiB.
pub(crate) const MOST_MODULE: u64 = 64 << 20;
/// The most that all modules together may take in the guest's memory, in bytes; usually it is 1 to 3 MiB.
const MOST_TOTAL: u64 = 128 << 20;

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The unpacked ELF file.
    pub data: Vec<u8>,
}

/// The modules that a VM needs, each after the ones that it depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modules {
    list: Vec<Module>,
    release: Option<String>,
}

impl Modules {
    /// No modules, for a kernel that has everything built in.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes from `source` what a VM needs, unpacked.
    ///
    /// # Errors
    /// [`KernelError::MissingModule`] when something that every VM needs is neither a module nor built in;
    /// [`KernelError::Index`] and [`KernelError::Module`] when a file is missing, too big or not what its name
    /// says.
    pub fn select(source: &impl ModuleSource) -> Result<Self, KernelError> {
        let kernel = source.kernel();
        let dep = index_file(source, &kernel, "modules.dep")?;
        let builtin = index_file(source, &kernel, "modules.builtin")?;
        let index = ModuleIndex::parse(kernel.clone(), &dep, &builtin);
        let mut modules = Self::none();
        let mut total = 0;
        for path in index.load_order(NEEDS)? {
            let broken =
                |why: String| KernelError::Module { kernel: kernel.clone(), path: path.to_owned(), why };
            let packed = source
                .read(path, MOST_MODULE)
                .map_err(|error| broken(error.to_string()))?
                .ok_or_else(|| broken("modules.dep lists it, but it is not there".into()))?;
            let data = unpack_module(packed, MOST_MODULE).map_err(broken)?;
            total += data.len() as u64;
            if total > MOST_TOTAL {
                return Err(KernelError::TooBig { size: total, most: MOST_TOTAL });
            }
            modules.release = modules.release.or_else(|| vermagic(&data));
            let name = module_name(path).unwrap_or_else(|| path.to_owned());
            modules.list.push(Module { name, data });
        }
        Ok(modules)
    }

    /// The modules in the order of loading.
    pub fn as_slice(&self) -> &[Module] {
        &self.list
    }

    /// The release that the modules were built for, as far as one of them tells.
    pub fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// Checks that these modules load into the kernel called `release`.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] when they were built for another one.
    pub fn check_release(&self, release: &str) -> Result<(), KernelError> {
        match &self.release {
            Some(modules) if modules != release => {
                Err(KernelError::Mismatch { kernel: release.to_owned(), modules: modules.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Writes these modules alone as a tar stream that [`crate::ModuleTar`] reads: a few MiB of a tree that
    /// may have hundreds. The same modules give the same bytes.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_tar(&self, out: impl Write) -> io::Result<()> {
        let folder = self.release.as_deref().unwrap_or(".");
        let mut dep = String::new();
        let mut needs = String::new();
        for module in &self.list {
            let file = format!("kernel/{}.ko", module.name);
            // Each after all before it: more than it needs, but the very order that was found.
            dep += &format!("{file}:{needs}\n");
            needs = format!(" {file}{needs}");
        }
        // What is not among them was built in, or is optional and missing, which built in does no harm to.
        let missing = NEEDS.iter().filter(|need| self.list.iter().all(|module| module.name != need.name));
        let builtin: String = missing.map(|need| format!("kernel/{}.ko\n", need.name)).collect();

        let mut tar = tar::Builder::new(out);
        let mut append = |path: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{folder}/{path}"), data)
        };
        append("modules.dep", dep.as_bytes())?;
        append("modules.builtin", builtin.as_bytes())?;
        for module in &self.list {
            append(&format!("kernel/{}.ko", module.name), &module.data)?;
        }
        tar.into_inner()?.flush()
    }
}

fn index_file(source: &impl ModuleSource, kernel: &str, file: &'static str) -> Result<Vec<u8>, KernelError> {
    let why = match source.read(file, MOST_INDEX) {
        Ok(Some(bytes)) => return Ok(bytes),
        Ok(None) => "it is not there".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(KernelError::Index { kernel: kernel.to_owned(), file, why })
}
