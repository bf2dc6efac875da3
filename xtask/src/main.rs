//! Developer commands: everything that CI does, runnable by hand.

mod bench;
mod cargo;
mod demo;
mod dev;
mod dist;
mod fuzz;
mod host;
mod image;
mod kernel;
mod lint;
mod machine;
mod packages;
mod system;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands: everything that CI does, runnable by hand.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job: an image out of a registry, a VM, a command's output from inside it; with times
    Demo(demo::Arguments),
    /// Run a command on a private host: bus, polkit, services, registry; then take it down and look for leaks
    Dev(dev::Arguments),
    /// Run the tests, lane by lane
    Test(test::Arguments),
    /// Format, clippy, documentation, dependencies
    Lint,
    /// Look for inputs that break a parser or the ext4 writer
    Fuzz(fuzz::Arguments),
    /// Measure against peers, in one run
    Bench(bench::Arguments),
    /// Build a release as one archive
    Dist,
}

fn main() -> ExitCode {
    // The private host starts this executable again for its own parts.
    if let Some(code) = banger_harness::role() {
        return code;
    }
    let outcome = part_on_host().unwrap_or_else(|| match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Lint => lint::run(),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Dist => dist::run(),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Some commands go on in this executable on the private host.
fn part_on_host() -> Option<anyhow::Result<ExitCode>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (role, rest) = args.split_first()?;
    match role.as_str() {
        demo::ROLE => Some(demo::on_host(rest)),
        test::ROLE => Some(test::on_host(rest)),
        bench::ROLE => Some(bench::on_host(rest)),
        _ => None,
    }
}
