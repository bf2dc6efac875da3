//! A private view of the machine's files: what changes here is gone with the mount namespace.

use crate::error::{Doing, Result};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    os::fd::AsRawFd,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Where what lies under the private views is kept: in the private `/run`, so that every user reaches it.
const STORE: &str = "/run/.host";

/// Makes `/run` empty and private, keeping only the folder that `/etc/resolv.conf` points into, and makes
/// `/etc`, `/usr` and `/var/lib` private copies that start out equal. `/proc` is mounted anew.
///
/// # Errors
/// [`HarnessError::Io`] names the mount that failed.
pub fn make_private() -> Result<()> {
    let everything = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, everything, None::<&str>).doing("make all mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).doing("mount /proc")?;
    private_run()?;
    for dir in ["/etc", "/usr", "/var/lib"] {
        private_copy(Path::new(dir))?;
    }
    Ok(())
}

/// Shows `source` at `target`, which is made when it is not there: a file for a file, a folder for a folder.
///
/// # Errors
/// [`HarnessError::Io`] when `source` is missing or the mount fails.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    let what = format!("show {} at {}", source.display(), target.display());
    if fs::metadata(source).doing(&what)?.is_dir() {
        make_dir(target, 0o755)?;
    } else {
        make_dir(target.parent().unwrap_or(Path::new("/")), 0o755)?;
        fs::OpenOptions::new().append(true).create(true).open(target).doing(&what)?;
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(what)
}

/// Makes a folder and what is missing above it, with this mode.
///
/// # Errors
/// [`HarnessError::Io`] when it cannot be made.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path).doing(format!("make {}", path.display()))?;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, mode).doing(format!("set the mode of {}", path.display()))?;
    }
    Ok(())
}

/// Writes a file of the private view anew. Never through a symbolic link, which could lead out of the view.
///
/// # Errors
/// [`HarnessError::Io`] when it cannot be written.
pub fn write(path: &Path, content: &str, mode: u32) -> Result<()> {
    let what = format!("write {}", path.display());
    make_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).doing(what),
        _ => {}
    }
    fs::write(path, content).doing(&what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(what)
}

/// The mount points of this namespace, in the order in which they were mounted.
///
/// # Errors
/// [`HarnessError::Io`] when `/proc` cannot be read.
pub fn mount_points() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").doing("read the mount table")?;
    // The fifth field, with octal escapes for blanks (proc_pid_mountinfo(5)).
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

fn unescape(field: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(plain.iter().fold(field.to_owned(), |text, (code, char)| text.replace(code, char)))
}

fn tmpfs(target: &Path) -> Result<()> {
    let what = format!("mount a tmpfs on {}", target.display());
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).doing(what)
}

fn private_run() -> Result<()> {
    let resolver =
        fs::canonicalize("/etc/resolv.conf").ok().and_then(|path| path.parent().map(Path::to_owned));
    let resolver = resolver.filter(|dir| dir.starts_with("/run"));
    // The new /run is built elsewhere first, because it hides what it keeps.
    let fresh = Path::new("/mnt");
    tmpfs(fresh)?;
    if let Some(dir) = &resolver {
        let inside = fresh.join(dir.strip_prefix("/run").unwrap_or(dir));
        bind(dir, &inside)?;
    }
    for name in ["lock", "dbus", "user", ".host"] {
        make_dir(&fresh.join(name), 0o755)?;
    }
    mount(Some(fresh), "/run", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .doing("put the private /run in place")
}

/// A private copy of `dir`: an overlay where the kernel allows one, otherwise a folder of links into the original.
fn private_copy(dir: &Path) -> Result<()> {
    let store = Path::new(STORE).join(dir.to_string_lossy().trim_start_matches('/').replace('/', "-"));
    let below = hold_submounts(dir, &store)?;
    let (upper, work) = (store.join("upper"), store.join("work"));
    make_dir(&work, 0o755)?;
    make_dir(&upper, 0o755)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", dir.display(), upper.display(), work.display());
    if mount(Some("overlay"), dir, Some("overlay"), MsFlags::empty(), Some(options.as_str())).is_err() {
        links(dir, &store.join("original"))?;
    }
    for (held, place) in below {
        bind(&held, &place)?;
    }
    Ok(())
}

/// Neither an overlay nor links see through to what is mounted below a folder (a container's `/etc/resolv.conf`
/// is such a mount): each is held elsewhere, to be put back.
fn hold_submounts(dir: &Path, store: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut held = Vec::new();
    for point in mount_points()?.into_iter().filter(|point| point != dir && point.starts_with(dir)) {
        let place = store.join("below").join(held.len().to_string());
        bind(&point, &place)?;
        held.push((place, point));
    }
    Ok(held)
}

fn links(dir: &Path, original: &Path) -> Result<()> {
    let mode = fs::metadata(dir).doing(format!("look at {}", dir.display()))?.mode();
    bind(dir, original)?;
    tmpfs(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o7777)).doing("set a mode")?;
    mirror(original, dir)
}

/// Makes in `target` what `source` holds: folders anew, symbolic links as they are, files as links to the original.
fn mirror(source: &Path, target: &Path) -> Result<()> {
    for entry in fs::read_dir(source).doing(format!("read {}", source.display()))? {
        let entry = entry.doing(format!("read {}", source.display()))?;
        let place = target.join(entry.file_name());
        let what = format!("mirror {}", place.display());
        let kind = entry.file_type().doing(&what)?;
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).doing(&what)?, place).doing(what)?;
        } else if kind.is_dir() && is_written_below(&place) {
            let meta = entry.metadata().doing(&what)?;
            make_dir(&place, meta.mode() & 0o7777)?;
            std::os::unix::fs::chown(&place, Some(meta.uid()), Some(meta.gid())).doing(&what)?;
            mirror(&entry.path(), &place)?;
        } else {
            symlink(entry.path(), place).doing(what)?;
        }
    }
    Ok(())
}

/// The folders that the harness, or a package of ours, writes in: all others can be links as a whole.
fn is_written_below(dir: &Path) -> bool {
    const WRITTEN: [&str; 7] = [
        "/usr/bin",
        "/usr/libexec",
        "/usr/lib/banger",
        "/usr/share/polkit-1/actions",
        "/usr/share/dbus-1/system.d",
        "/etc/polkit-1/rules.d",
        "/etc/banger",
    ];
    WRITTEN.iter().any(|written| Path::new(written).starts_with(dir))
}

/// Keeps a namespace reachable under a path, after every process has left it.
///
/// # Errors
/// [`crate::HarnessError::Io`] when it cannot be mounted there.
pub fn keep_namespace(namespace: &fs::File, path: &Path) -> Result<()> {
    fs::File::create(path).doing(format!("make {}", path.display()))?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing("keep a namespace")
}
