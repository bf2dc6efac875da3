//! `cargo xtask test [LANE…]`: builds once, runs the lanes, counts.

use crate::{
    cargo::{self, Profile, cargo},
    host::{self, Accel, Needs},
    kernel, machine,
    packages::{self, Purpose},
    system,
};
use anyhow::{Context, Result, bail, ensure};
use banger_harness::{THIS, User};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The argument that makes xtask run the host lane's tests, on the private host.
pub const ROLE: &str = "__host-tests";

/// The package of all lanes but `unit`.
const LANES: &str = "banger-tests";

/// Where Firecracker is, or on the private host what stands in for it.
const FIRECRACKER: [&str; 2] = ["/usr/bin/firecracker", "/usr/local/bin/firecracker"];

/// A lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lane {
    /// The tests beside the code: nothing needed
    Unit,
    /// What the parts agree on: nothing needed
    Contract,
    /// A private message bus
    Bus,
    /// Everything real, on a private host: root
    Host,
    /// The package on a Debian that systemd has booted, in QEMU: root
    System,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Unit => "unit",
            Lane::Contract => "contract",
            Lane::Bus => "bus",
            Lane::Host => "host",
            Lane::System => "system",
        })
    }
}

/// See the command's own help.
#[derive(clap::Args)]
pub struct Arguments {
    /// The lanes; all but `system` when there is none
    lanes: Vec<Lane>,
    /// Run only tests whose name contains this; a lane may then run none
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    passed: u64,
    failed: u64,
    /// Test programs that ended in any other way than by saying how it went.
    broken: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.broken += other.broken;
    }
}

/// Runs the lanes and shows what ran.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let every = vec![Lane::Unit, Lane::Contract, Lane::Bus, Lane::Host];
    let lanes = if arguments.lanes.is_empty() { every } else { arguments.lanes.clone() };
    packages::install(&[Purpose::Build, Purpose::Host, Purpose::Test])?;
    let filter: Vec<&str> = arguments.only.as_deref().into_iter().collect();
    let needs_programs = lanes.iter().any(|lane| !matches!(lane, Lane::Unit | Lane::System));
    let programs = if needs_programs { build_lanes()? } else { Vec::new() };

    let mut results = Vec::new();
    for lane in lanes {
        println!("== lane {lane}");
        let of_lane: Vec<&PathBuf> =
            programs.iter().filter(|(name, _)| belongs(name, lane)).map(|(_, path)| path).collect();
        let count = match lane {
            Lane::Unit => {
                let mut all = cargo();
                all.args(["test", "--quiet", "--workspace", "--exclude", LANES, "--"]).args(&filter);
                follow(&mut all)?
            }
            Lane::Contract | Lane::Bus => run_programs(&of_lane, &filter)?,
            Lane::Host => on_private_host(&of_lane, &filter)?,
            Lane::System => on_booted_host(filter.first().copied().unwrap_or_default())?,
        };
        results.push((lane, count));
    }
    conclude(&results, arguments.only.is_some())
}

fn conclude(results: &[(Lane, Count)], filtered: bool) -> Result<ExitCode> {
    println!("\n{:<10} {:>7} {:>7}", "lane", "passed", "failed");
    for (lane, count) in results {
        println!("{lane:<10} {:>7} {:>7}", count.passed, count.failed + count.broken);
    }
    for (lane, count) in results {
        ensure!(count.failed + count.broken == 0, "lane {lane} failed");
        ensure!(count.passed > 0 || filtered, "lane {lane} ran no test");
    }
    Ok(ExitCode::SUCCESS)
}

/// A lane's test programs carry its name: `contract`, `bus`, `bus_polkit`, `host_main_job`.
fn belongs(program: &str, lane: Lane) -> bool {
    program.split('_').next() == Some(&lane.to_string())
}

/// Builds the test programs of all lanes but `unit`: name and path of each.
fn build_lanes() -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo();
    build.args([
        "test",
        "--quiet",
        "--package",
        LANES,
        "--all-features",
        "--no-run",
        "--message-format=json",
    ]);
    let output = build.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests do not build:\n{}", compiler_messages(&output.stdout));
    let mut programs = Vec::new();
    for line in output.stdout.lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        let is_test = message["target"]["kind"] == serde_json::json!(["test"]);
        if let (true, Some(path), Some(name)) =
            (is_test, message["executable"].as_str(), message["target"]["name"].as_str())
        {
            programs.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    programs.sort();
    Ok(programs)
}

