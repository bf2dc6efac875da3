//! What depmod(8) says: where each module is, what it needs, what is built in.

use crate::{KernelError, needs::Need};
use std::collections::{HashMap, HashSet};

/// How many modules may be taken; the whole need of a VM is below 30.
const MOST_MODULES: usize = 256;

/// `modules.dep` and `modules.builtin` (modules.dep(5)).
pub(crate) struct ModuleIndex {
    /// Which kernel, for errors.
    kernel: String,
    modules: HashMap<String, Entry>,
    builtin: HashSet<String>,
}

struct Entry {
    path: String,
    /// Names of what it needs.
    needs: Vec<String>,
}

/// Why a module cannot be had.
enum Lack {
    /// It, or what it needs, is neither a module nor built in.
    Module(String),
    /// There are too many.
    Number,
}

impl ModuleIndex {
    /// Reads both files. Lines that name no module below the folder are passed over: such a module is not
    /// there for us.
    pub(crate) fn parse(kernel: String, dep: &[u8], builtin: &[u8]) -> Self {
        let mut modules = HashMap::new();
        for line in String::from_utf8_lossy(dep).lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let Some(name) = module_name(path) else { continue };
            let needs = needs
                .split_ascii_whitespace()
                // A path that is not ours stays in as a name that nothing has.
                .map(|path| module_name(path).unwrap_or_else(|| path.to_owned()))
                .collect();
            modules.insert(name, Entry { path: path.to_owned(), needs });
        }
        let builtin = String::from_utf8_lossy(builtin).lines().filter_map(module_name).collect();
        Self { kernel, modules, builtin }
    }

    /// Paths of `wanted` and of what they need, each after everything that it needs.
    ///
    /// # Errors
    /// [`KernelError::MissingModule`] for a required module that is not there.
    pub(crate) fn load_order(&self, wanted: &[Need]) -> Result<Vec<&str>, KernelError> {
        let mut done = HashSet::new();
        let mut order = Vec::new();
        for need in wanted {
            match self.closure(need.name, &done) {
                Ok(modules) => {
                    for (name, path) in modules {
                        done.insert(name);
                        order.push(path);
                    }
                }
                Err(Lack::Module(module)) if need.required => {
                    return Err(KernelError::MissingModule { kernel: self.kernel.clone(), module });
                }
                Err(Lack::Module(_)) => {}
                Err(Lack::Number) => return Err(self.too_many()),
            }
            if order.len() > MOST_MODULES {
                return Err(self.too_many());
            }
        }
        Ok(order)
    }

    fn too_many(&self) -> KernelError {
        KernelError::Index {
            kernel: self.kernel.clone(),
            file: "modules.dep",
            why: format!("a VM would need more than {MOST_MODULES} modules by it"),
        }
    }

    /// `name` and what it needs beyond `done`, in the order of loading. A cycle, which depmod refuses to
    /// write, is cut where it closes.
    fn closure<'a>(
        &'a self,
        name: &'a str,
        done: &HashSet<&'a str>,
    ) -> Result<Vec<(&'a str, &'a str)>, Lack> {
        let mut order = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        // (module, how many of its needs were looked at)
        let mut path: Vec<(&str, &Entry, usize)> = Vec::new();
        let mut next = Some(name);
        loop {
            if let Some(name) = next.take() {
                if !done.contains(name) && seen.insert(name) {
                    match self.modules.get(name) {
                        Some(entry) => path.push((name, entry, 0)),
                        None if self.builtin.contains(name) => {}
                        None => return Err(Lack::Module(name.to_owned())),
                    }
                }
                if seen.len() > MOST_MODULES * 2 {
                    return Err(Lack::Number);
                }
            }
            let Some((name, entry, looked)) = path.last_mut() else { return Ok(order) };
            match entry.needs.get(*looked) {
                Some(need) => {
                    *looked += 1;
                    next = Some(need);
                }
                None => {
                    order.push((*name, entry.path.as_str()));
                    path.pop();
                }
            }
        }
    }
}

