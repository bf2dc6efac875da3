//! Shows what a kernel package gives a VM: `cargo run -p banger-kernel --example package -- PACKAGE…`.

use banger_kernel::{KernelPackage, Modules};
use std::{error::Error, fs::File, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut kernel = KernelPackage::new(tempfile::tempfile()?);
    for path in std::env::args().skip(1) {
        kernel.add(File::open(path)?)?;
    }
    let kernel = kernel.finish()?;
    let size = kernel.write_kernel(&mut std::io::sink())?;
    let modules = if kernel.has_modules() { Modules::select(&kernel)? } else { Modules::none() };
    println!("kernel: {size} bytes, release {:?}, {:?}", modules.release(), begun.elapsed());
    for module in modules.as_slice() {
        println!("{:>9} {}", module.data.len(), module.name);
    }
    Ok(())
}
