//! What depmod(8) would have written: a distribution's package leaves `modules.dep` to its installation.

use crate::{KernelError, index::module_name, needs::NEEDS, select::MOST_MODULE, unpack};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    io,
};

/// The most modules that are looked at; what a VM needs is below 30.
const MOST_MODULES: usize = 512;
/// The longest list of one module's dependencies, in bytes.
const MOST_DEPENDS: usize = 4096;

/// `modules.dep` of the modules that a VM needs and of what they depend on, by the modules' own `depends=`
/// (modinfo(8)). `paths` are all of the kernel's modules; `read` gives the bytes of one, as they are packed.
///
/// # Errors
/// [`KernelError::Module`] when a module is damaged.
pub(crate) fn derive<'a>(
    kernel: &str,
    paths: impl Iterator<Item = &'a str>,
    read: impl Fn(&str, u64) -> io::Result<Option<Vec<u8>>>,
) -> Result<String, KernelError> {
    let known: HashMap<String, &str> = paths.filter_map(|path| Some((module_name(path)?, path))).collect();
    let mut wanted: Vec<String> = NEEDS.iter().map(|need| need.name.to_owned()).collect();
    let mut seen: HashSet<String> = HashSet::new();
    let mut dep = String::new();
    while let Some(name) = wanted.pop() {
        // What is not a module is built in, or missing: who selects tells the two apart.
        let Some(path) = known.get(&name) else { continue };
        if !seen.insert(name) {
            continue;
        }
        let broken =
            |why: String| KernelError::Module { kernel: kernel.to_owned(), path: (*path).to_owned(), why };
        if seen.len() > MOST_MODULES {
            return Err(broken(format!("it would be module number {MOST_MODULES} that a VM needs")));
        }
        let packed = read(path, MOST_MODULE).map_err(|error| broken(error.to_string()))?;
        let module = unpack::unpack_module(packed.unwrap_or_default(), MOST_MODULE).map_err(broken)?;
        let _ = write!(dep, "{path}:");
        for need in depends(&module).map_err(broken)? {
            let path = known.get(&need).map_or_else(|| format!("{need}.ko"), |path| (*path).to_owned());
            let _ = write!(dep, " {path}");
            wanted.push(need);
        }
        dep.push('\n');
    }
    Ok(dep)
}

/// The names that a module depends on, with `_` for `-`.
fn depends(module: &[u8]) -> Result<Vec<String>, String> {
    let list = unpack::modinfo(module, b"depends=").unwrap_or_default();
    let damaged = || "its list of dependencies is damaged".to_owned();
    if list.len() > MOST_DEPENDS {
        return Err(damaged());
    }
    let names = list.split(|b| *b == b',').filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = std::str::from_utf8(name).ok();
            name.and_then(|name| module_name(&format!("{name}.ko"))).ok_or_else(damaged)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::tests::{module, xz};
    use proptest::prelude::*;

    fn derived(modules: &[(&str, &str)]) -> Result<String, String> {
        let read = |path: &str, _| {
            let found = modules.iter().find(|(name, _)| *name == path);
            let bytes = found.map(|(_, info)| module(format!("\0{info}\0x").as_bytes()));
            Ok(bytes.map(|bytes| if path.ends_with(".xz") { xz(&bytes) } else { bytes }))
        };
        derive("6.1", modules.iter().map(|(path, _)| *path), read).map_err(|e| e.to_string())
    }

    #[test]
    fn only_what_a_vm_needs_is_looked_at() {
        let dep = derived(&[
            ("kernel/fs/ext4/ext4.ko.xz", "license=GPL\0depends=jbd2,mb-cache,crc16"),
            ("kernel/fs/jbd2/jbd2.ko", "depends="),
            ("kernel/fs/mb_cache.ko", "depends=jbd2"),
            ("kernel/sound/snd.ko", "depends=soundcore"),
        ]);
        let dep = dep.unwrap();
        let mut lines: Vec<&str> = dep.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko kernel/fs/mb_cache.ko crc16.ko",
                "kernel/fs/jbd2/jbd2.ko:",
                "kernel/fs/mb_cache.ko: kernel/fs/jbd2/jbd2.ko",
            ]
        );
    }

    #[test]
    fn a_cycle_ends_and_damage_is_said() {
        assert_eq!(
            derived(&[("ext4.ko", "depends=a"), ("a.ko", "depends=ext4")]).unwrap(),
            "ext4.ko: a.ko\na.ko: ext4.ko\n"
        );
        for depends in ["depends=../x", "depends=a b", &format!("depends={}", "a,".repeat(4000))] {
            let error = derived(&[("ext4.ko", depends)]).unwrap_err();
            assert!(error.contains("dependencies") && error.contains("ext4.ko"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_modules_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = depends(&bytes);
            let bytes = module(&[b"\0depends=", &bytes[..]].concat());
            let _ = derive("", ["ext4.ko"].into_iter(), |_, _| Ok(Some(bytes.clone())));
        }
    }
}
