//! Packages as distributions make them, and as nobody should.

use super::*;
use crate::{Modules, cpio::Archive, unpack::tests as pack};
use proptest::prelude::*;

const RELEASE: &str = "6.12.9+bpo-amd64";

/// A module that says what it needs.
fn module(depends: &str) -> Vec<u8> {
    pack::module(format!("\0depends={depends}\0vermagic={RELEASE} SMP\0").as_bytes())
}

/// A kernel's files below `top`: what a VM needs and one more, as Debian has them.
fn tree(top: &str) -> Vec<(String, Vec<u8>)> {
    let modules: [(&str, &str); 6] = [
        ("drivers/virtio/virtio_mmio.ko.xz", "virtio,virtio_ring"),
        ("drivers/virtio/virtio.ko.xz", "virtio_ring"),
        ("drivers/virtio/virtio_ring.ko.xz", ""),
        ("drivers/block/virtio_blk.ko.xz", "virtio,virtio-ring"),
        ("drivers/char/virtio_console.ko.xz", "virtio"),
        ("sound/unwanted.ko.xz", "nothing_there_is"),
    ];
    let below = |path: &str| format!("{top}lib/modules/{RELEASE}/{path}");
    let mut files = vec![
        ("./boot/config".to_owned(), b"CONFIG".to_vec()),
        (format!("./boot/vmlinuz-{RELEASE}"), b"the kernel".to_vec()),
        (below("modules.builtin"), b"kernel/fs/ext4/ext4.ko\n".to_vec()),
        (below("modules.order"), b"passed over".to_vec()),
    ];
    files.extend(
        modules.map(|(path, depends)| (below(&format!("kernel/{path}")), pack::xz(&module(depends)))),
    );
    files
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn deb(data: &[u8], name: &str) -> Vec<u8> {
    ar::tests::archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"control"), (name, data)])
}

fn rpm(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::new(0);
    for (path, data) in files {
        archive.file(path, 0o644, data);
    }
    rpm::tests::package(&pack::zst(&archive.finish()))
}

fn read(packages: &[Vec<u8>]) -> Result<PackagedKernel, String> {
    let mut kernel = KernelPackage::new(tempfile::tempfile().unwrap());
    for package in packages {
        kernel.add(&package[..]).map_err(|e| e.to_string())?;
    }
    kernel.finish().map_err(|e| e.to_string())
}

/// What a VM gets of it: the kernel, and its modules in order.
#[track_caller]
fn taken(packages: &[Vec<u8>]) -> (Vec<u8>, Vec<String>) {
    let kernel = read(packages).unwrap();
    let mut bytes = Vec::new();
    assert_eq!(kernel.write_kernel(&mut bytes).unwrap(), bytes.len() as u64);
    let modules = Modules::select(&kernel).unwrap();
    assert_eq!(modules.release(), Some(RELEASE));
    (bytes, modules.as_slice().iter().map(|module| module.name.clone()).collect())
}

const ORDER: [&str; 5] = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console"];

#[test]
fn every_kind_of_package_gives_the_kernel_and_its_modules() {
    let debian = tar(&tree("./"));
    let merged = tar(&tree("./usr/"));
    let packages = [
        deb(&pack::xz(&debian), "data.tar.xz"),
        deb(&pack::zst(&merged), "data.tar.zst"),
        deb(&debian, "data.tar"),
        rpm(&tree("./")),
        pack::zst(&merged),
        debian,
    ];
    for package in packages {
        let (kernel, modules) = taken(&[package]);
        assert_eq!(kernel, b"the kernel");
        assert_eq!(modules, ORDER);
    }
}

#[test]
fn a_kernel_may_be_split_over_packages() {
    let mut core = tree("./");
    let mut modules: Vec<_> = core.split_off(3);
    // As Fedora's kernel-core: the kernel beside its modules, which are elsewhere.
    core[1].0 = format!("./lib/modules/{RELEASE}/vmlinuz");
    let core_alone = Modules::select(&read(&[rpm(&core)]).unwrap()).unwrap_err().to_string();
    assert!(core_alone.contains("no virtio_mmio"), "{core_alone}");
    assert_eq!(taken(&[rpm(&core), rpm(&modules)]).1, ORDER);
    assert_eq!(taken(&[rpm(&modules), rpm(&core)]).1, ORDER);
    modules.push(("./boot/vmlinuz-6.1.0-1".into(), b"another".to_vec()));
    let error = read(&[rpm(&core), rpm(&modules)]).unwrap_err();
    assert!(error.contains("2 kernels") && error.contains("6.1.0-1"), "{error}");
}