fn compiler_messages(output: &[u8]) -> String {
    let lines = output.lines().map_while(Result::ok);
    let messages = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
    messages.filter_map(|message| message["message"]["rendered"].as_str().map(str::to_owned)).collect()
}

fn run_programs(programs: &[&PathBuf], arguments: &[&str]) -> Result<Count> {
    let mut sum = Count::default();
    for program in programs {
        println!("-- {}", program.file_stem().unwrap_or_default().display());
        // Where cargo would run it.
        let folder = machine::root().join("tests");
        sum += follow(Command::new(program).args(arguments).current_dir(folder))?;
    }
    Ok(sum)
}

/// Runs tests, shows what they print, and counts by their summaries.
fn follow(command: &mut Command) -> Result<Count> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run the tests")?;
    let mut count = Count::default();
    let mut reader = BufReader::new(child.stdout.take().context("no output to follow")?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        count += summary(&String::from_utf8_lossy(&line)).unwrap_or_default();
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        println!("{} ended with {status}", command.get_program().display());
        count.broken += 1;
    }
    Ok(count)
}

/// Reads `test result: ok. 3 passed; 0 failed; …`.
fn summary(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = rest.split_once(word)?.0.trim_end();
        before.rsplit(' ').next()?.parse().ok()
    };
    Some(Count { passed: number("passed")?, failed: number("failed")?, broken: 0 })
}

/// What the part on the private host is told.
#[derive(Serialize, Deserialize)]
struct Job {
    programs: Vec<PathBuf>,
    arguments: Vec<String>,
    /// Where the count goes.
    count: PathBuf,
}

fn on_private_host(programs: &[&PathBuf], filter: &[&str]) -> Result<Count> {
    let built = cargo::build(Profile::Debug)?;
    let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let job = Job {
        programs: programs.iter().map(|path| (*path).clone()).collect(),
        // They share one host: what one looks at, another must not be changing.
        arguments: filter.iter().copied().chain(["--test-threads=1"]).map(str::to_owned).collect(),
        count: file.path().to_owned(),
    };
    let mut install = kernel::installed()?;
    if !FIRECRACKER.iter().any(|path| Path::new(path).exists()) {
        install.insert(FIRECRACKER[0].into(), machine::target().join("debug/scripted-firecracker"));
    }
    let needs = Needs { user: Some(User::Root), accel: Accel::Tcg, install, ..Needs::default() };
    let report = host::run(&built, needs, vec![THIS.into(), ROLE.into(), serde_json::to_string(&job)?])?;
    let text = fs::read_to_string(file.path())?;
    let Ok(mut count) = serde_json::from_str::<Count>(&text) else {
        bail!("the host lane ended with code {} before it was through", report.code)
    };
    if !report.is_clean() {
        host::conclude(&report);
        count.broken += 1;
    }
    Ok(count)
}

/// The scenarios say how it goes as tests do.
fn on_booted_host(only: &str) -> Result<Count> {
    packages::install(&[Purpose::System])?;
    system::build()?;
    let (mut command, _folder) = system::command(only)?;
    let count = follow(&mut command)?;
    ensure!(count != Count::default(), "the host did not come to its end: target/xtask/system-console.log");
    Ok(count)
}

/// The part on the private host.
pub fn on_host(args: &[String]) -> Result<ExitCode> {
    let job: Job = serde_json::from_str(args.first().context("no job")?)?;
    let programs: Vec<&PathBuf> = job.programs.iter().collect();
    let arguments: Vec<&str> = job.arguments.iter().map(String::as_str).collect();
    let count = run_programs(&programs, &arguments)?;
    fs::write(&job.count, serde_json::to_vec(&count)?).context("cannot write the count")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        assert_eq!(summary(line), Some(Count { passed: 12, failed: 3, broken: 0 }));
        assert_eq!(summary("test result_is_kept ... ok"), None);
        assert_eq!(summary("running 12 tests"), None);
    }

    #[test]
    fn a_lane_owns_the_programs_that_carry_its_name() {
        assert!(belongs("bus", Lane::Bus) && belongs("bus_polkit", Lane::Bus));
        assert!(!belongs("business", Lane::Bus) && !belongs("host_bus", Lane::Bus));
    }

    #[test]
    fn a_lane_that_runs_nothing_fails() {
        assert!(conclude(&[(Lane::Bus, Count::default())], false).is_err());
        assert!(conclude(&[(Lane::Bus, Count { passed: 1, ..Count::default() })], false).is_ok());
        assert!(conclude(&[(Lane::Bus, Count { passed: 1, broken: 1, failed: 0 })], false).is_err());
    }
}
