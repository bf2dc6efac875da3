//! `cargo xtask bench`: banger against a floor and against peers, measured in one run. Nothing here passes or fails.

use crate::{
    cargo::{self, Profile},
    host::{self, Needs},
    image, machine,
    packages::{self, Purpose},
};
use anyhow::{Context, Result, bail, ensure};
use banger_harness::{REGISTRY, THIS, User, images, inside};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// The argument that makes xtask measure, on the private host.
pub const ROLE: &str = "__bench";

/// Room for the peer's filesystem, which is told its size before its content.
const PEER_SIZE: &str = "1G";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// An image from a registry on this machine to an ext4 filesystem
    Pull,
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
}

/// What the part on the private host is told.
#[derive(Serialize, Deserialize)]
struct Job {
    layout: PathBuf,
    /// Repository and tag.
    name: String,
    rounds: u32,
}

/// Makes everything ready and measures on a private host.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let What::Pull = arguments.what;
    packages::install(&[Purpose::Build, Purpose::Host, Purpose::Images, Purpose::Bench])?;
    let programs = cargo::build(Profile::Release)?;
    let image = image::debian()?;
    let job = Job { layout: image.layout, name: image.name, rounds: arguments.rounds };
    let needs = Needs { user: Some(User::Root), ..Needs::default() };
    let report = host::run(&programs, needs, vec![THIS.into(), ROLE.into(), serde_json::to_string(&job)?])?;
    Ok(host::conclude(&report))
}

/// The part on the private host.
pub fn on_host(args: &[String]) -> Result<ExitCode> {
    let job: Job = serde_json::from_str(args.first().context("no job")?)?;
    images::push(&job.layout, &format!("{REGISTRY}/{}", job.name))?;
    let layers = layers(&job.layout)?;
    let repository = job.name.split(':').next().unwrap_or_default();

    let mut best = [Duration::MAX; 3];
    for _ in 0..job.rounds {
        // In turn, so that a busy minute does not hit one of them alone.
        let round = [floor(repository, &layers)?, banger(&job.name)?, peer(&job.name)?];
        best = std::array::from_fn(|index| best[index].min(round[index]));
    }
    let names = ["download, inflate, sha256", "banger image pull", "skopeo, umoci, mke2fs -d"];
    println!("{:<28} {:>9} {:>9}", "pull of one image", "seconds", "ratio");
    for (name, time) in names.iter().zip(best) {
        println!(
            "{name:<28} {:>9.3} {:>9.2}",
            time.as_secs_f64(),
            time.as_secs_f64() / best[0].as_secs_f64()
        );
    }
    Ok(ExitCode::SUCCESS)
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

/// What nobody can do without: fetch every byte, hash it, inflate it. Written nowhere.
fn floor(repository: &str, layers: &[String]) -> Result<Duration> {
    let began = Instant::now();
    for digest in layers {
        let mut stream = TcpStream::connect(REGISTRY)?;
        write!(stream, "GET /v2/{repository}/blobs/{digest} HTTP/1.0\r\nHost: {REGISTRY}\r\n\r\n")?;
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "the registry answers {line:?}");
        while line != "\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the registry's answer ends early");
        }
        let mut hashing = Hashing { inner: stream, hash: Sha256::new() };
        io::copy(&mut GzDecoder::new(BufReader::with_capacity(1 << 16, &mut hashing)), &mut io::sink())?;
        io::copy(&mut hashing, &mut io::sink())?;
        let found: String = hashing.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(digest.ends_with(&found), "the registry sent something else than {digest}");
    }
    Ok(began.elapsed())
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn banger(name: &str) -> Result<Duration> {
    let reference = format!("{REGISTRY}/{name}");
    let began = Instant::now();
    let pulled = inside::banger("root", &["image", "pull", "--name", "bench", &reference]);
    let time = began.elapsed();
    if pulled.code != 0 {
        bail!("{pulled}");
    }
    let removed = inside::banger("root", &["image", "rm", "bench"]);
    if removed.code != 0 {
        bail!("{removed}");
    }
    // The next round downloads again.
    let blobs = Path::new("/var/lib/banger/blobs/sha256");
    for blob in fs::read_dir(blobs).into_iter().flatten().flatten() {
        fs::remove_file(blob.path()).context("cannot empty the blob cache")?;
    }
    Ok(time)
}

/// The usual way, with the tools that are made for it; as root, or the owners would be lost.
fn peer(name: &str) -> Result<Duration> {
    let folder = tempfile::tempdir_in(inside::state()).context("cannot make a folder for the peer")?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (layout, bundle, filesystem) = (path("layout"), path("bundle"), path("rootfs.ext4"));
    let began = Instant::now();
    let (source, target) = (format!("docker://{REGISTRY}/{name}"), format!("oci:{layout}:latest"));
    machine::run(
        Command::new("/usr/bin/skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"])
            .args([source, target]),
    )?;
    machine::run(Command::new("/usr/bin/umoci").args([
        "unpack",
        "--image",
        &format!("{layout}:latest"),
        &bundle,
    ]))?;
    let rootfs = format!("{bundle}/rootfs");
    machine::run(Command::new("/sbin/mke2fs").args([
        "-q",
        "-t",
        "ext4",
        "-d",
        &rootfs,
        &filesystem,
        PEER_SIZE,
    ]))?;
    Ok(began.elapsed())
}