#[test]
fn an_index_that_came_with_it_is_taken() {
    let mut files = tree("./");
    let dep = "kernel/sound/unwanted.ko.xz:\n".to_owned();
    files.push((format!("./lib/modules/{RELEASE}/modules.dep"), dep.into_bytes()));
    let error = Modules::select(&read(&[rpm(&files)]).unwrap()).unwrap_err().to_string();
    assert!(error.contains("no virtio_mmio"), "{error}");
}

#[test]
fn a_bundle_may_have_an_initrd_and_no_modules() {
    let files = [("vmlinuz".to_owned(), b"all built in".to_vec()), ("initrd".to_owned(), b"070701".to_vec())];
    let kernel = read(&[pack::zst(&tar(&files))]).unwrap();
    assert!(!kernel.has_modules() && kernel.has_initrd());
    let mut initrd = Vec::new();
    kernel.write_initrd(&mut initrd).unwrap();
    assert_eq!(initrd, b"070701");
    assert!(!read(&[deb(&tar(&tree("./")), "data.tar")]).unwrap().has_initrd());
}

#[test]
fn what_is_no_kernel_is_refused_with_a_remedy() {
    let without = |word: &str| {
        let files: Vec<_> = tree("./").into_iter().filter(|(path, _)| !path.contains(word)).collect();
        deb(&tar(&files), "data.tar")
    };
    let mut two = tree("./");
    two.push(("./lib/modules/6.1.0/kernel/x.ko".into(), vec![1]));
    let cut = |package: Vec<u8>| package[..package.len() / 2].to_vec();
    for (package, word) in [
        (vec![], "no boot/vmlinuz"),
        (b"PK\x03\x04 a zip archive, or whatever it is".repeat(40), "no .deb, .rpm or tar"),
        (without("vmlinuz"), "linux-image"),
        (without("modules"), "linux-modules"),
        (rpm(&two), "modules of 2 kernels"),
        (deb(b"BZh91AY", "data.tar.bz2"), "bzip2"),
        (ar::tests::archive(&[("debian-binary", b"2.0\n")]), "no data.tar"),
        (cut(deb(&tar(&tree("./")), "data.tar")), "ends early"),
        (cut(rpm(&tree("./"))), ""),
    ] {
        let error = read(&[package]).unwrap_err();
        assert!(
            error.starts_with("the kernel package cannot be used") && error.contains(word),
            "{word}: {error}"
        );
    }
}

#[test]
fn a_kernel_too_big_is_refused_unread() {
    let mut header = ::tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"vmlinuz");
    header.set_size(MOST_FILE + 1);
    header.set_cksum();
    let endless = Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(1));
    let mut kernel = KernelPackage::new(tempfile::tempfile().unwrap());
    let error = kernel.add(endless).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn hostile_paths_are_nothing_to_us() {
    for path in [
        "../vmlinuz",
        "boot/../vmlinuz",
        "boot/vmlinuz-",
        "boot/vmlinuz-a/b",
        "boot/x/vmlinuz-1",
        "vmlinuz/x",
        "lib/modules//vmlinuz",
        "lib/modules/../x.ko",
        "lib/modules/a.ko",
        "lib/modules/1/../a.ko",
        "etc/initrd",
        "usr/boot/vmlinuz-1",
        "usr/vmlinuz",
        "lib/modules/1/notes",
        "usr/lib/debug/lib/modules/1/vmlinuz",
    ] {
        assert_eq!(part(path.as_bytes()), None, "{path}");
    }
    for (path, expected) in [
        ("./usr/lib/modules/1/vmlinuz", Part::Kernel("1".into())),
        ("/boot/vmlinuz-1", Part::Kernel("1".into())),
        ("./vmlinuz", Part::Kernel(String::new())),
        ("usr/lib/modules/1/kernel/a.ko", Part::Module("lib/modules/1/kernel/a.ko".into())),
        ("lib/modules/1/modules.dep", Part::Module("lib/modules/1/modules.dep".into())),
    ] {
        assert_eq!(part(path.as_bytes()), Some(expected), "{path}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..1500)
    ) {
        let package = match kind {
            0 => bytes,
            1 => deb(&bytes, "data.tar"),
            2 => rpm::tests::package(&bytes),
            _ => pack::zst(&bytes),
        };
        let _ = read(&[package]);
    }

    #[test]
    fn arbitrary_paths_never_panic(path in "[a-z./\0ä]{0,40}") {
        let _ = part(path.as_bytes());
        let _ = part(format!("lib/modules/{path}").as_bytes());
    }

    /// One byte of a package is another: it is refused, or gives what it gives; it never panics.
    #[test]
    fn a_damaged_package_never_panics(at: prop::sample::Index, byte: u8) {
        let mut package = deb(&tar(&tree("./")), "data.tar");
        let at = at.index(package.len());
        package[at] = byte;
        let _ = read(&[package]).map(|kernel| Modules::select(&kernel).is_ok());
    }
}
