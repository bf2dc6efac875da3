//! The VMs' network: who reaches whom, published ports, ways out, other firewalls, and what stays the same.

use super::support::{ALICE, Vm, image, refused, state};
use banger_harness::inside::{self, assert_no_residue, banger, eventually, kill_9};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Answers on a TCP port, for every connection anew.
const SERVE: &str = "busybox nc -ll -p 80 -e /bin/echo hello";

/// A program of the host's, to its end: whether it succeeded, and what it said.
fn host(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[track_caller]
fn ok(program: &str, args: &[&str]) -> String {
    let (done, text) = host(program, args);
    assert!(done, "{program} {args:?}: {text}");
    text
}

fn ip(args: &str) -> String {
    ok("/usr/sbin/ip", &args.split(' ').collect::<Vec<_>>())
}

fn nft(rules: &str) -> String {
    ok("/usr/sbin/nft", &[rules])
}

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

/// Makes and starts a VM with these flags.
fn start(name: &'static str, flags: &[&str]) -> Vm {
    let vm = Vm(name);
    banger(ALICE, &[&["vm", "create", "--image", image(), "--name", name], flags].concat()).expect(0);
    vm
}

fn show(vm: &str) -> Value {
    banger(ALICE, &["vm", "show", vm, "--format", "json"]).expect(0).json()[0].clone()
}

fn addresses(vm: &str) -> [String; 2] {
    let shown = show(vm);
    [0, 1].map(|index| shown["addresses"][index].as_str().unwrap().to_owned())
}

/// Whether a VM reaches an address.
fn pings(vm: &Vm, address: &str) -> bool {
    let ping = if address.contains(':') { "ping6" } else { "ping" };
    vm.exec(&["/bin/busybox", ping, "-c", "1", "-W", "3", address]).code == 0
}

fn gateways() -> [String; 2] {
    let text = ip("-o address show dev banger0 scope global");
    let find = |family: &str| {
        let line = text.lines().find(|line| line.contains(&format!(" {family} "))).unwrap();
        line.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned()
    };
    [find("inet"), find("inet6")]
}

/// Ends the helper politely; it comes again.
fn restart_helper() {
    for pid in inside::pids("banger-hostd") {
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        eventually("the helper has ended", || !inside::pids("banger-hostd").contains(&pid));
    }
    eventually("the helper is back", || !inside::pids("banger-hostd").is_empty());
}

fn is_there(device: &str) -> bool {
    host("/usr/sbin/ip", &["link", "show", "dev", device]).0
}

/// What a server at this address says.
fn hear(address: &str) -> Option<String> {
    let address = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Somebody else's computer: a network namespace behind a cable.
struct Outside(Child);

impl Outside {
    const HERE: &str = "198.51.100.1";
    const THERE: [&str; 2] = ["198.51.100.2", "2001:db8:5::2"];

    fn new() -> Self {
        ip("netns add outside");
        ip("link add up0 type veth peer name out0 netns outside");
        for command in [
            "address add 198.51.100.1/24 dev up0",
            "address add 2001:db8:5::1/64 dev up0 nodad",
            "link set up0 up",
            "-n outside address add 198.51.100.2/24 dev out0",
            "-n outside address add 2001:db8:5::2/64 dev out0 nodad",
            "-n outside link set out0 up",
            "-n outside link set lo up",
        ] {
            ip(command);
        }
        let server = Command::new("/usr/sbin/ip")
            .args([
                "netns",
                "exec",
                "outside",
                "/bin/busybox",
                "nc",
                "-ll",
                "-p",
                "7000",
                "-e",
                "/bin/echo",
                "outside",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(server)
    }

    /// What a server here says to somebody there.
    fn hears(&self, port: u16) -> String {
        let port = port.to_string();
        let args = ["netns", "exec", "outside", "/bin/busybox", "nc", "-w", "5", Self::HERE, &port];
        host("/usr/sbin/ip", &args).1
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        host("/usr/sbin/ip", &["link", "del", "up0"]);
        host("/usr/sbin/ip", &["netns", "del", "outside"]);
        // ip-netns(8) makes its folder a mount point, and leaves it one.
        host("/usr/bin/umount", &["/run/netns"]);
    }
}

/// What the server outside says to a VM.
fn from_outside(vm: &Vm) -> String {
    let nc = format!("busybox nc -w 5 {} 7000 < /dev/null", Outside::THERE[0]);
    vm.exec(&["/bin/sh", "-c", &nc]).text()
}

#[test]
fn vms_are_kept_apart_unless_both_are_shared_and_nobody_is_somebody_else() {
    let private = start("apart", &[]);
    let (one, two) =
        (start("shared-one", &["--network", "shared"]), start("shared-two", &["--network", "shared"]));
    for address in addresses(two.0) {
        assert!(pings(&one, &address), "shared to shared: {address}");
        assert!(!pings(&private, &address), "private to shared: {address}");
    }
    for address in addresses(private.0) {
        assert!(!pings(&one, &address), "shared to private: {address}");
    }
    for vm in [&private, &one] {
        for (gateway, own) in gateways().iter().zip(addresses(vm.0)) {
            assert!(pings(vm, gateway), "{} to the host: {gateway}", vm.0);
            assert!(host("/bin/busybox", &["ping", "-c", "1", "-W", "5", &own]).0, "the host to {own}");
        }
    }
    // The host's own services are nobody's business.
    let listener = TcpListener::bind(("0.0.0.0", 7100)).unwrap();
    let nc = format!("busybox nc -w 3 {} 7100 < /dev/null", gateways()[0]);
    assert_ne!(one.exec(&["/bin/sh", "-c", &nc]).code, 0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a VM reached a server of the host's");

    // Another address, and another's: neither gets an answer, and who has it still does.
    let [gateway, _] = gateways();
    let [stolen, _] = addresses(two.0);
    for address in [stolen.as_str(), "172.30.9.9"] {
        one.exec(&["/bin/busybox", "ip", "address", "add", &format!("{address}/32"), "dev", "eth0"])
            .expect(0);
        let ping = ["/bin/busybox", "ping", "-I", address, "-c", "1", "-W", "3", &gateway];
        assert_ne!(one.exec(&ping).code, 0, "{address}");
        one.exec(&["/bin/busybox", "ip", "address", "del", &format!("{address}/32"), "dev", "eth0"])
            .expect(0);
    }
    assert!(pings(&two, &gateway) && pings(&one, &gateway));
    one.exec(&["/bin/busybox", "ip", "link", "set", "eth0", "address", "02:ba:6e:00:ff:ff"]).expect(0);
    assert!(!pings(&one, &gateway), "with another MAC address");

    for vm in [one, two] {
        banger(ALICE, &["vm", "rm", "--force", vm.0]).expect(0);
    }
    private.remove();
}

#[test]
fn ports_ways_out_and_other_firewalls() {
    let outside = Outside::new();
    let forwarding =
        || ["ipv4/ip_forward", "ipv4/conf/up0/forwarding", "ipv6/conf/all/forwarding"].map(setting);
    assert_eq!(forwarding(), ["0", "0", "0"]);
    let web = start("web", &["-p", "8080:80", "--", "sh", "-c", SERVE]);
    eventually("the published port answers", || hear("127.0.0.1:8080").as_deref() == Some("hello\n"));
    assert_eq!(forwarding(), ["0", "0", "0"], "for this nothing has to route");
    assert!(TcpListener::bind("127.0.0.1:8080").is_err(), "the port is taken");
    assert!(!outside.hears(8080).contains("hello"), "loopback is for this host alone");
    assert_eq!(show(web.0)["ports"][0][1], 8080);

    // Without NAT nothing gets out; with it both families do.
    assert_eq!(from_outside(&web), "");
    let out = start("goes-out", &["--nat"]);
    assert_eq!(from_outside(&out), "outside\n");
    assert!(pings(&out, Outside::THERE[1]) && !pings(&web, Outside::THERE[1]), "IPv6");
    assert_eq!(forwarding(), ["0", "1", "1"], "the way out routes, and the host as such does not");
    assert_eq!(setting("ipv6/conf/up0/forwarding"), "0", "it still heeds routers");

    // A port for everybody takes an administrator.
    let ran = banger(ALICE, &["--verbose", "vm", "publish", web.0, "0.0.0.0:8081:80"]).expect(125);
    assert!(ran.errors().contains("Authori") || ran.errors().contains("AccessDenied"), "{ran}");
    banger("root", &["vm", "publish", web.0, "0.0.0.0:8081:80"]).expect(0);
    eventually("it is published", || outside.hears(8081).contains("hello"));
    assert_eq!(hear("198.51.100.1:8081").as_deref(), Some("hello\n"), "on the host's own address, too");
    banger(ALICE, &["vm", "unpublish", web.0, "0.0.0.0:8081:80"]).expect(0);
    assert!(!outside.hears(8081).contains("hello"));

    // Whoever comes second is told.
    let taken = TcpListener::bind("127.0.0.1:8090").unwrap();
    refused(ALICE, &["vm", "publish", web.0, "8090:80"], "InUse");
    drop(taken);
    refused(ALICE, &["vm", "publish", out.0, "8080:80"], "InUse");
    assert_eq!(hear("127.0.0.1:8080").as_deref(), Some("hello\n"), "a refusal changes nothing");

    // Rules as Docker makes them: what is forwarded is dropped, unless DOCKER-USER accepts it.
    nft(
        "table ip filter { chain DOCKER-USER { } ; chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; } ; }",
    );
    eventually("Docker's rules let it through", || from_outside(&out) == "outside\n");
    assert!(nft("list chain ip filter DOCKER-USER").contains("banger0"));
    // Somebody flushes all rules; ours come again.
    nft("flush ruleset");
    eventually("the rules are back", || host("/usr/sbin/nft", &["list table inet banger"]).0);
    eventually("a VM gets out again", || from_outside(&out) == "outside\n");
    assert_eq!(hear("127.0.0.1:8080").as_deref(), Some("hello\n"));
    nft(
        "table ip filter { chain DOCKER-USER { } ; chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; } ; }",
    );

    // The helper dies and comes again; VMs and their network go on.
    assert_eq!(kill_9("banger-hostd"), 1);
    assert_eq!(hear("127.0.0.1:8080").as_deref(), Some("hello\n"));
    eventually("the helper has taken the port again", || {
        !inside::pids("banger-hostd").is_empty() && TcpListener::bind("127.0.0.1:8080").is_err()
    });
    eventually("a VM gets out", || from_outside(&out) == "outside\n");

    // Addresses are a VM's own, however often it starts.
    let before = addresses(out.0);
    banger(ALICE, &["vm", "stop", out.0]).expect(0);
    assert_eq!(forwarding(), ["0", "0", "0"], "nobody goes out any more");
    banger(ALICE, &["vm", "start", out.0]).expect(0);
    assert_eq!(addresses(out.0), before);

    // A VM whose process dies takes its rules along.
    banger(ALICE, &["vm", "rm", "--force", out.0]).expect(0);
    web.remove();
    assert!(hear("127.0.0.1:8080").is_none());
    restart_helper();
    assert!(!is_there("banger0"), "the bridge goes with the helper");
    let rules = nft("list ruleset");
    assert!(!rules.contains("banger"), "{rules}");
    nft("delete table ip filter");
}

#[test]
fn a_conflict_is_named_and_avoided_while_there_is_no_vm() {
    restart_helper();
    let vm = Vm("later");
    banger(ALICE, &["vm", "create", "--no-start", "--image", image(), "--name", vm.0]).expect(0);
    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    let [before, _] = addresses(vm.0);
    let octets: Vec<&str> = before.split('.').collect();
    banger(ALICE, &["vm", "stop", vm.0]).expect(0);
    restart_helper();

    // Somebody else, a VPN say, takes the VMs' addresses.
    ip("link add tun7 type bridge");
    ip(&format!("address add {}.{}.0.5/16 dev tun7", octets[0], octets[1]));
    let ran = refused(ALICE, &["vm", "start", vm.0], "NetworkConflict");
    assert!(ran.errors().contains("tun7") && ran.errors().contains("config.toml"), "{ran}");
    assert!(!is_there("banger0"));
    // With a VM that has its address, the network stays, also when the service starts again.
    kill_9("bangerd");
    refused(ALICE, &["vm", "start", vm.0], "NetworkConflict");
    banger(ALICE, &["vm", "rm", "--force", vm.0]).expect(0);
    assert_eq!(state(vm.0), None);
    // Without one, another is chosen.
    kill_9("bangerd");
    let other = start("elsewhere", &[]);
    let [after, _] = addresses(other.0);
    assert!(!after.starts_with(&format!("{}.{}.", octets[0], octets[1])), "{after}");
    assert!(pings(&other, &gateways()[0]));
    other.remove();
    ip("link del tun7");
    assert_no_residue();
}
