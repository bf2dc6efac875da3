//! The command line of banger: everything it does is a call of `org.banger.Manager` on the system bus.

mod attach;
mod bus;
mod cli;
mod commands;
mod console;
mod context;
mod credentials;
mod error;
mod job;
mod layout;
mod modules;
mod output;
mod pack;
mod progress;
mod pump;
mod signals;
mod terminal;

use crate::{
    cli::{Cli, Command},
    context::Context,
    error::{Error, FAILED},
};
use clap::{CommandFactory, Parser, error::ErrorKind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to print to is no reason to fail differently.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { FAILED.into() };
        }
    };
    let verbose = cli.verbose || cli.verbose_short;
    // One thread is enough for a client; the streams have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Error::file("make", "an event loop", error).report(verbose);
            return FAILED.into();
        }
    };
    match runtime.block_on(run(cli, verbose)) {
        Ok(code) => code.into(),
        Err(error) => {
            error.report(verbose);
            error.code().into()
        }
    }
}

/// Does what the command line says; the exit code where it is not for banger to choose.
async fn run(cli: Cli, verbose: bool) -> Result<u8, Error> {
    let connect = || Context::new(cli.quiet, verbose);
    match cli.command {
        Command::Run(args) => return commands::run::run(&mut connect().await?, args).await,
        Command::Exec(args) => return commands::exec::exec(&mut connect().await?, args).await,
        Command::Image(command) => commands::image::image(&mut connect().await?, command).await?,
        Command::Kernel(command) => commands::kernel::kernel(&mut connect().await?, command).await?,
        Command::Vm(command) => commands::vm::vm(&mut connect().await?, command).await?,
        Command::Ps(format) => commands::vm::list(&mut connect().await?, format.format).await?,
        Command::Life(command) => commands::life::life(&mut connect().await?, command).await?,
        Command::Events(args) => commands::events::events(&mut connect().await?, args).await?,
        Command::Volume(command) => commands::volume::volume(&mut connect().await?, command).await?,
        Command::Job(command) => commands::job::job(&mut connect().await?, command).await?,
        Command::Doctor(format) => return commands::doctor::doctor(&mut connect().await?, format).await,
        Command::System(command) => commands::system::system(&mut connect().await?, command).await?,
        Command::Version => commands::version::version(cli.quiet, verbose).await?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "banger", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
        }
        Command::Manual { folder } => {
            let written = clap_mangen::generate_to(Cli::command(), &folder);
            written.map_err(|error| Error::file("write", &folder, error))?;
        }
    }
    Ok(0)
}
