//! The bus policy and the activation file: what they say, and that a real bus takes them.

use banger_dbus::names::{INTERFACES, SERVICE};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

const POLICY: &str = include_str!("../org.banger.Manager.conf");
const ACTIVATION: &str = include_str!("../org.banger.Manager.service");

/// Every rule as `who: verb attribute=value ...`.
fn rules() -> Vec<String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(POLICY, options).expect("the policy is XML");
    let mut rules = Vec::new();
    for policy in document.root_element().children().filter(|node| node.is_element()) {
        assert_eq!(policy.tag_name().name(), "policy");
        let who: Vec<_> = policy.attributes().map(|a| format!("{}={}", a.name(), a.value())).collect();
        for rule in policy.children().filter(|node| node.is_element()) {
            let what: Vec<_> = rule.attributes().map(|a| format!("{}={}", a.name(), a.value())).collect();
            rules.push(format!("{}: {} {}", who.join(" "), rule.tag_name().name(), what.join(" ")));
        }
    }
    rules
}

#[test]
fn only_the_service_and_root_own_the_name() {
    let owning: BTreeSet<String> = rules().into_iter().filter(|rule| rule.contains(" own")).collect();
    let expected = [
        format!("user=banger: allow own={SERVICE}"),
        format!("user=root: allow own={SERVICE}"),
        format!("context=default: deny own={SERVICE}"),
    ];
    assert_eq!(owning, expected.into());
}

#[test]
fn everybody_may_call_our_interfaces_and_the_standard_ones() {
    let standard = ["Introspectable", "ObjectManager", "Peer", "Properties"];
    let standard = standard.map(|name| format!("org.freedesktop.DBus.{name}"));
    let interfaces = INTERFACES.iter().map(|name| name.to_string()).chain(standard);
    let expected: BTreeSet<String> = interfaces
        .map(|name| format!("context=default: allow send_destination={SERVICE} send_interface={name}"))
        .collect();
    let default = |rule: &String| rule.starts_with("context=default: allow send");
    assert_eq!(rules().into_iter().filter(default).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn the_activation_file_leaves_the_start_to_systemd() {
    let mut lines = ACTIVATION.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(lines.next(), Some("[D-BUS Service]"));
    let keys: Vec<_> = lines.map(|line| line.split_once('=').unwrap()).collect();
    let expected =
        [("Name", SERVICE), ("Exec", "/bin/false"), ("User", "root"), ("SystemdService", "bangerd.service")];
    assert_eq!(keys, expected);
}

/// A bus of our own, ended with the test.
struct Bus(Child);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_bus_takes_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("policy.conf"), POLICY).unwrap();
    // The rules of /usr/share/dbus-1/system.conf, which every real system bus has.
    let config = format!(
        "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
         <policy context=\"default\">
         <allow user=\"*\"/><deny own=\"*\"/><deny send_type=\"method_call\"/>
         <allow send_type=\"signal\"/><allow send_requested_reply=\"true\" send_type=\"method_return\"/>
         <allow send_requested_reply=\"true\" send_type=\"error\"/>
         <allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>
         <allow receive_type=\"error\"/><allow receive_type=\"signal\"/>
         <allow send_destination=\"org.freedesktop.DBus\"/></policy>
         <include>{}</include></busconfig>",
        path("bus"),
        path("policy.conf")
    );
    std::fs::write(path("bus.conf"), config).unwrap();
    let mut bus = Command::new("/usr/bin/dbus-daemon")
        .args([&format!("--config-file={}", path("bus.conf")), "--nofork", "--print-address"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs the dbus-daemon package");
    let mut address = String::new();
    BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let _bus = Bus(bus);

    let connection =
        zbus::connection::Builder::address(address.trim()).build().await.expect("the bus came up");
    let owned = connection.request_name(SERVICE).await;
    let uid = connection.peer_creds().await.unwrap().unix_user_id().unwrap();
    // Root is who may own the name besides the service's own user, whom a test machine need not have.
    assert_eq!(owned.is_ok(), uid == 0, "{owned:?} as uid {uid}");
    let other = connection.request_name("org.banger.Other").await;
    assert!(other.is_err(), "the policy is about one name");
}
