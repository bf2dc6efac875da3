//! The server through real sockets.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use banger_dns::{Server, SharedZone, Sockets, Zone};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// A server on free ports of the loopback, that knows `web` and `many`.
struct Running {
    zone: SharedZone,
    udp: SocketAddr,
    tcp: SocketAddr,
    _server: Server,
}

fn start() -> Running {
    let mut zone = Zone::new(vec!["172.30.0.0/18".parse().unwrap()], Vec::new());
    zone.set(&"web".parse().unwrap(), vec![Ipv4Addr::new(172, 30, 0, 6).into()]);
    zone.set(&"many".parse().unwrap(), (0..200).map(|n| IpAddr::from([172, 30, 1, n])).collect());
    let zone = Arc::new(RwLock::new(zone));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let server = Server::start(Sockets { udp: vec![udp], tcp: vec![tcp] }, Arc::clone(&zone)).unwrap();
    Running { zone, udp: at_udp, tcp: at_tcp, _server: server }
}

fn query(name: &str) -> Vec<u8> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

fn over_udp(to: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Only so that a test without an answer ends.
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.send_to(packet, to).unwrap();
    let mut buffer = [0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, to);
    Message::from_vec(&buffer[..length]).unwrap()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn send(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat())
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(Message::from_vec(&reply).unwrap())
}

#[test]
fn both_ways_give_the_same_answer_and_changes_are_seen_at_once() {
    let running = start();
    let mut stream = connect(running.tcp);
    for (name, count, code) in
        [("web.vm.", 1, ResponseCode::NoError), ("none.vm.", 0, ResponseCode::NXDomain)]
    {
        let packet = query(name);
        send(&mut stream, &packet).unwrap();
        for answer in [over_udp(running.udp, &packet), receive(&mut stream).unwrap()] {
            assert_eq!((answer.answers.len(), answer.metadata.response_code), (count, code), "{name}");
        }
    }
    running.zone.write().unwrap().remove(&"web".parse().unwrap());
    let gone = over_udp(running.udp, &query("web.vm."));
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn what_is_cut_over_udp_is_whole_over_tcp() {
    let running = start();
    let packet = query("many.vm.");
    let cut = over_udp(running.udp, &packet);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = connect(running.tcp);
    send(&mut stream, &packet).unwrap();
    assert_eq!(receive(&mut stream).unwrap().answers.len(), 200);
}

#[test]
fn several_queries_in_one_go_are_answered_in_order() {
    let running = start();
    let mut stream = connect(running.tcp);
    let packets: Vec<_> = ["web.vm.", "none.vm.", "many.vm."].map(query).into();
    let mut all = Vec::new();
    for packet in &packets {
        all.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        all.extend(packet);
    }
    stream.write_all(&all).unwrap();
    let counts: Vec<_> = packets.iter().map(|_| receive(&mut stream).unwrap().answers.len()).collect();
    assert_eq!(counts, [1, 0, 200]);
}

#[test]
fn connections_that_only_wait_are_few_and_keep_nobody_from_asking() {
    let running = start();
    // More than one address may have: those too many are closed without an answer.
    let mut streams: Vec<TcpStream> = (0..40).map(|_| connect(running.tcp)).collect();
    let packet = query("web.vm.");
    let served = streams.iter_mut().filter_map(|stream| {
        send(stream, &packet).ok()?;
        receive(stream).ok()
    });
    let served = served.count();
    assert!((1..=16).contains(&served), "{served} of 40");
    assert_eq!(over_udp(running.udp, &packet).answers.len(), 1, "over UDP all goes on");
    drop(streams);
    // Their places are free again as soon as the server has seen them go.
    let answered = (0..1000).any(|_| {
        let mut stream = connect(running.tcp);
        send(&mut stream, &packet).and_then(|()| receive(&mut stream)).is_ok()
    });
    assert!(answered);
}

#[test]
fn what_is_no_query_ends_its_connection() {
    let running = start();
    let mut answer = Message::from_vec(&query("web.vm.")).unwrap();
    answer.metadata.message_type = hickory_proto::op::MessageType::Response;
    let answer = answer.to_vec().unwrap();
    let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat();
    for bytes in [vec![0xff; 2], vec![0, 0], framed] {
        let mut stream = connect(running.tcp);
        stream.write_all(&bytes).unwrap();
        let end = stream.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_flood_of_nonsense_is_survived_and_the_next_query_answered() {
    let running = start();
    let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..50_000_u32 {
        let junk: Vec<u8> =
            number.to_be_bytes().iter().cycle().take(number as usize % 200).copied().collect();
        flood.send_to(&junk, running.udp).unwrap();
    }
    // What the flood has filled is read in order; a query that finds no room is sent again, as resolvers do.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 512];
    let answered = (0..20).any(|_| {
        socket.send_to(&query("web.vm."), running.udp).unwrap();
        socket.recv_from(&mut buffer).is_ok()
    });
    assert!(answered);
}

#[test]
fn a_server_that_is_dropped_lets_its_ports_go() {
    let running = start();
    let (udp, tcp) = (running.udp, running.tcp);
    drop(running);
    UdpSocket::bind(udp).unwrap();
    assert!(TcpStream::connect(tcp).is_err());
}
