//! `cargo xtask bench`: banger against a floor and against peers, measured in one run. Nothing here passes or fails.

mod dns;
mod floor;
mod peers;
mod pull;
mod scale;
mod vm;

use crate::{
    cargo::{self, Profile},
    host::{self, Accel, Needs},
    image,
    packages::{self, Purpose},
};
use anyhow::{Context, Result};
use banger_harness::{REGISTRY, THIS, User, images, inside};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

/// The argument that makes xtask measure, on the private host.
pub const ROLE: &str = "__bench";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// An image from a registry on this machine to an ext4 filesystem
    Pull,
    /// What banger adds to the start of a VM, to a command's output and to a listing
    Vm,
    /// Answers for names, 10,000 a second
    Dns,
}

/// See the command's own help.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "pull")]
    what: What,
    /// How often; the quickest of each counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leave the peers out, which take most of the time
    #[arg(long)]
    no_peers: bool,
    /// Measure how time grows, to 1,000,000 files and 20 GB, instead. Takes minutes and needs 40 GB of disk
    #[arg(long)]
    scale: bool,
    /// Keep the host's state there and not in /var/tmp: to measure on another filesystem
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What the part on the private host is told.
#[derive(Serialize, Deserialize)]
enum Job {
    Pull { layout: PathBuf, name: String, rounds: u32, peers: bool },
    Scale,
    Dns { rounds: u32 },
    Vm { layout: PathBuf, name: String, rounds: u32, caller: PathBuf },
}

/// Makes everything ready and measures on a private host.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::install(&[Purpose::Build, Purpose::Host, Purpose::Images, Purpose::Bench])?;
    let programs = cargo::build(Profile::Release)?;
    let rounds = arguments.rounds;
    let (job, accel) = match (arguments.what, arguments.scale) {
        (What::Pull, true) => (Job::Scale, Accel::Auto),
        (What::Pull, false) => {
            let image = image::layered()?;
            let peers = !arguments.no_peers;
            (Job::Pull { layout: image.layout, name: image.name, rounds, peers }, Accel::Auto)
        }
        (What::Dns, _) => (Job::Dns { rounds }, Accel::Tcg),
        (What::Vm, _) => {
            let image = image::debian()?;
            let caller = cargo::build_caller()?;
            (Job::Vm { layout: image.layout, name: image.name, rounds, caller }, Accel::Tcg)
        }
    };
    let state = arguments.state.clone();
    let needs = Needs { user: Some(User::Root), accel, state, ..Needs::default() };
    let report = host::run(&programs, needs, vec![THIS.into(), ROLE.into(), serde_json::to_string(&job)?])?;
    Ok(host::conclude(&report))
}

/// The part on the private host.
pub fn on_host(args: &[String]) -> Result<ExitCode> {
    match serde_json::from_str(args.first().context("no job")?)? {
        Job::Scale => scale::measure()?,
        Job::Dns { rounds } => dns::measure(rounds)?,
        Job::Vm { layout, name, rounds, caller } => vm::measure(&layout, &name, rounds as usize, &caller)?,
        Job::Pull { layout, name, rounds, peers } => {
            images::push(&layout, &format!("{REGISTRY}/{name}"))?;
            compare(&name, &layers(&layout)?, rounds, peers)?;
            pull::again(&name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Floors, banger and peers in turn, so that a busy minute does not hit one of them alone.
fn compare(name: &str, layers: &[String], rounds: u32, peers: bool) -> Result<()> {
    let repository = name.split(':').next().unwrap_or_default();
    let podman = if peers { Some(peers::Podman::new()?) } else { None };
    let mut best: Vec<(String, Duration)> = Vec::new();
    let mut figures = Vec::new();
    for _ in 0..rounds {
        let mut round = Vec::new();
        for inflater in floor::Inflater::ALL {
            let (written, on_disk) = floor::run(repository, layers, inflater)?;
            round.push((format!("floor, {inflater}"), written));
            round.push((format!("floor, {inflater}, on disk"), on_disk));
        }
        let figure = pull::fresh(name)?;
        round.push(("banger image pull".into(), figure.time));
        figures.push(figure);
        if let Some(podman) = &podman {
            round.push(("skopeo, umoci, mke2fs -d".into(), peers::skopeo(name)?));
            round.push((podman.to_string(), podman.pull(name)?));
        }
        if best.is_empty() {
            best = round;
        } else {
            best.iter_mut().zip(round).for_each(|(best, round)| best.1 = best.1.min(round.1));
        }
    }
    let quickest = |on_disk: bool| {
        let floors =
            best.iter().filter(|(name, _)| name.starts_with("floor") && name.ends_with("disk") == on_disk);
        floors.map(|(_, time)| time.as_secs_f64()).fold(f64::INFINITY, f64::min)
    };
    let (written, on_disk) = (quickest(false), quickest(true));
    println!("{:<32} {:>9} {:>9} {:>9}", "pull of one image", "seconds", "to floor", "on disk");
    for (name, time) in &best {
        let time = time.as_secs_f64();
        println!("{name:<32} {time:>9.3} {:>9.2} {:>9.2}", time / written, time / on_disk);
    }
    let most = |value: fn(&pull::Figure) -> f64| figures.iter().map(value).fold(0.0, f64::max);
    println!("\nof all pulls by banger, the worst");
    println!("{:<48} {:>9.3}", "bytes written / (content + compressed blobs)", most(|figure| figure.written));
    println!("{:<48} {:>9.1}", "memory of bangerd at its peak, MB", most(|figure| figure.memory));
    println!("{:<48} {:>9.3}", "processor time of bangerd, s", most(|figure| figure.processor.as_secs_f64()));
    Ok(())
}

/// The digests of a layout's layers.
fn layers(layout: &Path) -> Result<Vec<String>> {
    let read = |path: PathBuf| -> Result<serde_json::Value> {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let index = read(layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("an index without a manifest")?;
    let manifest = read(layout.join("blobs").join(digest.replace(':', "/")))?;
    let digests = manifest["layers"].as_array().context("a manifest without layers")?.iter();
    Ok(digests.filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect())
}

fn shortest(times: &[Duration]) -> Duration {
    times.iter().copied().min().unwrap_or_default()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A folder on the disk where everybody writes.
fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir_in(inside::state()).context("cannot make a folder")
}

/// Waits until nothing is left to be written, so that nobody pays for whoever was before.
fn settle() -> Result<()> {
    crate::machine::run(&mut Command::new("/bin/sync"))
}
