//! What is answered, over the real bridge.

use crate::support::{ALICE, Vm};
use banger_harness::inside::{Ran, banger, eventually, kill_9, run};
use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

/// The host's own IPv4 address on the bridge.
pub fn host() -> IpAddr {
    let mut ip = Command::new("/usr/sbin/ip");
    ip.args(["-4", "-o", "address", "show", "dev", "banger0"]);
    let told = run(ip, b"").expect(0).text();
    let word = told.split_whitespace().skip_while(|word| *word != "inet").nth(1).expect("an address");
    word.split('/').next().unwrap().parse().expect("an IPv4 address")
}

/// Asks, and shows the header, the answer and the authority.
pub fn dig(args: &[&str]) -> Ran {
    let mut dig = Command::new("/usr/bin/dig");
    dig.arg(format!("@{}", host())).args(["+noall", "+comments", "+answer", "+authority"]).args(args);
    run(dig, b"").expect(0)
}

/// The records of an answer, a line each. What dig says of attempts before is none.
fn records(args: &[&str]) -> Vec<String> {
    let mut short = vec!["+nocomments", "+noauthority"];
    short.extend(args);
    let told = dig(&short).text();
    told.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect()
}

fn addresses(vm: &str) -> Vec<String> {
    let shown = banger(ALICE, &["vm", "show", vm, "--format", "json"]).expect(0).json();
    let vm = shown.get(0).unwrap_or(&shown);
    let all = vm["addresses"].as_array().expect("addresses").iter();
    all.map(|address| address.as_str().expect("an address").to_owned()).collect()
}

/// The code of an answer, such as `NOERROR`.
#[track_caller]
fn status(args: &[&str]) -> String {
    let told = dig(args).text();
    let status = told.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    status.unwrap_or_else(|| panic!("no answer: {told}")).to_owned()
}

#[test]
fn a_vm_is_found_by_its_name_and_by_its_addresses_while_it_runs() {
    let vm = Vm::start("named");
    let own = addresses("named");
    assert_eq!(own.len(), 2, "IPv4 and IPv6: {own:?}");
    for (kind, address) in ["A", "AAAA"].into_iter().zip(&own) {
        for extra in [&[][..], &["+tcp"]] {
            let found = records(&[&["named.vm", kind], extra].concat());
            assert!(found.len() == 1 && found[0].ends_with(address.as_str()), "{kind} {extra:?}: {found:?}");
        }
        let back = records(&["-x", address]);
        // Whether a tab or a blank is between them depends on how long the name is.
        let told = back.first().map(|line| line.split_whitespace().rev().take(2).collect::<Vec<_>>());
        assert_eq!((back.len(), told), (1, Some(vec!["named.vm.", "PTR"])), "{back:?}");
    }
    assert_eq!(records(&["NaMeD.vM", "A"]).len(), 1, "in any letters");
    assert_eq!(status(&["x.named.vm"]), "NXDOMAIN");
    let nothing = dig(&["named.vm", "TXT"]).text();
    assert!(
        nothing.contains("NOERROR") && nothing.contains("ANSWER: 0") && nothing.contains("SOA"),
        "{nothing}"
    );
    assert_eq!(status(&["none.vm"]), "NXDOMAIN");
    assert_eq!(status(&["example.org"]), "REFUSED");
    assert_eq!(records(&["vm", "SOA"]).len(), 1);
    assert!(dig(&["named.vm", "A"]).text().contains(" aa "), "with authority");

    banger(ALICE, &["vm", "stop", "named"]).expect(0);
    let rests = dig(&["named.vm", "A"]).text();
    assert!(rests.contains("NOERROR") && rests.contains("ANSWER: 0"), "it exists, and is nowhere: {rests}");
    assert_eq!(status(&["-x", &own[0]]), "NXDOMAIN");
    banger(ALICE, &["vm", "rename", "named", "other"]).expect(0);
    assert_eq!(status(&["named.vm"]), "NXDOMAIN");
    banger(ALICE, &["vm", "start", "other"]).expect(0);
    assert!(records(&["other.vm", "A"])[0].ends_with(own[0].as_str()), "the same address as before");
    // Also while it runs.
    banger(ALICE, &["vm", "rename", "other", "again"]).expect(0);
    assert_eq!(status(&["other.vm"]), "NXDOMAIN");
    assert!(records(&["again.vm", "A"])[0].ends_with(own[0].as_str()));
    assert!(records(&["-x", &own[0]])[0].ends_with("again.vm."));
    let renamed = Vm("again");
    std::mem::forget(vm);
    renamed.remove();
    assert_eq!(status(&["again.vm"]), "NXDOMAIN");
}

#[test]
fn names_are_answered_again_after_each_of_the_services_was_killed() {
    let vm = Vm::start("outlives");
    let found = || records(&["+time=1", "+tries=1", "outlives.vm", "A"]);
    assert_eq!(found().len(), 1);
    kill_9("banger-hostd");
    assert_eq!(found().len(), 1, "the service has the sockets");
    kill_9("bangerd");
    // The next call starts it again.
    banger(ALICE, &["vm", "ls"]).expect(0);
    let mut dig = Command::new("/usr/bin/dig");
    dig.arg(format!("@{}", host())).args(["+short", "+time=1", "+tries=1", "outlives.vm"]);
    eventually("names are answered again", || {
        let mut again = Command::new(dig.get_program());
        again.args(dig.get_args());
        run(again, b"").text().starts_with(|c: char| c.is_ascii_digit())
    });
    vm.remove();
}

#[test]
fn a_flood_is_bounded_while_others_are_answered() {
    let vm = Vm::start("flooded");
    let server = SocketAddr::new(host(), 53);
    let threads = || {
        let pid = banger_harness::inside::pids("bangerd")[0];
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
    };
    let descriptors = || {
        let pid = banger_harness::inside::pids("bangerd")[0];
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let (threads_before, descriptors_before) = (threads(), descriptors());
    let connections: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(server).ok()).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let socket = UdpSocket::bind((host(), 0)).unwrap();
                for number in 0..30_000_u32 {
                    let junk = number.to_be_bytes().repeat(8);
                    socket.send_to(&junk, server).unwrap();
                }
            });
        }
        for _ in 0..5 {
            let found = records(&["+time=2", "+tries=10", "flooded.vm", "A"]);
            assert_eq!(found.len(), 1, "{found:?}");
        }
    });
    assert!(threads() <= threads_before + 2, "no thread for a query");
    assert!(descriptors() <= descriptors_before + 40, "connections are bounded");
    // What was too much was closed at once.
    let closed = connections.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut stream: &TcpStream = stream;
        matches!(stream.read(&mut [0]), Ok(0)) || {
            let end = stream.read(&mut [0]);
            end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        }
    });
    assert!(closed.count() > 100);
    vm.remove();
}
