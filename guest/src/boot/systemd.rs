//! What an image's systemd is told about this machine, in `/run`, where systemd reads configuration too and
//! nothing lasts.

use super::{Report, image_init::is_program};
use banger_guest::Settings;
use std::{fs, io, os::unix::fs::symlink, path::Path};

/// Prepares an image that has systemd for it.
pub fn prepare(settings: &Settings, root: &Path, report: &mut Report) {
    let has = |program: &str| {
        ["/usr/lib/systemd", "/lib/systemd"].iter().any(|f| is_program(root, &Path::new(f).join(program)))
    };
    if !has("systemd") {
        return;
    }
    if let Err(error) = name_servers(settings, root) {
        report.warn(format!("systemd-resolved is not told about name servers: {error}"));
    }
    // Without udev nobody tells systemd that the console is there, and it would wait 90 seconds for that.
    if !has("systemd-udevd")
        && let Err(error) = mask(root, "serial-getty@ttyS0.service")
    {
        report.warn(format!("systemd will wait for a console login: {error}"));
    }
}

/// systemd-resolved takes its upstream servers from here (resolved.conf.d(5)).
fn name_servers(settings: &Settings, root: &Path) -> io::Result<()> {
    let servers = settings.network.iter().flat_map(|network| &network.dns);
    let servers: Vec<String> = servers.map(ToString::to_string).collect();
    if servers.is_empty() {
        return Ok(());
    }
    let folder = root.join("run/systemd/resolved.conf.d");
    fs::create_dir_all(&folder)?;
    let search: Vec<&str> =
        settings.network.iter().flat_map(|network| &network.search).map(String::as_str).collect();
    let domains = if search.is_empty() { String::new() } else { format!("Domains={}\n", search.join(" ")) };
    fs::write(folder.join("banger.conf"), format!("[Resolve]\nDNS={}\n{domains}", servers.join(" ")))
}

/// Keeps a unit from being started (systemctl(1), `mask --runtime`).
fn mask(root: &Path, unit: &str) -> io::Result<()> {
    let folder = root.join("run/systemd/system");
    fs::create_dir_all(&folder)?;
    symlink("/dev/null", folder.join(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_guest::{Address, Mac, Network};
    use std::os::unix::fs::PermissionsExt;

    fn program(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn settings() -> Settings {
        let address = "172.30.0.2".parse().unwrap();
        let dns = vec!["172.30.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let addresses = vec![Address { address, prefix: 19, gateway: None }];
        let network =
            Network { mac: Mac([2; 6]), addresses, dns, search: vec!["lan".into(), "example.org".into()] };
        Settings { network: Some(network), ..Settings::new("a") }
    }

    #[test]
    fn an_image_without_systemd_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        prepare(&settings(), root.path(), &mut Report::default());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn systemd_hears_of_name_servers_and_without_udev_waits_for_nothing() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let masked = root.join("run/systemd/system/serial-getty@ttyS0.service");
        program(root, "lib/systemd/systemd");
        program(root, "lib/systemd/systemd-udevd");
        prepare(&settings(), root, &mut Report::default());
        let text = fs::read_to_string(root.join("run/systemd/resolved.conf.d/banger.conf")).unwrap();
        assert_eq!(text, "[Resolve]\nDNS=172.30.0.1 ::1\nDomains=lan example.org\n");
        assert!(!masked.is_symlink());
        fs::remove_file(root.join("lib/systemd/systemd-udevd")).unwrap();
        prepare(&settings(), root, &mut Report::default());
        assert_eq!(fs::read_link(masked).unwrap(), Path::new("/dev/null"));
    }
}
