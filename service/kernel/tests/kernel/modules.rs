//! Modules out of folders and streams, whatever their packing.

use crate::tree::{self, Packing};
use banger_kernel::{KernelError, ModuleFolder, ModuleTar, Modules};
use std::{fs, io::Cursor, path::Path};

fn names(modules: &Modules) -> Vec<&str> {
    modules.as_slice().iter().map(|module| module.name.as_str()).collect()
}

fn select(folder: &Path) -> Result<Modules, KernelError> {
    Modules::select(&ModuleFolder::open(folder).unwrap())
}

fn receive(stream: &[u8]) -> Result<ModuleTar, KernelError> {
    ModuleTar::receive(Cursor::new(stream), tempfile::tempfile().unwrap())
}

/// A tar stream of `folder` whose entries are under `top`.
fn tar_of(folder: &Path, top: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(top, folder).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_folder_gives_the_same_modules_however_they_are_packed() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let modules = select(&tree::write(dir.path(), packing)).unwrap();
        assert_eq!(names(&modules), tree::ORDER, "{packing:?}");
        for module in modules.as_slice() {
            assert_eq!(module.data, tree::module(&module.name), "{packing:?} {}", module.name);
        }
        assert_eq!(modules.release(), Some(tree::RELEASE));
    }
}

#[test]
fn a_stream_gives_what_its_folder_gives() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tree::write(dir.path(), Packing::Xz);
    std::os::unix::fs::symlink("/usr/src", folder.join("build")).unwrap();
    let expected = select(&folder).unwrap();
    for top in [".", tree::RELEASE, "lib/modules/6.1.0-test"] {
        assert_eq!(Modules::select(&receive(&tar_of(&folder, top)).unwrap()).unwrap(), expected, "{top}");
    }
}

#[test]
fn long_paths_arrive_in_both_spellings() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tree::write(dir.path(), Packing::Plain);
    let expected = select(&folder).unwrap();
    let top = format!("{}/{}", "deep".repeat(30), tree::RELEASE);
    let gnu = tar_of(&folder, &top);
    assert_eq!(Modules::select(&receive(&gnu).unwrap()).unwrap(), expected, "GNU");

    let mut pax = tar::Builder::new(Vec::new());
    let mut files: Vec<_> = tree::GRAPH.iter().map(|(path, _)| format!("kernel/{path}.ko")).collect();
    files.extend(["modules.dep".into(), "modules.builtin".into()]);
    for file in files {
        let data = fs::read(folder.join(&file)).unwrap();
        let path = format!("{top}/{file}");
        pax.append_pax_extensions([("path", path.as_bytes()), ("comment", &b"x"[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_path("cut").unwrap();
        header.set_cksum();
        pax.append(&header, &data[..]).unwrap();
    }
    let pax = pax.into_inner().unwrap();
    assert_eq!(Modules::select(&receive(&pax).unwrap()).unwrap(), expected, "PAX");
}

#[test]
fn the_slim_stream_holds_the_same_modules_and_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let modules = select(&tree::write(dir.path(), Packing::Zstd)).unwrap();
    let mut first = Vec::new();
    modules.write_tar(&mut first).unwrap();
    let again = Modules::select(&receive(&first).unwrap()).unwrap();
    assert_eq!(again, modules);
    let mut second = Vec::new();
    again.write_tar(&mut second).unwrap();
    assert!(first == second);
}

#[test]
fn a_kernel_without_a_needed_module_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tree::write(dir.path(), Packing::Plain);
    fs::write(folder.join("modules.builtin"), "").unwrap();
    match select(&folder) {
        Err(KernelError::MissingModule { kernel, module }) => {
            assert_eq!((kernel.as_str(), module.as_str()), (tree::RELEASE, "ext4"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_tree_is_refused_with_the_file_at_fault() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 5] = [
        ("modules.dep", |folder| fs::remove_file(folder.join("modules.dep")).unwrap()),
        ("modules.builtin", |folder| fs::remove_file(folder.join("modules.builtin")).unwrap()),
        ("virtio_blk.ko", |folder| {
            fs::remove_file(folder.join("kernel/drivers/block/virtio_blk.ko")).unwrap()
        }),
        ("virtio_blk.ko", |folder| {
            fs::write(folder.join("kernel/drivers/block/virtio_blk.ko"), "text").unwrap()
        }),
        ("virtio_ring.ko", |folder| {
            let file = folder.join("kernel/drivers/virtio/virtio_ring.ko");
            fs::remove_file(&file).unwrap();
            fs::create_dir(file).unwrap();
        }),
    ];
    for (word, harm) in cases {
        let dir = tempfile::tempdir().unwrap();
        let folder = tree::write(dir.path(), Packing::Plain);
        harm(&folder);
        let error = select(&folder).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(tree::RELEASE), "{word}: {error}");
    }
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let modules = select(&tree::write(dir.path(), Packing::Plain)).unwrap();
    modules.check_release(tree::RELEASE).unwrap();
    let error = modules.check_release("6.12.0").unwrap_err().to_string();
    assert!(error.contains("6.12.0") && error.contains(tree::RELEASE), "{error}");
    Modules::none().check_release("6.12.0").unwrap();
}
