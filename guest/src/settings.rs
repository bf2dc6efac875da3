//! What a guest is told when it boots: `/settings.json` of its initramfs.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// The settings of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The host name: labels of `[a-z0-9-]`, at most 63 bytes each and 64 together (`HOST_NAME_MAX`).
    pub hostname: String,
    /// The root disk.
    #[serde(default)]
    pub root: Root,
    /// More disks, and where they are mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// The network interface, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Lines of `/etc/hosts` besides the guest's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostEntry>,
    /// Who is PID 1.
    #[serde(default)]
    pub init: Init,
    /// The process that PID 1 runs when it is ours. An image's own init decides itself what to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<Process>,
    /// Whether the guest powers off when that process ends.
    #[serde(default)]
    pub ends_with_main: bool,
}

/// The root disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Root {
    /// The block device with the ext4 root filesystem, `/dev/vda` for one.
    pub device: String,
}

/// A disk that is mounted somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mount {
    /// The block device with an ext4 filesystem, `/dev/vdb` for one.
    pub device: String,
    /// Where: an absolute path, which is made if need be.
    pub path: String,
    /// Whether nothing may be written to it.
    #[serde(default)]
    pub read_only: bool,
}

/// The guest's network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// By which the interface is found.
    pub mac: Mac,
    /// The guest's addresses, the one first by which its own name is known.
    pub addresses: Vec<Address>,
    /// Name servers. With none, the image's `/etc/resolv.conf` stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains that complete short names, where there are name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

/// An address of the guest's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// Where everything else of this family goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostEntry {
    /// The address.
    pub address: IpAddr,
    /// Its names, the canonical one first.
    pub names: Vec<String>,
}

/// Who is PID 1 in the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The image's own init where it has one, banger-guest otherwise.
    #[default]
    Auto,
    /// The image's own init; a guest without one does not boot.
    Image,
    /// banger-guest, whatever the image has.
    Agent,
}

