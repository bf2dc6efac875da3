//! How fast the processor's time stamp counter runs, which a guest under emulation has to be told.
//!
//! QEMU's `microvm` has hardware-reduced ACPI and so no timer tick that the guest's kernel could rely on before it
//! knows the counter's speed. It measures that against the PIT, and on a busy host, where the virtual processor is
//! preempted meanwhile, it gives up and then waits for a tick for ever. Under emulation the guest's counter is the
//! host's own, so the host can simply say.

use crate::ioctl;
use std::{
    fs,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// The longer, the more exact: over this time, an error of 200 ns in reading both clocks is 4 parts in a million.
const MEASURED: Duration = Duration::from_millis(50);

/// How often a pair of readings is tried, to find one that nothing came in between.
const TRIES: usize = 32;

/// Its speed in kHz, measured once; `None` where it does not run evenly.
pub fn khz() -> Option<u32> {
    static KHZ: OnceLock<Option<u32>> = OnceLock::new();
    *KHZ.get_or_init(|| fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| is_even(&text)).then(measure)?)
}

/// Whether the counter runs on in every state of the processor, at one speed.
fn is_even(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    ["constant_tsc", "nonstop_tsc"].iter().all(|flag| flags.split_whitespace().any(|word| word == *flag))
}

fn measure() -> Option<u32> {
    let (first, began) = reading()?;
    thread::sleep(MEASURED);
    let (second, ended) = reading()?;
    let nanoseconds = ended.duration_since(began).as_nanos();
    let ticks = u128::from(second.checked_sub(first)?);
    u32::try_from(ticks * 1_000_000 / nanoseconds.max(1)).ok().filter(|khz| *khz > 0)
}

/// The counter and the clock at the same moment, or nearly.
fn reading() -> Option<(u64, Instant)> {
    let pair = |_| {
        let before = Instant::now();
        let ticks = ioctl::time_stamp()?;
        Some((before.elapsed(), ticks, before))
    };
    let closest = (0..TRIES).filter_map(pair).min_by_key(|(apart, ..)| *apart)?;
    Some((closest.1, closest.2 + closest.0 / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_even_counter_counts() {
        assert!(is_even("processor\t: 0\nflags\t\t: fpu tsc constant_tsc rep_good nonstop_tsc\n"));
        assert!(!is_even("flags\t\t: fpu tsc constant_tsc\n"));
        assert!(!is_even("Features\t: fp asimd\n"));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        let (one, other) = (measure().unwrap(), measure().unwrap());
        // Parts in a thousand: far more than the error, far less than any mistake.
        assert!(one.abs_diff(other) < one / 1000, "{one} {other}");
    }
}