/// The name of the module at `path`, with `_` for `-` as the kernel has it, when `path` is one that we take:
/// relative, without dots, ending in `.ko` or a packed form.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let clean = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.len() > 1024 || !path.split('/').all(clean) {
        return None;
    }
    let file = path.rsplit('/').next()?;
    let name = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().find_map(|end| file.strip_suffix(end))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
    (!name.is_empty() && name.len() <= 128 && name.bytes().all(plain)).then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn need(name: &'static str, required: bool) -> Need {
        Need { name, required }
    }

    fn order(dep: &str, builtin: &str, wanted: &[Need]) -> Result<String, String> {
        let index = ModuleIndex::parse("6.1-test".into(), dep.as_bytes(), builtin.as_bytes());
        index.load_order(wanted).map(|paths| paths.join(" ")).map_err(|e| e.to_string())
    }

    #[test]
    fn needs_come_first_and_once() {
        let dep = "k/a.ko: k/c.ko k/b.ko\nk/b.ko: k/c.ko\nk/c.ko:\nk/d.ko: k/c.ko\nk/e.ko:\n";
        let wanted = [need("a", true), need("d", true), need("c", true)];
        assert_eq!(order(dep, "", &wanted).as_deref(), Ok("k/c.ko k/b.ko k/a.ko k/d.ko"));
    }

    #[test]
    fn dash_and_underscore_are_alike() {
        let dep = "k/virtio-rng.ko.xz: k/virtio_ring.ko.zst\nk/virtio-ring.ko.zst:\n";
        let wanted = [need("virtio_rng", true)];
        assert_eq!(order(dep, "", &wanted).as_deref(), Ok("k/virtio-ring.ko.zst k/virtio-rng.ko.xz"));
    }

    #[test]
    fn built_in_is_fine_and_missing_is_said() {
        let dep = "k/a.ko: k/in.ko\nk/broken.ko: k/gone.ko\n";
        let builtin = "k/in.ko\nkernel/fs/ext4/ext4.ko\n";
        assert_eq!(order(dep, builtin, &[need("ext4", true), need("a", true)]).as_deref(), Ok("k/a.ko"));
        assert_eq!(order(dep, builtin, &[need("broken", false), need("none", false)]).as_deref(), Ok(""));
        for (name, module) in [("none", "none"), ("broken", "gone")] {
            let error = order(dep, builtin, &[need(name, true)]).unwrap_err();
            assert!(error.starts_with(&format!("kernel 6.1-test has no {module}:")), "{error}");
        }
    }

    #[test]
    fn a_cycle_ends() {
        let dep = "a.ko: b.ko\nb.ko: c.ko\nc.ko: a.ko\n";
        assert_eq!(order(dep, "", &[need("a", true)]).as_deref(), Ok("c.ko b.ko a.ko"));
    }

    #[test]
    fn a_chain_without_end_is_refused() {
        let dep: String = (0..100_000).map(|i| format!("m{i}.ko: m{}.ko\n", i + 1)).collect();
        assert!(order(&dep, "", &[need("m0", true)]).unwrap_err().contains("more than 256"));
    }

    #[test]
    fn paths_out_of_the_folder_are_not_modules() {
        for path in [
            "",
            "/x.ko",
            "../x.ko",
            "a/../x.ko",
            "a//x.ko",
            "./x.ko",
            ".ko",
            "x.ko.bz2",
            "x",
            "x.ko/",
            "a\0/x.ko",
        ] {
            assert_eq!(module_name(path), None, "{path:?}");
        }
        assert_eq!(module_name("kernel/a-b/c-d.ko.gz").as_deref(), Some("c_d"));
        assert!(order("../x.ko:\n", "", &[need("x", true)]).is_err());
        assert!(order("a.ko: ../x.ko\n", "", &[need("a", true)]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            dep in prop::collection::vec(any::<u8>(), 0..200),
            builtin in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let index = ModuleIndex::parse(String::new(), &dep, &builtin);
            let _ = index.load_order(&[need("a", true)]);
        }

        /// Whatever the graph: everything loads once, and after its needs unless these form a cycle.
        #[test]
        fn order_is_topological(edges in prop::collection::vec((0usize..12, 0usize..12), 0..40)) {
            let mut dep = String::new();
            for module in 0..12 {
                dep += &format!("m{module}.ko:");
                // Only downwards, so there is no cycle.
                for (_, to) in edges.iter().filter(|(from, to)| *from == module && to < from) {
                    dep += &format!(" m{to}.ko");
                }
                dep.push('\n');
            }
            let text = order(&dep, "", &[need("m11", true), need("m10", true)]).unwrap();
            let loaded: Vec<&str> = text.split(' ').collect();
            let place = |n: usize| loaded.iter().position(|m| *m == format!("m{n}.ko"));
            for (from, to) in edges.into_iter().filter(|(from, to)| to < from) {
                if let Some(at) = place(from) {
                    prop_assert!(place(to).unwrap() < at);
                }
            }
            let distinct: HashSet<&&str> = loaded.iter().collect();
            prop_assert_eq!(distinct.len(), loaded.len());
        }
    }
}
