//! How quickly a name is answered for: the real server over the bridge's address, beside one that sends every datagram
//! back as it came.

use anyhow::{Context, Result, ensure};
use banger_harness::inside;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Queries in a second.
const RATE: u32 = 10_000;
/// For so long.
const SECONDS: u32 = 5;
/// The pause between two queries.
const EVERY: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);
/// The interface at whose addresses names are served.
const BRIDGE: &str = "banger0";
/// `vm. A`: id, one question, no flags. The first two bytes are counted.
const QUERY: [u8; 20] = *b"\0\0\0\0\0\x01\0\0\0\0\0\0\x02vm\0\0\x01\0\x01";

/// Measures both, `rounds` times in turn, and shows the better round of each.
pub fn measure(rounds: u32) -> Result<()> {
    let host = bridge()?;
    let _made = Made;
    let echo = UdpSocket::bind((host, 0)).context("no socket for an echo")?;
    let (at_echo, ends) = (echo.local_addr()?, AtomicBool::new(false));
    let (floor, names) = thread::scope(|scope| {
        scope.spawn(|| send_back(&echo, &ends));
        let mut best: [Option<Vec<Duration>>; 2] = [None, None];
        let measured = (0..rounds).try_for_each(|_| {
            for (best, server) in best.iter_mut().zip([at_echo, SocketAddr::new(host, 53)]) {
                let times = ask(host, server)?;
                if best.as_ref().is_none_or(|best| at(&times, 99.0) < at(best, 99.0)) {
                    *best = Some(times);
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        ends.store(true, Ordering::Relaxed);
        measured?;
        let [floor, names] = best.map(Option::unwrap_or_default);
        Ok::<_, anyhow::Error>((floor, names))
    })?;
    println!("{RATE} queries a second for {SECONDS} s, microseconds until the answer");
    println!("{:<24} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "median", "90 %", "99 %", "99.9 %", "lost");
    for (what, times) in [("sent back as it came", &floor), ("banger, vm. A", &names)] {
        let figures = [50.0, 90.0, 99.0, 99.9].map(|share| at(times, share).as_secs_f64() * 1e6);
        let figures: String = figures.iter().map(|figure| format!(" {figure:>9.1}")).collect();
        println!("{what:<24}{figures} {:>9}", (RATE * SECONDS) as usize - times.len());
    }
    let ratio = |share| at(&names, share).as_secs_f64() / at(&floor, share).as_secs_f64();
    println!("{:<24} {:>9.2} {:>9.2} {:>9.2}", "ratio", ratio(50.0), ratio(90.0), ratio(99.0));
    let quick = names.iter().filter(|time| **time < Duration::from_millis(1)).count();
    println!("{:<24} {:>8.3}%", "answered within 1 ms", quick as f64 * 100.0 / f64::from(RATE * SECONDS));
    Ok(())
}

/// The interface that was made for this, until dropped.
struct Made;

impl Drop for Made {
    fn drop(&mut self) {
        let mut ip = Command::new("/usr/sbin/ip");
        ip.args(["link", "del", BRIDGE]);
        inside::run(ip, b"");
    }
}

/// An interface of the bridge's name with the address that the service listens at: no VM is needed for that.
fn bridge() -> Result<IpAddr> {
    let doctor = inside::run(inside::client("root", &["doctor", "--format", "json"]), b"").json();
    let rows = doctor.as_array().context("no findings")?;
    ensure!(
        rows.iter().any(|row| row["id"] == "dns" && row["severity"] == "ok"),
        "names are not served: {doctor:#}"
    );
    let mut ss = Command::new("/usr/bin/env");
    ss.args(["ss", "-H", "-u", "-l", "-n", "-4", "sport", "=", ":53"]);
    let text = inside::run(ss, b"").text();
    let word =
        text.split_whitespace().find(|word| word.ends_with(":53")).context("nobody listens at port 53")?;
    let host: IpAddr = word.trim_end_matches(":53").parse().context("an address")?;
    for args in [
        vec!["link", "add", BRIDGE, "type", "bridge"],
        vec!["address", "add", &format!("{host}/19"), "dev", BRIDGE],
        vec!["link", "set", BRIDGE, "up"],
    ] {
        let mut ip = Command::new("/usr/sbin/ip");
        ip.args(args);
        // It is there already where a VM has been.
        inside::run(ip, b"");
    }
    Ok(host)
}

fn send_back(socket: &UdpSocket, ends: &AtomicBool) {
    // So that it sees the end.
    let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
    let mut buffer = [0; 512];
    while !ends.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// Asks at a steady rate, whether answers come or not, and returns how long each took, shortest first.
fn ask(from: IpAddr, server: SocketAddr) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind((from, 0)).context("no socket")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let count = (RATE * SECONDS) as usize;
    let sent: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let began = Instant::now();
    let times = thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let mut times = Vec::with_capacity(count);
            let (mut buffer, mut round, mut last) = ([0; 512], 0_u32, 0_u16);
            while times.len() < count {
                // Silence for half a second after the last query is the end.
                let Ok(length) = socket.recv(&mut buffer) else { break };
                let now = began.elapsed();
                if length < 12 {
                    continue;
                }
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                // Ids begin anew after 65536; answers come nearly in order.
                if id < 1000 && last > 64_000 {
                    round += 1;
                }
                last = id;
                let number = u32::from(id) + (round << 16);
                let sent = sent.get(number as usize).map_or(0, |sent| sent.load(Ordering::Acquire));
                times.push(now.saturating_sub(Duration::from_nanos(sent)));
            }
            times
        });
        for (number, sent) in sent.iter().enumerate() {
            let due = EVERY * u32::try_from(number).unwrap_or(u32::MAX);
            // A processor that waits for the next moment would be one that the server lacks. Who wakes up late sends
            // several at once.
            if let Some(pause) = due.checked_sub(began.elapsed()) {
                thread::sleep(pause);
            }
            let mut query = QUERY;
            query[..2].copy_from_slice(&(number as u16).to_be_bytes());
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            sent.store(now, Ordering::Release);
            socket.send(&query)?;
        }
        Ok::<_, std::io::Error>(answers.join())
    })?;
    let mut times = times.map_err(|_| anyhow::anyhow!("a thread broke off"))?;
    ensure!(!times.is_empty(), "{server} does not answer");
    times.sort_unstable();
    Ok(times)
}

/// What so many percent do not exceed.
fn at(times: &[Duration], percent: f64) -> Duration {
    let index = ((times.len() as f64 * percent / 100.0).ceil() as usize).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}
