//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`, as every container runtime does it: files of ours are
//! bound over the image's, so the disk keeps what the image's author shipped, and unmounting one brings that
//! back. Only where there is nothing to bind over is something written: an empty file, or a folder for it.

use super::Report;
use banger_guest::Settings;
use nix::mount::{MsFlags, mount};
use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

/// Writes the files for the system in `root`. None is worth failing a boot for.
pub fn write(settings: &Settings, root: &Path, report: &mut Report) {
    let name = &settings.hostname;
    // Only what exists overrides the name that the kernel already has.
    if root.join("etc/hostname").exists() {
        bind(root, "hostname", &format!("{name}\n"), report);
    }
    bind(root, "hosts", &hosts(settings), report);
    let servers = settings.network.iter().flat_map(|network| &network.dns);
    let servers: Vec<String> = servers.map(ToString::to_string).collect();
    if servers.is_empty() {
        return;
    }
    let mut lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search: Vec<&str> =
        settings.network.iter().flat_map(|network| &network.search).map(String::as_str).collect();
    if !search.is_empty() {
        let _ = writeln!(lines, "search {}", search.join(" "));
    }
    bind(root, "resolv.conf", &lines, report);
}

/// Writes them anew, for a guest that is another one now: the files that were bound at its boot, and no others.
///
/// # Errors
/// The last that could not be written.
pub fn rewrite(settings: &Settings) -> io::Result<()> {
    let folder = Path::new("/run/banger");
    let mut result = Ok(());
    for (name, content) in [("hostname", format!("{}\n", settings.hostname)), ("hosts", hosts(settings))] {
        let path = folder.join(name);
        // What is bound over the image's file is this file, so it is not replaced.
        if path.exists() {
            result = fs::write(path, content).and(result);
        }
    }
    result
}

/// The text of `/etc/hosts` (hosts(5)).
fn hosts(settings: &Settings) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    let first = settings.network.as_ref().and_then(|network| network.addresses.first());
    let own = first.map_or("127.0.1.1".to_owned(), |first| first.address.to_string());
    let _ = writeln!(text, "{own} {}", settings.hostname);
    for entry in &settings.hosts {
        let _ = writeln!(text, "{} {}", entry.address, entry.names.join(" "));
    }
    text
}

fn bind(root: &Path, name: &str, content: &str, report: &mut Report) {
    if let Err(error) = try_bind(root, name, content) {
        report.warn(format!("/etc/{name} is left as the image has it: {error}"));
    }
}

fn try_bind(root: &Path, name: &str, content: &str) -> io::Result<()> {
    let ours = root.join("run/banger").join(name);
    fs::write(&ours, content)?;
    let target = target(root, name)?;
    let none: Option<&str> = None;
    mount(Some(&ours), &target, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// The file to bind over. A link into `/run`, as systemd-resolved's images have, is made to lead somewhere:
/// that is memory, not the disk.
fn target(root: &Path, name: &str) -> io::Result<PathBuf> {
    let etc = root.join("etc");
    let _ = fs::create_dir(&etc);
    let path = etc.join(name);
    let path = match fs::read_link(&path) {
        Ok(link) => inside_run(root, &link).ok_or(io::ErrorKind::Unsupported)?,
        Err(_) => path,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(&path)?.is_file() => {
            Ok(path)
        }
        Err(e) => Err(e),
    }
}

/// Where a link in `/etc` that leads into `/run` leads. Nobody but us has written to `/run` yet, so no link is
/// on the way.
fn inside_run(root: &Path, link: &Path) -> Option<PathBuf> {
    let link = link.to_str()?;
    let rest = link.strip_prefix("../run/").or_else(|| link.strip_prefix("/run/"))?;
    let plain = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    plain.then(|| root.join("run").join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn hosts_tell_the_own_name_and_those_that_were_asked_for() {
        let mut settings = Settings::new("web");
        settings.hosts.push(banger_guest::HostEntry {
            address: "172.30.0.1".parse().unwrap(),
            names: vec!["host.vm".into(), "host".into()],
        });
        let text = hosts(&settings);
        assert!(text.ends_with("\n127.0.1.1 web\n172.30.0.1 host.vm host\n"), "{text}");
    }

    #[test]
    fn there_is_always_a_file_inside_to_bind_over() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("run")).unwrap();
        let at = |path: &str| Some(root.join(path));
        assert_eq!(target(root, "hosts").ok(), at("etc/hosts"), "an image made from scratch");
        assert_eq!(target(root, "hosts").ok(), at("etc/hosts"), "again");
        symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
        assert_eq!(target(root, "resolv.conf").ok(), at("run/systemd/resolve/stub-resolv.conf"));
        for (name, link) in
            [("a", "/etc/shadow"), ("b", "/run/../etc/shadow"), ("c", "other"), ("d", "/run/")]
        {
            symlink(link, root.join("etc").join(name)).unwrap();
            assert!(target(root, name).is_err(), "{link}");
        }
        fs::create_dir(root.join("etc/folder")).unwrap();
        assert!(target(root, "folder").is_err());
    }
}
