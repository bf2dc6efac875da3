//! Which init an image brings, if any.

use banger_guest::Init;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// Where an image's init may be, in the order of looking.
const CANDIDATES: [&str; 5] =
    ["/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/init"];

/// Most symbolic links that are followed on the way to a file, as in the kernel.
const MOST_LINKS: usize = 40;

/// The image's own init as a path inside `root`; `None` where ours is to be PID 1.
///
/// # Errors
/// Not found, when the image's own is asked for and there is none.
pub fn find(root: &Path, choice: Init) -> io::Result<Option<PathBuf>> {
    let there = |path: &&&str| is_program(root, Path::new(path));
    let useful = |path: &&&str| choice == Init::Image || starts_something(root, Path::new(path));
    match choice {
        Init::Agent => Ok(None),
        Init::Auto | Init::Image => {
            let found = CANDIDATES.iter().filter(there).find(useful);
            match (found, choice) {
                (None, Init::Image) => Err(io::Error::new(io::ErrorKind::NotFound, "the image has none")),
                (found, _) => Ok(found.map(PathBuf::from)),
            }
        }
    }
}

/// Whether an init has a system to start. Images made for containers, Alpine's for one, have busybox's as a
/// link like any other, and none of what its inittab starts: it would only complain, for ever.
fn starts_something(root: &Path, init: &Path) -> bool {
    let name = resolve(root, init).and_then(|path| path.file_name().map(ToOwned::to_owned));
    if name.is_none_or(|name| name != "busybox") {
        return true;
    }
    let Some(table) = resolve(root, Path::new("/etc/inittab")).and_then(|path| fs::read(path).ok()) else {
        return is_program(root, Path::new("/etc/init.d/rcS"));
    };
    // <id>:<runlevels>:<action>:<process>
    String::from_utf8_lossy(&table).lines().any(|line| {
        let mut fields = line.splitn(4, ':').skip(2);
        let (action, process) = (fields.next(), fields.next().unwrap_or_default());
        let program = process.split_whitespace().next().unwrap_or_default().trim_start_matches('-');
        action == Some("sysinit") && is_program(root, Path::new(program))
    })
}

/// Whether `path`, seen from inside `root`, is an executable regular file. Symbolic links are followed as
/// they will be once `root` is the root, so an absolute one does not lead out of it.
pub fn is_program(root: &Path, path: &Path) -> bool {
    resolve(root, path)
        .and_then(|path| fs::symlink_metadata(path).ok())
        .is_some_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

/// The real place of `path` inside `root`, if it exists.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut todo: Vec<PathBuf> = vec![path.to_owned()];
    let mut real = PathBuf::new();
    let mut links = 0;
    while let Some(next) = todo.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        let rest = parts.as_path().to_owned();
        todo.push(rest);
        match part {
            Component::RootDir => real.clear(),
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                real.push(name);
                let here = root.join(&real);
                if fs::symlink_metadata(&here).ok()?.is_symlink() {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    real.pop();
                    todo.push(fs::read_link(&here).ok()?);
                }
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(root.join(real))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn an_init_is_found_behind_links_and_only_inside() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for folder in ["usr/sbin", "usr/lib/systemd", "etc", "dir"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
        fs::set_permissions(root.join("usr/lib/systemd/systemd"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("etc/plain"), "").unwrap();
        symlink("usr/sbin", root.join("sbin")).unwrap();
        symlink("../lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
        symlink("/usr/lib/systemd/systemd", root.join("absolute")).unwrap();
        symlink("../../../../usr/lib/systemd/systemd", root.join("up")).unwrap();
        symlink("/bin/sh", root.join("outside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("missing", root.join("dangling")).unwrap();
        for path in ["/sbin/init", "/absolute", "/up", "/usr/lib/systemd/systemd", "/./sbin/../sbin/init"] {
            assert!(is_program(root, Path::new(path)), "{path}");
        }
        assert_eq!(find(root, Init::Auto).unwrap(), Some(PathBuf::from("/sbin/init")));
        assert_eq!(find(root, Init::Agent).unwrap(), None);
        for path in ["/outside", "/loop", "/dangling", "/etc/plain", "/dir", "/bin/sh", "/etc/plain/x"] {
            assert!(!is_program(root, Path::new(path)), "{path}");
        }
    }

    #[test]
    fn an_image_without_init_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path(), Init::Auto).unwrap(), None);
        assert!(find(root.path(), Init::Image).is_err());
    }

    #[test]
    fn busybox_is_an_init_only_where_it_has_something_to_start() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for folder in ["bin", "sbin", "etc/init.d"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let program = |path: &str| {
            fs::write(root.join(path), "").unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("bin/busybox");
        symlink("/bin/busybox", root.join("sbin/init")).unwrap();
        let found = || find(root, Init::Auto).unwrap().is_some();
        assert!(!found(), "nothing at all");
        fs::write(
            root.join("etc/inittab"),
            "# Alpine\n::sysinit:/sbin/openrc sysinit\ntty1::respawn:/bin/busybox\n",
        )
        .unwrap();
        assert!(!found(), "Alpine's inittab without OpenRC");
        assert!(find(root, Init::Image).unwrap().is_some(), "whoever asks for it gets it");
        program("sbin/openrc");
        assert!(found(), "Alpine's inittab with OpenRC");
        fs::remove_file(root.join("etc/inittab")).unwrap();
        program("etc/init.d/rcS");
        assert!(found(), "no inittab, and the script that then is the default");
    }
}
