//! Who a command runs as: the guest's own `/etc/passwd` and `/etc/group`, passwd(5) and group(5).
//!
//! A static binary has no name service switch, and an image may have neither file.

use banger_guest::wire::ExecFailure;
use std::{fs::File, io::Read};

/// Longest account file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub name: String,
    pub home: String,
}

/// Finds the user that `spec` names, in the guest's files.
pub fn find(spec: Option<&str>) -> Result<User, ExecFailure> {
    resolve(spec.unwrap_or(""), &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // A file that cannot be read is one without entries.
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of either file: name, id, and the remaining fields.
struct Entry<'a> {
    name: &'a str,
    id: u32,
    rest: Vec<&'a str>,
}

fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Entry { name, id: id.parse().ok()?, rest: fields.collect() })
    })
}

/// The rules of OCI images' users: an unknown number is taken as it is, with group 0; an explicit group
/// replaces the user's groups, otherwise every group that lists the user is supplementary.
fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, ExecFailure> {
    let (user, wanted) = match spec.split_once(':') {
        Some((user, wanted)) => (user, Some(wanted).filter(|w| !w.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    // A name goes before a number that looks like it.
    let known = entries(passwd)
        .find(|e| e.name == user)
        .or_else(|| number.and_then(|n| entries(passwd).find(|e| e.id == n)));
    let mut found = match (&known, number) {
        (Some(entry), _) => User {
            uid: entry.id,
            gid: entry.rest.first().and_then(|gid| gid.parse().ok()).unwrap_or(0),
            groups: Vec::new(),
            name: entry.name.to_owned(),
            home: entry.rest.get(2).filter(|h| h.starts_with('/')).unwrap_or(&"/").to_string(),
        },
        (None, Some(uid)) => {
            let (name, home) = if uid == 0 { ("root", "/root") } else { (user, "/") };
            User { uid, gid: 0, groups: Vec::new(), name: name.to_owned(), home: home.to_owned() }
        }
        (None, None) => return Err(ExecFailure::NoSuchUser),
    };
    // All bits set means "leave it" to setresuid(2).
    if found.uid == u32::MAX {
        return Err(ExecFailure::NoSuchUser);
    }
    match wanted {
        Some(wanted) => {
            let named = entries(group).find(|e| e.name == wanted).map(|e| e.id);
            found.gid = named.or_else(|| wanted.parse().ok()).ok_or(ExecFailure::NoSuchGroup)?;
        }
        None => {
            let lists = |e: &Entry| e.rest.first().is_some_and(|m| m.split(',').any(|m| m == found.name));
            found.groups = entries(group).filter(lists).map(|e| e.id).collect();
            // As many as the kernel takes (NGROUPS_MAX).
            found.groups.truncate(65536);
        }
    }
    if found.gid == u32::MAX {
        return Err(ExecFailure::NoSuchGroup);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
        broken line\n\
        bad:x:many:1::/:\n\
        1000:x:7:8:a name made of digits:/srv:\n\
        postgres:x:101:104::relative:\n\
        huge:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:www-data,postgres\nwww-data:x:33:\nssl:x:110:postgres\n";

    fn of(spec: &str) -> (u32, u32, Vec<u32>, String, String) {
        let user = resolve(spec, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.groups, user.name, user.home)
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(of(""), (0, 0, vec![], "root".into(), "/root".into()));
        assert_eq!(of("www-data"), (33, 33, vec![4], "www-data".into(), "/var/www".into()));
        assert_eq!(of("33"), of("www-data"));
        assert_eq!(of("postgres"), (101, 104, vec![4, 110], "postgres".into(), "/".into()));
        assert_eq!(of("65534"), (65534, 0, vec![], "65534".into(), "/".into()));
        assert_eq!(of("1000").0, 7, "a name goes before a number");
    }

    #[test]
    fn a_group_of_its_own_replaces_the_others() {
        assert_eq!(of("postgres:adm").1, 4);
        assert!(of("postgres:adm").2.is_empty());
        assert_eq!(of("33:999").1, 999);
        assert_eq!(of(":adm").1, 4);
        assert_eq!(of("postgres:"), of("postgres"));
    }

    #[test]
    fn who_is_not_there_is_not_there() {
        for spec in ["nobody", "bad", "broken line", "-1", "4294967295", "huge", "4294967296"] {
            assert_eq!(resolve(spec, PASSWD, GROUP), Err(ExecFailure::NoSuchUser), "{spec}");
        }
        for spec in ["root:nogroup", "root:-1", "root:4294967295", "root:adm:adm"] {
            assert_eq!(resolve(spec, PASSWD, GROUP), Err(ExecFailure::NoSuchGroup), "{spec}");
        }
    }

    #[test]
    fn an_image_without_accounts_has_root_and_numbers() {
        let user = resolve("", "", "").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/root"));
        assert_eq!(resolve("5:6", "", "").unwrap().gid, 6);
        assert_eq!(resolve("root", "", ""), Err(ExecFailure::NoSuchUser));
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(spec in ".{0,20}", passwd in "[a-z0-9:,\n]{0,80}", group in "[a-z0-9:,\n]{0,80}") {
            if let Ok(user) = resolve(&spec, &passwd, &group) {
                prop_assert!(user.home.starts_with('/'));
            }
        }
    }
}
