//! `cargo xtask demo`: the main job, from a registry to a command's output from inside a VM.

use crate::{
    cargo::{self, Profile},
    host::{self, Accel, Needs},
    image,
    packages::{self, Purpose},
};
use anyhow::{Context, Result, bail};
use banger_harness::{REGISTRY, Report, THIS, User, images, inside};
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

/// The argument that makes xtask play the part of the demonstration that runs on the private host.
pub const ROLE: &str = "__demo";

/// Who does it: an ordinary user in an active session, without sudo.
const WHO: &str = "alice";
/// What image and VM are called.
const NAME: &str = "demo";

/// See the command's own help.
#[derive(clap::Args)]
pub struct Arguments {
    /// An image from wherever it lives; by default a Debian that is made here, from a registry that runs here
    image: Option<String>,
    /// What runs the VM
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
    /// The command to run in the VM
    #[arg(last = true, value_name = "CMD", default_values = ["cat", "/etc/os-release"])]
    command: Vec<String>,
}

/// What the part on the private host is told.
#[derive(Serialize, Deserialize)]
struct Job {
    /// A layout to push first.
    layout: Option<PathBuf>,
    reference: String,
    command: Vec<String>,
    /// Where the times go.
    times: PathBuf,
}

/// How long each phase took.
#[derive(Default, Serialize, Deserialize)]
struct Times(Vec<(String, u64)>);

impl Times {
    /// Runs one phase and notes how long it took.
    fn phase<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let outcome = run();
        self.0.push((name.to_owned(), u64::try_from(began.elapsed().as_millis())?));
        outcome
    }
}

/// Makes everything ready, runs the job on a private host, and shows how it went.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut times = Times::default();
    times.phase("packages", || packages::install(&[Purpose::Build, Purpose::Host, Purpose::Images]))?;
    let programs = times.phase("build", || cargo::build(Profile::Release))?;
    let (reference, layout) = match &arguments.image {
        Some(reference) => (reference.clone(), None),
        None => {
            let image = times.phase("make the image", image::debian)?;
            (format!("{REGISTRY}/{}", image.name), Some(image.layout))
        }
    };
    let inside = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let job = Job { layout, reference, command: arguments.command.clone(), times: inside.path().to_owned() };
    let needs = Needs {
        net: arguments.image.is_some(),
        user: Some(User::Root),
        accel: arguments.accel,
        ..Needs::default()
    };
    let report = host::run(&programs, needs, vec![THIS.into(), ROLE.into(), serde_json::to_string(&job)?])?;
    let on_host: Times = serde_json::from_slice(&fs::read(inside.path())?).unwrap_or_default();
    times.0.push(("host up".into(), report.setup_ms));
    times.0.extend(on_host.0);
    times.0.push(("host down".into(), report.teardown_ms));
    show(&times, &report);
    Ok(host::conclude(&report))
}

fn show(times: &Times, report: &Report) {
    println!("\n{:<24} {:>9}", "phase", "seconds");
    for (phase, ms) in &times.0 {
        println!("{phase:<24} {:>5}.{:03}", ms / 1000, ms % 1000);
    }
    println!("\n{:<24} {:>9}", "left on the host", "count");
    for (kind, left) in &report.leaks {
        println!("{kind:<24} {:>9}", left.len());
    }
}

/// The part on the private host: this process is root there, the client's user is not.
pub fn on_host(args: &[String]) -> Result<ExitCode> {
    let job: Job = serde_json::from_str(args.first().context("no job")?)?;
    let mut times = Times::default();
    let outcome = steps(&job, &mut times);
    fs::write(&job.times, serde_json::to_vec(&times)?).context("cannot write the times")?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn steps(job: &Job, times: &mut Times) -> Result<()> {
    if let Some(layout) = &job.layout {
        times.phase("push", || Ok(images::push(layout, &job.reference)?))?;
    }
    times.phase("pull", || client(&["image", "pull", &job.reference, "--name", NAME]))?;
    times.phase("create", || client(&["vm", "create", "--image", NAME, "--name", NAME, "--no-start"]))?;
    times.phase("boot", || client(&["vm", "start", NAME]))?;
    let mut exec = vec!["exec", NAME, "--"];
    exec.extend(job.command.iter().map(String::as_str));
    times.phase("exec", || client(&exec))?;
    times.phase("delete the VM", || client(&["vm", "rm", "--force", NAME]))?;
    times.phase("delete the image", || client(&["image", "rm", NAME]))
}

/// Runs the client and shows what is run.
fn client(args: &[&str]) -> Result<()> {
    eprintln!("{WHO}$ banger {}", args.join(" "));
    let status = inside::client(WHO, args).status().context("cannot run the client")?;
    if !status.success() {
        bail!("banger ended with {status}\nthe end of the service's log:\n{}", inside::service_log());
    }
    Ok(())
}
