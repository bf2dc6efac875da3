//! What ImportImage and RegisterImage are asked for.

use crate::{
    error,
    ops::{
        import::Import,
        kernels::{Import as KernelImport, Material},
        register::Register,
    },
};
use banger_dbus::{Dict, Error, Options};
use banger_image::{Format, Platform, RunConfig};
use banger_model::{ImageName, KernelName, Uid};
use std::os::fd::OwnedFd;

/// Reads the options of ImportImage.
///
/// # Errors
/// [`Error::InvalidArgs`], [`Error::UnknownOption`] or [`Error::InvalidName`].
pub fn import(input: OwnedFd, name: &str, options: Dict, owner: Uid) -> Result<Import, Error> {
    let mut options = Options::new(options);
    let format: Option<String> = options.take("format")?;
    let platform: Option<String> = options.take("platform")?;
    let default_name: Option<String> = options.take("default-name")?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let name = Some(name).filter(|name| !name.is_empty());
    let request = Import {
        input,
        name: name.map(str::parse).transpose()?,
        default_name: default_name.as_deref().map(str::parse::<ImageName>).transpose()?,
        format: match format {
            Some(format) => format
                .parse()
                .map_err(|_| Error::InvalidArgs("a format is auto, oci, docker, rootfs or ext4".into()))?,
            None => Format::Auto,
        },
        select: options.take("select")?,
        platform: match platform {
            Some(platform) => platform.parse().map_err(error::Error::Image)?,
            None => Platform::host(),
        },
        size: options.take("size")?,
        config: RunConfig {
            entrypoint: options.take_or_default("entrypoint")?,
            cmd: options.take_or_default("command")?,
            env: options.take_or_default("environment")?,
            user: given(options.take("user")?),
            working_dir: given(options.take("working-directory")?),
            ..RunConfig::default()
        },
        owner,
    };
    options.finish()?;
    Ok(request)
}

/// Reads the options of RegisterImage. A kernel that comes along is called as the image is.
///
/// # Errors
/// [`Error::InvalidArgs`], [`Error::UnknownOption`] or [`Error::InvalidName`].
pub fn register(name: &str, options: Dict, owner: Uid) -> Result<Register, Error> {
    let mut options = Options::new(options);
    let rootfs: Option<OwnedFd> = options.take("rootfs")?;
    let kernel: Option<OwnedFd> = options.take("kernel")?;
    let initrd: Option<OwnedFd> = options.take("initrd")?;
    let modules: Option<OwnedFd> = options.take("modules")?;
    let kernel_name: Option<String> = options.take("kernel-name")?;
    options.finish()?;
    let invalid = |text: &str| Error::InvalidArgs(text.into());
    let rootfs = rootfs.ok_or_else(|| invalid("the option \"rootfs\" is missing"))?;
    let name: ImageName = name.parse()?;
    let kernel = match (kernel, &kernel_name) {
        (Some(_), Some(_)) => return Err(invalid("either \"kernel\" or \"kernel-name\", not both")),
        (None, _) if initrd.is_some() || modules.is_some() => {
            return Err(invalid("\"initrd\" and \"modules\" belong to a \"kernel\", which is missing"));
        }
        (Some(kernel), None) => {
            let name: KernelName = name.as_str().parse()?;
            let from = Material::Files { kernel, initrd, modules };
            Some(KernelImport { name, from, owner })
        }
        (None, _) => None,
    };
    let kernel_name = kernel_name.as_deref().map(str::parse).transpose()?;
    Ok(Register { name, rootfs, kernel, kernel_name, owner })
}
