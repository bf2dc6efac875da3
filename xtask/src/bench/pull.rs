//! Pulls by banger: how long, and what they cost.

use super::{settle, shortest};
use anyhow::{Context, Result, ensure};
use banger_harness::{REGISTRY, inside};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// What the images of the benchmark are called.
pub const NAME: &str = "bench";
const BLOBS: &str = "/var/lib/banger/blobs/sha256";

/// What one pull took.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// From the client's start to its end.
    pub time: Duration,
    /// Bytes that bangerd had written, for each byte of content and of compressed blobs.
    pub written: f64,
    /// The most memory that bangerd had, in MB of 1,000,000 bytes.
    pub memory: f64,
    /// bangerd's own processor time.
    pub processor: Duration,
}

/// Pulls into an empty cache, and removes the image and its blobs.
pub fn fresh(name: &str) -> Result<Figure> {
    // The service runs, and has answered once.
    banger(&["image", "ls"])?;
    settle()?;
    let service = Service::find()?;
    service.forget_peak()?;
    let (written, processor) = (service.written()?, service.processor()?);
    let time = pull(name)?;
    let (written, processor) = (service.written()? - written, service.processor()? - processor);
    let image: serde_json::Value = serde_json::from_str(&banger(&["image", "show", "--format=json", NAME])?)?;
    let bytes = |key: &str| image[0][key].as_u64().with_context(|| format!("no {key} in {image}"));
    let least = bytes("content")? + bytes("compressed")?;
    let figure = Figure { time, written: written as f64 / least as f64, memory: service.peak()?, processor };
    banger(&["image", "rm", NAME])?;
    for blob in fs::read_dir(BLOBS).into_iter().flatten().flatten() {
        fs::remove_file(blob.path()).context("cannot empty the blob cache")?;
    }
    Ok(figure)
}

/// Pulls what is here: as an image, and as layers in the cache.
pub fn again(name: &str) -> Result<()> {
    pull(name)?;
    let present = (0..10).map(|_| pull(name)).collect::<Result<Vec<_>>>()?;
    banger(&["image", "rm", NAME])?;
    let before = requests()?.len();
    let cached = pull(name)?;
    let all = requests()?;
    println!("\nwhat is here already");
    println!("{:<48} {:>9.1}", "pull of a present image, ms", shortest(&present).as_secs_f64() * 1e3);
    println!("{:<48} {:>9.3}", "pull with all layers cached, s", cached.as_secs_f64());
    println!("{:<48} {:>9}", "its requests to the registry", all.len() - before);
    all[before..].iter().for_each(|request| println!("  {request}"));
    banger(&["image", "rm", NAME]).map(drop)
}

/// How long the client takes for a pull.
fn pull(name: &str) -> Result<Duration> {
    let began = Instant::now();
    banger(&["image", "pull", "--name", NAME, &format!("{REGISTRY}/{name}")])?;
    Ok(began.elapsed())
}

/// What the client prints.
fn banger(args: &[&str]) -> Result<String> {
    let ran = inside::banger("root", args);
    ensure!(ran.code == 0, "{ran}");
    Ok(ran.text())
}

/// Methods and paths of the requests in the registry's access log so far.
fn requests() -> Result<Vec<String>> {
    let log =
        fs::read_to_string(inside::state().join("logs/registry.log")).context("no log of the registry")?;
    let quoted = log.lines().filter_map(|line| line.split('"').nth(1));
    let requests = quoted.filter_map(|request| request.strip_suffix(" HTTP/1.1"));
    Ok(requests.map(str::to_owned).collect())
}

/// The running bangerd, seen through proc_pid(5).
struct Service(i32);

impl Service {
    fn find() -> Result<Self> {
        Ok(Self(*inside::pids("bangerd").first().context("bangerd does not run")?))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = Path::new("/proc").join(self.0.to_string()).join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The number after `key` in one of its files.
    fn number(&self, file: &str, key: &str) -> Result<u64> {
        let text = self.read(file)?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    }

    /// Bytes that it caused to be written.
    fn written(&self) -> Result<u64> {
        self.number("io", "write_bytes:")
    }

    fn peak(&self) -> Result<f64> {
        Ok(self.number("status", "VmHWM:")? as f64 * 1024.0 / 1e6)
    }

    /// The peak counts from now on.
    fn forget_peak(&self) -> Result<()> {
        fs::write(Path::new("/proc").join(self.0.to_string()).join("clear_refs"), "5")
            .context("cannot reset VmHWM")
    }

    /// User and system time; the fields 14 and 15 of `stat`, in hundredths of a second.
    fn processor(&self) -> Result<Duration> {
        let text = self.read("stat")?;
        let fields = text.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
    }
}
