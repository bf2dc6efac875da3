//! VMs' packets beside what a host does with its own.

use crate::host::{IMAGE, alice, answers, image, root, run, shown, systemctl};
use banger_harness::inside::eventually;
use std::process::{Child, Command, Stdio};

const IP: &str = "/usr/sbin/ip";
const FIREWALL: &str = "/usr/bin/firewall-cmd";

/// The rest of the world: a network of its own, behind a cable.
struct World {
    server: Child,
}

impl World {
    fn new() -> Self {
        for words in [
            "netns add world",
            "link add cable type veth peer name far netns world",
            "addr add 198.51.100.1/24 dev cable",
            "link set cable up",
            "-n world addr add 198.51.100.2/24 dev far",
            "-n world link set far up",
            "-n world link set lo up",
        ] {
            run(IP, &words.split(' ').collect::<Vec<_>>()).expect(0);
        }
        let mut server = Command::new(IP);
        server.args([
            "netns",
            "exec",
            "world",
            "/bin/busybox",
            "nc",
            "-ll",
            "-p",
            "80",
            "-e",
            "/bin/echo",
            "the world",
        ]);
        Self { server: server.stdin(Stdio::null()).spawn().unwrap() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        run(IP, &["netns", "del", "world"]);
    }
}

/// firewalld rejects what no zone of its lets through; VMs get out, are reached from outside where a port is published,
/// and still are after it has been reloaded.
pub fn beside_firewalld() {
    systemctl(&["unmask", "firewalld.service"]).expect(0);
    systemctl(&["start", "firewalld.service"]).expect(0);
    let world = World::new();
    image();
    let serve = ["--", "nc", "-ll", "-p", "80", "-e", "/bin/echo", "a VM"];
    let run_it = ["run", "-d", "--name", "walled", "--nat", "--memory", "192M", IMAGE];
    alice(&[&run_it[..], &serve].concat()).expect(0);
    // Beyond this computer only an administrator publishes.
    alice(&["vm", "publish", "walled", "0.0.0.0:8080:80"]).expect(125);
    root(&["vm", "publish", "walled", "0.0.0.0:8080:80"]).expect(0);
    let zone = || run(FIREWALL, &["--get-zone-of-interface=banger0"]).text();
    eventually("firewalld has the bridge in a zone", || zone().trim() == "trusted");
    run(FIREWALL, &["--reload"]).expect(0);
    eventually("firewalld has it again after a reload", || zone().trim() == "trusted");

    let reach = ["exec", "walled", "--", "nc", "-w", "5", "198.51.100.2", "80"];
    eventually("the VM reaches the world", || alice(&reach).text().contains("the world"));
    let from_outside = ["netns", "exec", "world", "/bin/busybox", "nc", "-w", "5", "198.51.100.1", "8080"];
    eventually("the world reaches the port", || run(IP, &from_outside).text().contains("a VM"));
    let address = shown("walled")["addresses"][0].as_str().unwrap().to_owned();
    run("/usr/bin/ping", &["-c", "1", "-W", "5", &address]).expect(0);
    answers("walled");
    alice(&["vm", "rm", "--force", "walled"]).expect(0);
    drop(world);
    systemctl(&["stop", "firewalld.service"]).expect(0);
}
