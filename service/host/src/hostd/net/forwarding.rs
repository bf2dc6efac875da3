//! Routing between interfaces: switched on where VMs need it and nowhere else, remembered, and switched off again.
//!
//! IPv4 asks the interface through which a packet comes in (`conf/<interface>/forwarding`). IPv6 asks one switch for
//! the whole host (`conf/all/forwarding`), which, thrown as it is, also makes every interface a router's: it would
//! forget the routes that routers have announced. So each interface gets its own setting back.
//!
//! <https://docs.kernel.org/networking/ip-sysctl.html>

use super::bridge::{NAME, TAP};
use super::rules::Guarded;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

/// What was switched on, and was off before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Interfaces, for IPv4.
    pub v4: BTreeSet<String>,
    /// The host, for IPv6.
    pub v6: bool,
}

impl Changed {
    /// What nothing but VMs' packets may use.
    pub fn guarded(&self) -> Guarded {
        Guarded { v4: self.v4.clone(), v6: self.v6 }
    }
}

/// How the host is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    /// Whether the host routes IPv4 on all interfaces.
    v4_all: bool,
    /// Whether each interface does.
    v4: BTreeMap<String, bool>,
    /// Whether the host routes IPv6.
    v6_all: bool,
    /// Whether an interface that is made would be a router's.
    v6_default: bool,
}

/// What to switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plan {
    on: Vec<String>,
    off: Vec<String>,
    v6: Option<bool>,
    changed: Changed,
}

/// Decides. A host that somebody else has made a router since is theirs: it is left as it is.
fn plan(wanted: bool, now: &Settings, before: &Changed, uplinks: &BTreeSet<String>) -> Plan {
    let mut plan = Plan::default();
    // Whoever throws IPv6's one switch changes the default of new interfaces too; we put that back.
    let v6_ours = before.v6 && now.v6_all && !now.v6_default;
    if !now.v4_all {
        let ours = before.v4.iter().filter(|name| now.v4.get(*name) == Some(&true));
        let (keep, off): (BTreeSet<_>, Vec<_>) = match wanted {
            true => (ours.cloned().collect(), Vec::new()),
            false => (BTreeSet::new(), ours.cloned().collect()),
        };
        if wanted {
            plan.on = uplinks.iter().filter(|name| now.v4.get(*name) == Some(&false)).cloned().collect();
        }
        plan.off = off;
        plan.changed.v4 = keep.into_iter().chain(plan.on.iter().cloned()).collect();
    }
    match (wanted, now.v6_all) {
        (true, false) => {
            plan.v6 = Some(true);
            plan.changed.v6 = true;
        }
        (true, true) => plan.changed.v6 = v6_ours,
        (false, _) => plan.v6 = v6_ours.then_some(false),
    }
    plan
}

fn path(family: &str, interface: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{interface}/{key}")
}

