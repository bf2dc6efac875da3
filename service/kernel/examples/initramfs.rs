//! Writes the initramfs of a kernel, to look at or to boot by hand. MODULES is a folder or a tar file:
//!
//! `cargo run -p banger-kernel --example initramfs -- /lib/modules/RELEASE GUEST [INITRD] > initramfs`

use banger_kernel::{ModuleFolder, ModuleTar, Modules, build_initramfs, join_archives};
use std::{env, error::Error, fs, fs::File, io, io::Write, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [source, guest, initrd @ ..] = &arguments[..] else {
        return Err("usage: initramfs MODULES GUEST [INITRD]".into());
    };
    let source = Path::new(source);
    let modules = match source.is_dir() {
        true => Modules::select(&ModuleFolder::open(source)?)?,
        false => Modules::select(&ModuleTar::receive(File::open(source)?, tempfile::tempfile()?)?)?,
    };
    for module in modules.as_slice() {
        eprintln!("{:>9} {}", module.data.len(), module.name);
    }
    let mut archive = build_initramfs(&modules, &fs::read(guest)?)?;
    if let [initrd] = initrd {
        archive = join_archives(fs::read(initrd)?, &archive)?;
    }
    Ok(io::stdout().lock().write_all(&archive)?)
}
