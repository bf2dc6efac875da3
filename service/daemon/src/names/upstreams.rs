//! The host's own name servers, which guests that reach them get as theirs (resolv.conf(5)).

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// What the host's programs read.
const OWN: &str = "/etc/resolv.conf";

/// Where the servers behind a local one are: systemd-resolved's (systemd-resolved.service(8)) and NetworkManager's
/// (NetworkManager.conf(5), `dns`).
const BEHIND: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// So many servers, and domains to complete names with, does the C library use.
pub const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Name servers that somebody else than this host can use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// Domains that complete short names.
    pub search: Vec<String>,
    /// Where they were found; none where there are none.
    pub source: PathBuf,
}

/// Reads the host's files.
///
/// # Errors
/// When one is there and cannot be read.
pub fn read() -> io::Result<Upstreams> {
    find(|path| {
        use std::io::Read;
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(LONGEST).read_to_string(&mut text).map(|_| Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    })
}

/// The first file that names a server which is not on this host's loopback, where a guest would only find itself.
fn find(read: impl Fn(&Path) -> io::Result<Option<String>>) -> io::Result<Upstreams> {
    let mut own = None;
    for path in [OWN].into_iter().chain(BEHIND) {
        let Some(text) = read(Path::new(path))? else { continue };
        let found = Upstreams { source: path.into(), ..parse(&text) };
        if !found.servers.is_empty() {
            return Ok(found);
        }
        own.get_or_insert(found);
    }
    Ok(Upstreams { source: PathBuf::new(), ..own.unwrap_or_default() })
}

/// Reads a resolv.conf(5). Of what is there twice the last counts, as for the C library; what is not understood is
/// passed over.
fn parse(text: &str) -> Upstreams {
    let mut found = Upstreams::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found.servers.extend(words.next().and_then(server)),
            Some("search" | "domain") => {
                found.search = words
                    .map(|word| word.trim_end_matches('.'))
                    .filter(is_domain)
                    .map(str::to_owned)
                    .collect();
            }
            _ => {}
        }
    }
    found.servers.dedup();
    // Every guest has an IPv4 address that leads out; an IPv6 one only where the host has it.
    found.servers.sort_by_key(IpAddr::is_ipv6);
    found.servers.truncate(MOST_SERVERS);
    found.search.truncate(MOST_DOMAINS);
    found
}

/// A server that others reach too. `fe80::1%eth0` is no address that means anything elsewhere.
fn server(word: &str) -> Option<IpAddr> {
    let address: IpAddr = word.parse().ok()?;
    let usable = match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_unspecified() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local()),
    };
    usable.then_some(address)
}

fn is_domain(word: &&str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    word.len() <= 253 && word.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const STUB: &str = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";

    fn of(files: &[(&str, &str)]) -> Upstreams {
        let files: HashMap<&Path, &str> =
            files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        find(|path| Ok(files.get(path).map(|text| (*text).to_owned()))).unwrap()
    }

    fn servers(found: &Upstreams) -> Vec<String> {
        found.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_file_is_what_it_says() {
        let text = "; old\nnameserver 192.168.1.1\nnameserver\t2001:db8::1 # second\ndomain home\nsearch lan. example.org x_y bad..one\n";
        let found = of(&[(OWN, text)]);
        assert_eq!(servers(&found), ["192.168.1.1", "2001:db8::1"]);
        assert_eq!(found.search, ["lan", "example.org", "x_y"]);
        assert_eq!(found.source, Path::new(OWN));
    }

    #[test]
    fn behind_a_local_one_are_those_that_it_asks() {
        let found = of(&[(OWN, STUB), (BEHIND[0], "nameserver 10.0.0.1\nsearch lan\n")]);
        assert_eq!((servers(&found), found.search), (vec!["10.0.0.1".into()], vec!["lan".into()]));
        let found = of(&[(OWN, "nameserver 127.0.0.1\n"), (BEHIND[1], "nameserver 10.0.0.2\n")]);
        assert_eq!(servers(&found), ["10.0.0.2"]);
    }

    #[test]
    fn what_no_guest_can_use_is_left_out() {
        for word in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.53",
            "0.0.0.0",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "169.254.1.1",
            "host",
        ] {
            assert_eq!(of(&[(OWN, &format!("nameserver {word}\n"))]).servers, [] as [IpAddr; 0], "{word}");
        }
        assert_eq!(of(&[]), Upstreams::default());
        let only_local = of(&[(OWN, STUB)]);
        assert_eq!((only_local.servers.len(), only_local.source), (0, PathBuf::new()));
    }

    #[test]
    fn no_more_than_the_c_library_uses() {
        let text: String =
            (1..9).map(|n| format!("nameserver 2001:db8::{n}\nnameserver 10.0.0.{n}\n")).collect();
        assert_eq!(servers(&of(&[(OWN, &text)])), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    /// A generator that needs no crate: every text of a few words and signs.
    #[test]
    fn any_text_is_read() {
        let words =
            ["nameserver", "search", "10.0.0.1", "::1", "\n", " ", "\t", "#", "a.b", "\u{0}", "é", "..", "%"];
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let text: String = (0..12)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    words[(state >> 16) as usize % words.len()]
                })
                .collect();
            let found = parse(&text);
            assert!(found.servers.len() <= MOST_SERVERS && found.search.len() <= MOST_DOMAINS);
            assert!(found.servers.iter().all(|server| !server.is_loopback()), "{text:?}");
        }
    }
}