/// A switch; off where there is none.
fn read(family: &str, interface: &str, key: &str) -> u8 {
    let text = fs::read_to_string(path(family, interface, key)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Sets one; an interface that has gone needs none.
fn write(family: &str, interface: &str, key: &str, value: u8) -> io::Result<()> {
    let path = path(family, interface, key);
    match fs::write(&path, value.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The interfaces that have settings, but loopback and our own.
fn interfaces(family: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/sys/net/{family}/conf")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !["all", "default", "lo", NAME].contains(&name.as_str()) && !name.starts_with(TAP))
        .collect()
}

fn settings() -> Settings {
    let on = |family, interface: &str| read(family, interface, "forwarding") != 0;
    Settings {
        v4_all: on("ipv4", "all"),
        v4: interfaces("ipv4").into_iter().map(|name| (name.clone(), on("ipv4", &name))).collect(),
        v6_all: on("ipv6", "all"),
        v6_default: on("ipv6", "default"),
    }
}

/// Makes the host route, or not, for VMs whose packets go through `uplinks`. `remember` is told what is about to be
/// changed before it is, and the result is what is changed now.
pub fn settle(
    wanted: bool,
    before: &Changed,
    uplinks: &BTreeSet<String>,
    remember: impl FnOnce(&Changed) -> io::Result<()>,
) -> io::Result<Changed> {
    if !wanted && *before == Changed::default() {
        return Ok(Changed::default());
    }
    let plan = plan(wanted, &settings(), before, uplinks);
    let acts = !(plan.on.is_empty() && plan.off.is_empty() && plan.v6.is_none());
    if acts && wanted {
        remember(&Changed {
            v4: before.v4.union(&plan.changed.v4).cloned().collect(),
            v6: before.v6 || plan.changed.v6,
        })?;
    }
    if wanted {
        write("ipv4", NAME, "forwarding", 1)?;
    }
    for (names, value) in [(&plan.on, 1), (&plan.off, 0)] {
        for name in names {
            write("ipv4", name, "forwarding", value)?;
        }
    }
    if let Some(on) = plan.v6 {
        switch_v6(on)?;
    }
    Ok(plan.changed)
}

/// Throws IPv6's one switch, and puts every interface's own back as it was.
fn switch_v6(on: bool) -> io::Result<()> {
    let names = interfaces("ipv6");
    let router = |name: &str| read("ipv6", name, "forwarding");
    let before: Vec<(&String, u8)> = names.iter().map(|name| (name, router(name))).collect();
    // Routes from announcements are dropped when an interface becomes a router's, unless it heeds them even then.
    let listening: Vec<&String> =
        names.iter().filter(|name| router(name) == 0 && read("ipv6", name, "accept_ra") == 1).collect();
    for name in listening.iter().filter(|_| on) {
        write("ipv6", name, "accept_ra", 2)?;
    }
    let default = router("default");
    write("ipv6", "all", "forwarding", on.into())?;
    for (name, value) in before {
        write("ipv6", name, "forwarding", value)?;
    }
    write("ipv6", "default", "forwarding", default)?;
    for name in listening.iter().filter(|_| on) {
        write("ipv6", name, "accept_ra", 1)?;
    }
    write("ipv6", NAME, "forwarding", on.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// A host that carries a plan out.
    fn after(mut now: Settings, plan: &Plan) -> Settings {
        for (list, value) in [(&plan.on, true), (&plan.off, false)] {
            for name in list {
                now.v4.insert(name.clone(), value);
            }
        }
        now.v6_all = plan.v6.unwrap_or(now.v6_all);
        now
    }

    fn any_settings() -> impl Strategy<Value = Settings> {
        let v4 = prop::collection::btree_map("eth[0-3]", any::<bool>(), 0..4);
        (any::<bool>(), v4, any::<bool>(), any::<bool>()).prop_map(|(all, mut v4, v6_all, v6_default)| {
            if all {
                v4.values_mut().for_each(|on| *on = true);
            }
            Settings { v4_all: all, v4, v6_all, v6_default: v6_all && v6_default }
        })
    }

    proptest! {
        #[test]
        fn a_host_is_afterwards_as_it_was(host in any_settings(), uplinks in prop::collection::btree_set("eth[0-3]", 0..4)) {
            let nothing = Changed::default();
            let on = plan(true, &host, &nothing, &uplinks);
            let routing = after(host.clone(), &on);
            prop_assert!(uplinks.iter().all(|name| routing.v4.get(name) != Some(&false)));
            prop_assert!(routing.v6_all);
            let again = plan(true, &routing, &on.changed, &uplinks);
            prop_assert_eq!(&again.changed, &on.changed);
            prop_assert!(again.on.is_empty() && again.off.is_empty() && again.v6.is_none());
            let off = plan(false, &routing, &on.changed, &uplinks);
            prop_assert_eq!(&off.changed, &nothing);
            prop_assert_eq!(after(routing, &off), host);
        }

        #[test]
        fn a_router_is_left_alone(host in any_settings(), uplinks in prop::collection::btree_set("eth[0-3]", 0..4)) {
            let router = Settings { v4_all: true, v6_all: true, v6_default: true, ..host };
            let made = Changed { v4: uplinks.clone(), v6: true };
            for wanted in [true, false] {
                let plan = plan(wanted, &router, &made, &uplinks);
                prop_assert_eq!(plan, Plan::default());
            }
        }
    }

    #[test]
    fn only_ways_out_are_switched_on() {
        let v4 = [("eth0", false), ("eth1", false), ("wg0", true)].map(|(name, on)| (name.to_owned(), on));
        let now = Settings { v4: v4.into(), ..Settings::default() };
        let plan = plan(true, &now, &Changed::default(), &names(&["eth0", "wg0"]));
        assert_eq!(plan.on, ["eth0"]);
        assert_eq!(plan.changed, Changed { v4: names(&["eth0"]), v6: true });
    }
}
