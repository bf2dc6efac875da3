//! What the guest measures of itself, out of /proc (proc(5)).

use banger_guest::wire::{Figures, Listener, MOST_LISTENERS};
use nix::sys::statvfs::statvfs;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A tick of /proc/stat, in milliseconds (`USER_HZ`, time(7)).
const TICK_MS: u64 = 10;

/// The states of /proc/net/tcp that matter here (linux/tcp_states.h).
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// How this guest is now. What cannot be read is 0.
pub fn measure() -> Figures {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (busy_ms, cpus) = processors(&read("/proc/stat"));
    let memory = read("/proc/meminfo");
    let sockets = Sockets::read(&read("/proc/net/tcp"), &read("/proc/net/tcp6"));
    let disk = statvfs("/").ok();
    let bytes = |blocks: fn(&nix::sys::statvfs::Statvfs) -> u64| {
        disk.as_ref().map_or(0, |disk| blocks(disk).saturating_mul(disk.fragment_size()))
    };
    Figures {
        uptime_ms: uptime(&read("/proc/uptime")),
        busy_ms,
        cpus,
        memory: kib_of(&memory, "MemTotal:"),
        memory_available: kib_of(&memory, "MemAvailable:"),
        tasks: tasks(&read("/proc/loadavg")),
        disk: bytes(|disk| disk.blocks()),
        disk_available: bytes(|disk| disk.blocks_available()),
        connections: sockets.connections,
        listeners: sockets.listeners.into_iter().take(MOST_LISTENERS).collect(),
    }
}

/// Milliseconds of work, and how many processors there are.
fn processors(stat: &str) -> (u64, u32) {
    let count = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is in user already.
    let ticks: Vec<u64> = all.split_whitespace().take(8).filter_map(|n| n.parse().ok()).collect();
    let idle = ticks.iter().skip(3).take(2).fold(0u64, |sum, n| sum.saturating_add(*n));
    let total = ticks.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    (total.saturating_sub(idle).saturating_mul(TICK_MS), u32::try_from(count).unwrap_or(u32::MAX))
}

fn uptime(text: &str) -> u64 {
    let (seconds, parts) = text.split_whitespace().next().and_then(|n| n.split_once('.')).unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(seconds).saturating_mul(1000).saturating_add(number(parts).min(99) * 10)
}

fn kib_of(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// The second number of the fourth field: `1/123`.
fn tasks(text: &str) -> u32 {
    let field = text.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    field.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

#[derive(Default)]
struct Sockets {
    listeners: BTreeSet<Listener>,
    connections: u32,
}

impl Sockets {
    fn read(four: &str, six: &str) -> Self {
        let mut sockets = Self::default();
        for line in four.lines().chain(six.lines()).skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match state {
                LISTEN => sockets.listeners.extend(endpoint(local)),
                ESTABLISHED
                    if endpoint(remote).is_some_and(|it| !it.address.to_canonical().is_loopback()) =>
                {
                    sockets.connections = sockets.connections.saturating_add(1);
                }
                _ => {}
            }
        }
        sockets
    }
}

/// `0100007F:1F90`: an address as 32-bit words in the machine's order, and a port.
fn endpoint(text: &str) -> Option<Listener> {
    let (address, port) = text.split_once(':')?;
    let word =
        |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some(Listener { port: u16::from_str_radix(port, 16).ok()?, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FOUR: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1
   2: 02001EAC:0050 01001EAC:D431 01 00000000:00000000 00:00000000 00000000     0        0 14 1
   3: 0100007F:1F90 0100007F:D432 01 00000000:00000000 00:00000000 00000000     0        0 15 1
";
    const SIX: &str = "\
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:0277 0000000000000000FFFF00000100007F:0278 01 00000000:00000000
";

    #[test]
    fn listeners_are_told_and_only_others_count_as_connected() {
        let sockets = Sockets::read(FOUR, SIX);
        let told: Vec<String> =
            sockets.listeners.iter().map(|l| format!("{} {}", l.port, l.address)).collect();
        assert_eq!(told, ["80 0.0.0.0", "80 ::", "631 ::1", "8080 127.0.0.1"]);
        assert_eq!(sockets.connections, 1);
    }

    #[test]
    fn time_and_memory_are_read() {
        let stat = "cpu  10 1 5 1000 7 2 1 1 3 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(processors(stat), (200, 2));
        assert_eq!(uptime("12.34 99.9\n"), 12_340);
        assert_eq!(tasks("0.00 0.01 0.05 1/123 456\n"), 123);
        assert_eq!(kib_of("MemFree: 1 kB\nMemTotal:  200 kB\n", "MemTotal:"), 200 << 10);
    }

    #[test]
    fn this_machine_has_figures() {
        let figures = measure();
        assert!(figures.is_bounded());
        assert!(figures.uptime_ms > 0 && figures.busy_ms > 0 && figures.cpus > 0 && figures.tasks > 0);
        assert!(figures.memory > figures.memory_available && figures.disk > 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(\\PC{0,12}[ :\n./]){0,12}") {
            let (_, _) = processors(&text);
            let _ = (uptime(&text), kib_of(&text, "a"), tasks(&text));
            let sockets = Sockets::read(&text, &text);
            prop_assert!(sockets.listeners.len() <= text.lines().count());
        }
    }
}