/// A process of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Process {
    /// Program and arguments, at least one. A program without a slash is looked up in `PATH`.
    pub argv: Vec<String>,
    /// `NAME=value`, added to the guest's default environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The working folder, absolute; `/` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; root by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// Settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The text is longer than [`Settings::MOST_BYTES`].
    #[error("the guest's settings have {0} bytes: at most {most} are accepted", most = Settings::MOST_BYTES)]
    TooLong(usize),
    /// The text is not settings.
    #[error("the guest's settings cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A value is outside its range.
    #[error("the guest's settings are not valid: {what}: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl Settings {
    /// Longest text of settings, in bytes.
    pub const MOST_BYTES: usize = 512 << 10;

    /// Settings with this host name and nothing else: no network, the image's init, `/dev/vda`.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            root: Root::default(),
            mounts: Vec::new(),
            network: None,
            hosts: Vec::new(),
            init: Init::Auto,
            main: None,
            ends_with_main: false,
        }
    }

    /// Reads and checks `/settings.json`.
    ///
    /// # Errors
    /// [`SettingsError`] for a text that is too long, is not settings or breaks a rule.
    pub fn from_json(text: &[u8]) -> Result<Self, SettingsError> {
        if text.len() > Self::MOST_BYTES {
            return Err(SettingsError::TooLong(text.len()));
        }
        let settings: Self = serde_json::from_slice(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks the settings and writes them as `/settings.json`.
    ///
    /// # Errors
    /// [`SettingsError`] for settings that the guest would refuse.
    pub fn to_json(&self) -> Result<Vec<u8>, SettingsError> {
        self.check()?;
        let text = serde_json::to_vec(self)?;
        if text.len() > Self::MOST_BYTES {
            return Err(SettingsError::TooLong(text.len()));
        }
        Ok(text)
    }

    fn check(&self) -> Result<(), SettingsError> {
        rule(is_host_name(&self.hostname), "hostname", "not a host name")?;
        rule(is_plain_path(&self.root.device, "/dev/"), "root device", "not a plain path below /dev")?;
        if let Some(network) = &self.network {
            rule((1..=8).contains(&network.addresses.len()), "network", "it has 1 to 8 addresses")?;
            for Address { address, prefix, gateway } in &network.addresses {
                let longest = if address.is_ipv4() { 32 } else { 128 };
                rule(*prefix <= longest, "prefix", "longer than the address")?;
                let same = gateway.is_none_or(|gateway| gateway.is_ipv4() == address.is_ipv4());
                rule(same, "gateway", "of another family than the address")?;
            }
            rule(network.dns.len() <= 8, "dns", "more than 8 servers")?;
            rule(network.search.len() <= 6, "search", "more than 6 domains")?;
            rule(network.search.iter().all(|domain| is_domain(domain)), "search", "not a domain")?;
        }
        rule(self.mounts.len() <= 16, "mounts", "more than 16")?;
        for (number, mount) in self.mounts.iter().enumerate() {
            rule(is_plain_path(&mount.device, "/dev/"), "mounts", "a device is a plain path below /dev")?;
            rule(
                is_plain_path(&mount.path, "/"),
                "mounts",
                "a path begins with / and has no empty part, . or ..",
            )?;
            let ours = ["/proc", "/sys", "/dev", "/run"].iter().any(|taken| is_below(&mount.path, taken));
            rule(!ours, "mounts", "what is in /proc, /sys, /dev and /run is the guest's own")?;
            let twice = self.mounts[..number].iter().any(|other| other.path == mount.path);
            rule(!twice, "mounts", "two at one path")?;
        }
        rule(self.hosts.len() <= 1024, "hosts", "more than 1024 entries")?;
        for entry in &self.hosts {
            let names = (1..=16).contains(&entry.names.len()) && entry.names.iter().all(|n| is_host_name(n));
            rule(names, "hosts", "an entry needs 1 to 16 host names")?;
        }
        match &self.main {
            Some(main) => main.check(),
            None => Ok(()),
        }
    }
}

impl Process {
    fn check(&self) -> Result<(), SettingsError> {
        let text = |s: &String| !s.contains('\0');
        rule(self.argv.first().is_some_and(|a| !a.is_empty()), "main", "without a program")?;
        rule(self.argv.iter().all(text), "main", "an argument contains a NUL")?;
        let pair = |e: &String| text(e) && e.find('=').is_some_and(|at| at > 0);
        rule(self.env.iter().all(pair), "main", "an environment entry is not NAME=value")?;
        let cwd = self.cwd.iter().all(|c| c.starts_with('/') && text(c));
        rule(cwd, "main", "the working folder is not an absolute path")?;
        rule(self.user.iter().all(text), "main", "the user contains a NUL")
    }
}

impl Default for Root {
    fn default() -> Self {
        Self { device: "/dev/vda".into() }
    }
}

fn rule(holds: bool, what: &'static str, why: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError::Invalid { what, why }) }
}

fn is_host_name(name: &str) -> bool {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A domain as people configure them: underscores are no rarity there.
fn is_domain(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(inner);
    name.len() <= 253 && name.split('.').all(label)
}

fn is_plain_path(path: &str, below: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p != "." && p != ".." && !p.contains('\0');
    path.len() <= 255 && path.strip_prefix(below).is_some_and(|rest| rest.split('/').all(part))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = SettingsError;

    /// Reads `02:ba:6e:00:00:01`.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let refused = || SettingsError::Invalid { what: "mac", why: "not six bytes as 02:ba:6e:00:00:01" };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(refused)?;
        }
        if parts.next().is_some() {
            return Err(refused());
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Settings {
        Settings {
            network: Some(Network {
                mac: Mac([2, 0xba, 0x6e, 0, 0, 1]),
                addresses: vec![
                    Address {
                        address: "172.30.0.16".parse().unwrap(),
                        prefix: 19,
                        gateway: Some("172.30.0.1".parse().unwrap()),
                    },
                    Address { address: "fd00::10".parse().unwrap(), prefix: 64, gateway: None },
                ],
                dns: vec!["172.30.0.5".parse().unwrap()],
                search: vec!["lan".into(), "_x.example.org".into()],
            }),
            mounts: vec![Mount { device: "/dev/vdb".into(), path: "/srv/data".into(), read_only: true }],
            hosts: vec![HostEntry {
                address: "172.30.0.5".parse().unwrap(),
                names: vec!["host.vm".into(), "host".into()],
            }],
            main: Some(Process {
                argv: vec!["/bin/sh".into(), "-c".into(), "exit 42".into()],
                env: vec!["A=".into(), "B=c=d".into()],
                cwd: Some("/srv".into()),
                user: Some("www-data".into()),
            }),
            ..Settings::new("web")
        }
    }

    #[test]
    fn settings_round_trip() {
        for settings in [full(), Settings::new("a")] {
            assert_eq!(Settings::from_json(&settings.to_json().unwrap()).unwrap(), settings);
        }
    }

    #[test]
    fn the_least_settings_are_a_name() {
        assert_eq!(Settings::from_json(br#"{"hostname":"a"}"#).unwrap(), Settings::new("a"));
    }

    #[test]
    fn what_breaks_a_rule_is_refused_on_both_sides() {
        type Break = fn(&mut Settings);
        let broken: [(&str, Break); 21] = [
            ("mounts", |s| s.mounts[0].path = "/a/../b".into()),
            ("mounts", |s| s.mounts[0].path = "/".into()),
            ("mounts", |s| s.mounts[0].path = "data".into()),
            ("mounts", |s| s.mounts[0].path = "/run/x".into()),
            ("mounts", |s| s.mounts[0].device = "/etc/x".into()),
            ("mounts", |s| s.mounts.push(s.mounts[0].clone())),
            ("hostname", |s| s.hostname = "a b".into()),
            ("hostname", |s| s.hostname = String::new()),
            ("hostname", |s| s.hostname = format!("{}.a", "b".repeat(63))),
            ("root device", |s| s.root.device = "/dev/../etc/shadow".into()),
            ("root device", |s| s.root.device = "vda".into()),
            ("network", |s| s.network.as_mut().unwrap().addresses.clear()),
            ("prefix", |s| s.network.as_mut().unwrap().addresses[0].prefix = 33),
            ("gateway", |s| {
                s.network.as_mut().unwrap().addresses[0].gateway = Some("::1".parse().unwrap());
            }),
            ("search", |s| s.network.as_mut().unwrap().search = vec!["a\nnameserver 6.6.6.6".into()]),
            ("dns", |s| s.network.as_mut().unwrap().dns = vec!["::1".parse().unwrap(); 9]),
            ("hosts", |s| s.hosts[0].names.clear()),
            ("main", |s| s.main.as_mut().unwrap().argv.clear()),
            ("main", |s| s.main.as_mut().unwrap().argv[1] = "\0".into()),
            ("main", |s| s.main.as_mut().unwrap().env[0] = "=x".into()),
            ("main", |s| s.main.as_mut().unwrap().cwd = Some("srv".into())),
        ];
        for (word, breaking) in broken {
            let mut settings = full();
            breaking(&mut settings);
            let error = settings.to_json().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            let text = serde_json::to_vec(&settings).unwrap();
            assert_eq!(Settings::from_json(&text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = Settings::from_json(br#"{"hostname":"a","gadget":1}"#).unwrap_err();
        assert!(error.to_string().contains("gadget"), "{error}");
    }

    #[test]
    fn a_long_text_is_refused_unread() {
        let text = vec![b' '; Settings::MOST_BYTES + 1];
        assert!(matches!(Settings::from_json(&text), Err(SettingsError::TooLong(_))));
    }

    #[test]
    fn only_six_bytes_are_a_mac() {
        assert_eq!("02:BA:6e:00:00:01".parse::<Mac>().unwrap().to_string(), "02:ba:6e:00:00:01");
        for text in ["", "02:ba:6e:00:00", "02:ba:6e:00:00:01:02", "2:ba:6e:00:00:01", "+2:ba:6e:00:00:01"] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Settings::from_json(&bytes);
        }

        #[test]
        fn any_text_is_no_mac_without_panic(text in ".{0,24}") {
            let _ = text.parse::<Mac>();
        }
    }
}
