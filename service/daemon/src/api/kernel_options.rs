//! What ImportKernel is given: files, or a distribution's packages.

use crate::ops::kernels::Material;
use banger_dbus::{Dict, Error, Options};
use std::os::fd::OwnedFd;

/// The most packages of one kernel; Fedora's modules are in up to five.
const MOST_PACKAGES: usize = 16;

/// Reads the options.
///
/// # Errors
/// [`Error::InvalidArgs`] or [`Error::UnknownOption`].
pub fn read(options: Dict) -> Result<Material, Error> {
    let mut options = Options::new(options);
    let kernel: Option<OwnedFd> = options.take("kernel")?;
    let initrd: Option<OwnedFd> = options.take("initrd")?;
    let modules: Option<OwnedFd> = options.take("modules")?;
    let package: Option<OwnedFd> = options.take("package")?;
    let mut packages: Vec<OwnedFd> = options.take_or_default("packages")?;
    options.finish()?;
    packages.extend(package);
    if packages.len() > MOST_PACKAGES {
        return Err(Error::InvalidArgs(format!("a kernel is made of at most {MOST_PACKAGES} packages")));
    }
    match (kernel, packages.is_empty()) {
        (Some(kernel), true) => Ok(Material::Files { kernel, initrd, modules }),
        (None, false) if initrd.is_none() && modules.is_none() => Ok(Material::Packages(packages)),
        (None, true) => Err(Error::InvalidArgs("give either the option \"kernel\" or \"package\"".into())),
        _ => Err(Error::InvalidArgs(
            "\"package\" stands for itself: no kernel, initrd or modules beside it".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_dbus::DictWriter;

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn files_or_packages() {
        let files = DictWriter::new().with("kernel", file()).with("modules", file()).done();
        assert!(matches!(read(files), Ok(Material::Files { initrd: None, modules: Some(_), .. })));
        for (dict, count) in [
            (DictWriter::new().with("package", file()), 1),
            (DictWriter::new().with("packages", vec![file(), file()]), 2),
            (DictWriter::new().with("packages", vec![file()]).with("package", file()), 2),
        ] {
            match read(dict.done()) {
                Ok(Material::Packages(packages)) => assert_eq!(packages.len(), count),
                _ => panic!("{count}"),
            }
        }
        let many: Vec<OwnedFd> = (0..=MOST_PACKAGES).map(|_| file()).collect();
        for dict in [
            DictWriter::new(),
            DictWriter::new().with("initrd", file()),
            DictWriter::new().with("kernel", file()).with("package", file()),
            DictWriter::new().with("package", file()).with("modules", file()),
            DictWriter::new().with("packages", many),
        ] {
            assert!(matches!(read(dict.done()), Err(Error::InvalidArgs(_))));
        }
    }
}
